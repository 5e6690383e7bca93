//! A negotiation on paper, and taken up again from it.

use super::{Negotiator, QueueDraft, State};
use crate::virtio::Queues;
use crate::virtio::queue::Progress;

/// How far a driver has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It has not begun, or has started over.
    Reset,
    /// It has seen the device.
    Acknowledged,
    /// It chooses features.
    Driver,
    /// They are agreed.
    FeaturesOk,
    /// It uses the device.
    Live,
    /// It or the device has given up.
    Failed,
}

/// A queue as its driver has described it (virtio 1.3, section 4.1.4.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SavedQueue {
    /// Entries.
    pub size: u32,
    /// Guest address of the descriptor table.
    pub descriptors: u64,
    /// Of the available ring.
    pub driver: u64,
    /// Of the used ring.
    pub device: u64,
    /// Whether it is in use.
    pub ready: bool,
}

/// What there is to know of one device's negotiation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// How far it has come.
    pub stage: Stage,
    /// The features chosen so far; 0 before and after that matters.
    pub features: u64,
    /// Of each queue of the offer from FEATURES_OK on; else none.
    pub queues: Vec<SavedQueue>,
    /// The selectors: device features, driver features, queue.
    pub selects: [u32; 3],
    /// Interrupt causes that the driver has not taken note of.
    pub causes: u32,
    /// Whether the device has stopped.
    pub needs_reset: bool,
    /// The messages of the configuration and of each queue, where interrupts are messages.
    pub vectors: Vec<u16>,
    /// The configuration space.
    pub config: Vec<u8>,
}

/// A device that goes on: the agreed features and its queues.
pub type Live = (u64, Queues);

impl Negotiator {
    /// As it is now.
    #[must_use]
    pub fn save(&self) -> Saved {
        let (stage, features, drafts) = match &self.state {
            State::Reset => (Stage::Reset, 0, None),
            State::Acknowledged => (Stage::Acknowledged, 0, None),
            State::Driver { features } => (Stage::Driver, *features, None),
            State::FeaturesOk { features, drafts } => (Stage::FeaturesOk, *features, Some(drafts)),
            State::Live { features, drafts } => (Stage::Live, *features, Some(drafts)),
            State::Failed => (Stage::Failed, 0, None),
        };
        Saved {
            stage,
            features,
            queues: drafts.into_iter().flatten().map(saved_queue).collect(),
            selects: [
                self.device_features_select,
                self.driver_features_select,
                self.queue_select,
            ],
            causes: self.interrupt.status(),
            needs_reset: self.interrupt.is_reset_needed(),
            vectors: self.interrupt.assigned_vectors(),
            config: self.offer.config.bytes(),
        }
    }

    /// Takes a negotiation up, in a device after power-on; what its device is to go on with, if it is to. `progress`
    /// says how far each queue has come, by index.
    ///
    /// # Errors
    /// What a device like this cannot have.
    pub fn restore(
        &mut self,
        saved: &Saved,
        progress: &[(u16, Progress)],
    ) -> Result<Option<Live>, &'static str> {
        if saved.features & !self.offer.features != 0 {
            return Err("features that it does not offer");
        }
        let drafts: Vec<QueueDraft> = saved.queues.iter().map(draft).collect();
        let described = matches!(saved.stage, Stage::FeaturesOk | Stage::Live);
        if described && drafts.len() != self.offer.queue_sizes.len() {
            return Err("another number of queues");
        }
        [
            self.device_features_select,
            self.driver_features_select,
            self.queue_select,
        ] = saved.selects;
        self.interrupt
            .restore(saved.causes, saved.needs_reset, &saved.vectors);
        self.offer.config.restore(&saved.config);
        let features = saved.features;
        let mut live = None;
        self.state = match saved.stage {
            Stage::Reset => State::Reset,
            Stage::Acknowledged => State::Acknowledged,
            Stage::Driver => State::Driver { features },
            Stage::FeaturesOk => State::FeaturesOk { features, drafts },
            Stage::Failed => State::Failed,
            Stage::Live => {
                // A device that has stopped waits for its driver's reset.
                if !saved.needs_reset {
                    let mut queues = self
                        .activate(features, &drafts)
                        .ok_or("queues outside the guest's memory")?;
                    for (index, progress) in progress {
                        queues.proceed(usize::from(*index), *progress);
                    }
                    live = Some((features, queues));
                }
                State::Live { features, drafts }
            }
        };
        Ok(live)
    }
}

const fn saved_queue(draft: &QueueDraft) -> SavedQueue {
    SavedQueue {
        size: draft.size,
        descriptors: draft.descriptors,
        driver: draft.driver,
        device: draft.device,
        ready: draft.ready,
    }
}

const fn draft(saved: &SavedQueue) -> QueueDraft {
    QueueDraft {
        size: saved.size,
        descriptors: saved.descriptors,
        driver: saved.driver,
        device: saved.device,
        ready: saved.ready,
    }
}
