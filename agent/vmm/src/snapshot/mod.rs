//! A paused machine on paper, and machines that go on from it.
//!
//! A snapshot is two files: the state ([`format`]: sections of [`fields`]), parsed as what a stranger has written, and the
//! [`memory`], mapped and not copied. [`host`] and [`device`] say what a copy has to have in common with the machine it is
//! a copy of; [`vcpu`] and [`board`] are KVM's part. What must not be the same in two copies, [`identity`] makes anew.
//! Nothing of the host side is in a snapshot: no descriptor, no address, no connection, no counter.

pub mod board;
pub mod device;
pub mod fields;
pub mod format;
pub mod host;
pub mod identity;
pub mod memory;
#[allow(
    unsafe_code,
    reason = "KVM_SET_XSAVE reads as much as KVM says it needs"
)]
pub mod vcpu;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use self::board::Board;
use self::device::Device;
use self::fields::{Reader, Writer};
use self::format::{Kind, MAX_BYTES, Section};
use self::host::Host;
use self::memory::Tie;
use self::vcpu::Vcpu;

/// A snapshot cannot be taken or used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// No such file at all.
    #[error("the state file is no snapshot")]
    NotASnapshot,
    /// Another layout.
    #[error(
        "the state file has version {found}, this build of crn-vmm knows version {}",
        format::VERSION
    )]
    Version {
        /// The file's.
        found: u32,
    },
    /// The file has been cut, or added to.
    #[error("the state file has {found} bytes and says that it has {stated}")]
    Length {
        /// What it has.
        found: u64,
        /// What its header says.
        stated: u64,
    },
    /// The file has been damaged.
    #[error("the state file is damaged: its checksum does not match")]
    Checksum,
    /// The sections are not one behind the other up to the end.
    #[error("the state file's section {number} is none")]
    Section {
        /// From 0.
        number: usize,
    },
    /// A section is not there as often as it has to be.
    #[error("the state file has {found} {kind} sections instead of {expected}")]
    Count {
        /// The section's kind.
        kind: &'static str,
        /// How often it is there.
        found: usize,
        /// How often it has to be.
        expected: usize,
    },
    /// A field is cut short, too long, or says what cannot be.
    #[error("the snapshot's {section} section is malformed at {field}")]
    Field {
        /// The section's kind.
        section: &'static str,
        /// The field.
        field: &'static str,
    },
    /// It was made elsewhere.
    #[error("the snapshot was made with another {what}: {made}, here it is {here}")]
    Other {
        /// What differs.
        what: &'static str,
        /// Where it was made.
        made: String,
        /// Here.
        here: String,
    },
    /// The CPU model is the same, but not what KVM gives of it.
    #[error("the snapshot was made with another set of CPU features, on the same CPU model")]
    CpuFeatures,
    /// The description is not that of the machine.
    #[error("the snapshot is of a machine with {made} {what}, the description has {here}")]
    Configuration {
        /// What differs.
        what: &'static str,
        /// In the snapshot.
        made: String,
        /// In the description.
        here: String,
    },
    /// A device is not the one of the snapshot.
    #[error("the snapshot's device {name} {difference}")]
    Device {
        /// Its name.
        name: String,
        /// What differs.
        difference: String,
    },
    /// A device cannot be in the state the snapshot has for it.
    #[error("the snapshot's device {name} has {what}")]
    DeviceState {
        /// Its name.
        name: String,
        /// What it cannot have.
        what: &'static str,
    },
    /// A device does not go on.
    #[error("the snapshot's device {name} does not go on")]
    DeviceFault {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: crate::virtio::DeviceFault,
    },
    /// The devices are not those the machine was started with.
    #[error("devices have come or gone since the machine's start")]
    Plugged,
    /// There is nothing to differ from.
    #[error("there is no snapshot before this one to differ from")]
    First,
    /// What the guest wrote may be lost.
    #[error("what the guest wrote to {name} may not be durable")]
    Flush {
        /// The device.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A vCPU's thread does not answer.
    #[error("not every vCPU tells its state")]
    Vcpus,
    /// An MSR does not take the snapshot's value.
    #[error("the snapshot's MSR {0:#x} has a value that this host does not take")]
    Msr(u32),
    /// The memory file is not the one.
    #[error("the snapshot's memory {0}")]
    Memory(String),
    /// One of the files cannot be read.
    #[error("cannot read the snapshot's {0}")]
    Read(&'static str, #[source] io::Error),
    /// One of the files cannot be written.
    #[error("cannot write the snapshot's {0}")]
    Write(&'static str, #[source] io::Error),
}

/// Everything but the memory.
#[derive(Debug)]
pub struct Snapshot {
    /// Where it was made.
    pub host: Host,
    /// MiB of memory.
    pub memory_mib: u32,
    /// Which memory file belongs to it.
    pub tie: Tie,
    /// What the machine has one of.
    pub board: Board,
    /// In the order of their numbers.
    pub vcpus: Vec<Vcpu>,
    /// In the order of their indices.
    pub devices: Vec<Device>,
}

impl Snapshot {
    /// The state file's content.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut machine = Writer::default();
        machine
            .plain(&self.memory_mib)
            .plain(&self.tie)
            .plain(&(self.vcpus.len() as u32))
            .plain(&(self.devices.len() as u32));
        let section = |kind, bytes| Section { kind, bytes };
        let mut sections = vec![
            section(Kind::Host, self.host.write()),
            section(Kind::Machine, machine.finish()),
            section(Kind::Board, self.board.write()),
        ];
        sections.extend(
            self.vcpus
                .iter()
                .map(|one| section(Kind::Vcpu, one.write())),
        );
        sections.extend(
            self.devices
                .iter()
                .map(|one| section(Kind::Device, one.write())),
        );
        format::encode(&sections)
    }

    /// From a state file's content.
    ///
    /// # Errors
    /// [`SnapshotError`] with the first thing that is wrong with it.
    pub fn from_bytes(file: &[u8]) -> Result<Self, SnapshotError> {
        let sections = format::decode(file)?;
        let of = |kind| {
            let matching = sections.iter().filter(move |section| section.kind == kind);
            matching.map(|section| section.bytes.as_slice())
        };
        let only = |kind: Kind| {
            let mut all = of(kind);
            match (all.next(), all.next()) {
                (Some(bytes), None) => Ok(bytes),
                _ => Err(counted(kind, of(kind).count(), 1)),
            }
        };
        let mut machine = Reader::new(Kind::Machine, only(Kind::Machine)?);
        let memory_mib = machine.plain("its memory")?;
        let tie = machine.plain("its memory file")?;
        let vcpus = machine.plain::<u32>("the number of vCPUs")? as usize;
        let devices = machine.plain::<u32>("the number of devices")? as usize;
        machine.end()?;
        for (kind, expected) in [(Kind::Vcpu, vcpus), (Kind::Device, devices)] {
            let found = of(kind).count();
            if found != expected {
                return Err(counted(kind, found, expected));
            }
        }
        Ok(Self {
            host: Host::read(only(Kind::Host)?)?,
            memory_mib,
            tie,
            board: Board::read(only(Kind::Board)?)?,
            vcpus: of(Kind::Vcpu).map(Vcpu::read).collect::<Result<_, _>>()?,
            devices: of(Kind::Device)
                .map(Device::read)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Reads a state file.
    ///
    /// # Errors
    /// As [`Snapshot::from_bytes`], and [`SnapshotError::Read`].
    pub fn read(file: &File) -> Result<Self, SnapshotError> {
        let read = |error| SnapshotError::Read("state", error);
        let length = file.metadata().map_err(read)?.len();
        if length > MAX_BYTES {
            return Err(read(io::ErrorKind::FileTooLarge.into()));
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0).map_err(read)?;
        Self::from_bytes(&bytes)
    }

    /// Writes an empty state file and makes it durable.
    ///
    /// # Errors
    /// [`SnapshotError::Write`].
    pub fn write(&self, file: &File) -> Result<(), SnapshotError> {
        must_be_empty(file)
            .and_then(|()| file.write_all_at(&self.to_bytes(), 0))
            .and_then(|()| file.sync_data())
            .map_err(|error| SnapshotError::Write("state", error))
    }

    /// Whether the description is that of this machine.
    ///
    /// # Errors
    /// [`SnapshotError::Configuration`].
    pub fn check(&self, vcpus: u8, memory_mib: u32, pci: bool) -> Result<(), SnapshotError> {
        let bus = |pci| if pci { "PCI" } else { "MMIO" }.to_owned();
        for (what, made, here) in [
            ("vCPUs", self.vcpus.len().to_string(), vcpus.to_string()),
            (
                "MiB of memory",
                self.memory_mib.to_string(),
                memory_mib.to_string(),
            ),
            ("as its bus", bus(self.board.pci.is_some()), bus(pci)),
        ] {
            if made != here {
                return Err(SnapshotError::Configuration { what, made, here });
            }
        }
        Ok(())
    }
}

fn counted(kind: Kind, found: usize, expected: usize) -> SnapshotError {
    SnapshotError::Count {
        kind: kind.name(),
        found,
        expected,
    }
}

/// Only what nobody else has written into is written into.
fn must_be_empty(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.len() == 0 {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not an empty regular file",
        ))
    }
}

#[cfg(test)]
mod tests;
