//! A device's part: what it was offered as, how far its driver has come, and its queues.

use super::SnapshotError;
use super::fields::{Reader, Writer};
use super::format::Kind;
use crate::virtio::Progress;
use crate::virtio::negotiate::{Saved, SavedQueue, Stage};
use crate::virtio::pci::SavedFunction;

/// Queues of one device at most: those of a function with all its vectors.
const MAX_QUEUES: usize = 128;
/// Bytes of a configuration space, or of a function's registers and table, at most.
const MAX_BYTES: usize = 4096;
/// Names are serials (20 bytes) or kinds with a number.
const MAX_NAME: usize = 64;
/// Numbers of a device's own.
const MAX_OWN: usize = 16;
/// virtio-balloon and virtio-vsock (virtio 1.3, section 5): the host's part of their configuration may be another one
/// in a copy, whose driver is told to look again.
const ADJUSTABLE: [u32; 2] = [5, 19];

/// What a device is, to be compared with the one that a copy is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its name to the controller.
    pub name: String,
    /// Device type (virtio 1.3, section 5).
    pub device_id: u32,
    /// Feature bits on offer.
    pub features: u64,
    /// Largest size of each queue.
    pub queue_sizes: Vec<u16>,
    /// The configuration space without what drivers write.
    pub config: Vec<u8>,
}

impl Identity {
    /// Whether a driver of this device can go on with the other one.
    ///
    /// # Errors
    /// [`SnapshotError::Device`] with the first difference.
    pub fn check(&self, other: &Self) -> Result<(), SnapshotError> {
        let difference = if self.name != other.name {
            format!("is {} in the description", other.name)
        } else if self.device_id != other.device_id {
            "is of another kind in the description".to_owned()
        } else if self.features != other.features {
            format!(
                "had the features {:#x} and has {:#x} now",
                self.features, other.features
            )
        } else if self.queue_sizes != other.queue_sizes {
            format!(
                "had {} queues and has {} now",
                self.queue_sizes.len(),
                other.queue_sizes.len()
            )
        } else if self.config != other.config && !ADJUSTABLE.contains(&self.device_id) {
            "has another size or address in the description".to_owned()
        } else {
            return Ok(());
        };
        Err(SnapshotError::Device {
            name: self.name.clone(),
            difference,
        })
    }
}

/// A device in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// What it is.
    pub identity: Identity,
    /// How far its driver has come.
    pub negotiation: Saved,
    /// How far its queues have come, by index.
    pub progress: Vec<(u16, Progress)>,
    /// [`crate::devices::Device::save`].
    pub own: Vec<u64>,
    /// On a PCI bus.
    pub function: Option<SavedFunction>,
}

const STAGES: [Stage; 6] = [
    Stage::Reset,
    Stage::Acknowledged,
    Stage::Driver,
    Stage::FeaturesOk,
    Stage::Live,
    Stage::Failed,
];

impl Device {
    /// It cannot have this.
    #[must_use]
    pub fn refuse(&self, what: &'static str) -> SnapshotError {
        SnapshotError::DeviceState {
            name: self.identity.name.clone(),
            what,
        }
    }

    /// As a section.
    pub fn write(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        let identity = &self.identity;
        writer
            .text(&identity.name)
            .plain(&identity.device_id)
            .plain(&identity.features)
            .list(&identity.queue_sizes)
            .list(&identity.config);
        let saved = &self.negotiation;
        let stage = STAGES.iter().position(|stage| *stage == saved.stage);
        writer
            .plain(&(stage.unwrap_or(0) as u8))
            .plain(&saved.features)
            .plain(&(saved.queues.len() as u32));
        for queue in &saved.queues {
            writer
                .plain(&queue.size)
                .plain(&queue.descriptors)
                .plain(&queue.driver)
                .plain(&queue.device)
                .flag(queue.ready);
        }
        writer
            .plain(&saved.selects)
            .plain(&saved.causes)
            .flag(saved.needs_reset)
            .list(&saved.vectors)
            .list(&saved.config)
            .plain(&(self.progress.len() as u32));
        for (index, progress) in &self.progress {
            writer
                .plain(index)
                .plain(&progress.next_available)
                .plain(&progress.next_used);
        }
        writer.list(&self.own).flag(self.function.is_some());
        if let Some(function) = &self.function {
            writer
                .list(&function.config)
                .list(&function.table)
                .list(&function.pending);
        }
        writer.finish()
    }

    /// From a section.
    ///
    /// # Errors
    /// [`SnapshotError::Field`].
    pub fn read(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut reader = Reader::new(Kind::Device, bytes);
        let identity = Identity {
            name: reader.text("its name", MAX_NAME)?,
            device_id: reader.plain("its kind")?,
            features: reader.plain("the features on offer")?,
            queue_sizes: reader.list("the queues on offer", MAX_QUEUES)?,
            config: reader.list("the configuration on offer", MAX_BYTES)?,
        };
        let stage = usize::from(reader.plain::<u8>("its stage")?);
        let stage = *STAGES.get(stage).ok_or(reader.refuse("its stage"))?;
        let features = reader.plain("the agreed features")?;
        let mut queues = Vec::new();
        for _ in 0..count(&mut reader, "the number of queues")? {
            queues.push(SavedQueue {
                size: reader.plain("a queue's size")?,
                descriptors: reader.plain("a queue's descriptors")?,
                driver: reader.plain("a queue's available ring")?,
                device: reader.plain("a queue's used ring")?,
                ready: reader.flag("a queue's state")?,
            });
        }
        let negotiation = Saved {
            stage,
            features,
            queues,
            selects: reader.plain("its selectors")?,
            causes: reader.plain("its interrupt causes")?,
            needs_reset: reader.flag("whether it has stopped")?,
            vectors: reader.list("its vectors", MAX_QUEUES)?,
            config: reader.list("its configuration", MAX_BYTES)?,
        };
        let mut progress = Vec::new();
        for _ in 0..count(&mut reader, "the number of queues in use")? {
            let index = reader.plain("a queue's index")?;
            let next = Progress {
                next_available: reader.plain("a queue's progress")?,
                next_used: reader.plain("a queue's progress")?,
            };
            progress.push((index, next));
        }
        let own = reader.list("its own numbers", MAX_OWN)?;
        let function = match reader.flag("whether it is on PCI")? {
            false => None,
            true => Some(SavedFunction {
                config: reader.list("its registers", MAX_BYTES)?,
                table: reader.list("its table of messages", MAX_BYTES)?,
                pending: reader.list("its pending messages", MAX_QUEUES)?,
            }),
        };
        reader.end()?;
        Ok(Self {
            identity,
            negotiation,
            progress,
            own,
            function,
        })
    }
}

fn count(reader: &mut Reader<'_>, field: &'static str) -> Result<u32, SnapshotError> {
    let count = reader.plain(field)?;
    if count as usize > MAX_QUEUES {
        return Err(reader.refuse(field));
    }
    Ok(count)
}
