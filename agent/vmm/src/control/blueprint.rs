//! A machine's description after it has been checked: bounds hold, and every descriptor has become the file it names.

use std::fs::File;
use std::os::fd::OwnedFd;

use crn_protocol::control::{
    Descriptor, DiskSpec, Hardware, MemoryBacking, RestoreSpec, Transport, VmSpec,
};
use crn_protocol::devices::{Engine, Limits, NicLimits};

use crate::boot::Payload;
use crate::devices::block::ID_LENGTH;
use crate::memory::huge_page_mib;
use crate::plan::layout::{CMDLINE_MAX, MAX_MMIO_DEVICES, MAX_PCI_DEVICES};
use crate::{Error, Result};

const VCPUS: std::ops::RangeInclusive<u8> = 1..=64;
const MEMORY_MIB: std::ops::RangeInclusive<u32> = 32..=524_288;
/// IPv4's least and Ethernet's most.
const MTU: std::ops::RangeInclusive<u16> = 68..=65_521;
/// 0, 1 and 2 have meanings of their own; the last is VMADDR_CID_ANY.
const CID: std::ops::Range<u32> = 3..u32::MAX;
const NAME_MAX: usize = 128;
const TAP_QUEUES: std::ops::RangeInclusive<usize> = 1..=8;

/// A disk.
#[derive(Debug)]
pub struct Disk {
    /// The raw image.
    pub file: OwnedFd,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Its identity in the guest.
    pub serial: String,
    /// How requests reach the image.
    pub engine: Engine,
    /// Limits of its transfers.
    pub limits: Limits,
}

impl Disk {
    /// Checks the description of a disk that comes to a running machine.
    ///
    /// # Errors
    /// [`Error::Spec`].
    pub fn attached(spec: DiskSpec, descriptors: Vec<OwnedFd>) -> Result<Self> {
        Self::new("disk", spec, &mut Files::new(descriptors))
    }

    fn new(field: &str, spec: DiskSpec, files: &mut Files) -> Result<Self> {
        if spec.serial.len() > ID_LENGTH || !spec.serial.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(Error::spec(
                format!("{field}.serial"),
                "is not at most 20 bytes of graphic ASCII",
            ));
        }
        Ok(Self {
            file: files.take(&format!("{field}.file"), spec.file)?,
            read_only: spec.read_only,
            serial: spec.serial,
            engine: spec.engine,
            limits: limits(&format!("{field}.limits"), spec.limits)?,
        })
    }
}

/// A NIC.
#[derive(Debug)]
pub struct Nic {
    /// The TAP's queues, at least one.
    pub taps: Vec<OwnedFd>,
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// Bytes.
    pub mtu: u16,
    /// Limits each way.
    pub limits: NicLimits,
}

/// Where the console goes.
#[derive(Debug)]
pub struct ConsoleOutput {
    /// The file or pipe.
    pub output: OwnedFd,
    /// See [`crn_protocol::control::ConsoleSpec`].
    pub max_bytes: u64,
}

/// What becomes devices.
#[derive(Debug)]
pub struct Parts {
    /// In the guest's order.
    pub disks: Vec<Disk>,
    /// In the guest's order.
    pub nics: Vec<Nic>,
    /// Context identifier and listening socket.
    pub vsock: Option<(u32, OwnedFd)>,
    /// MiB the balloon is to have from the start, if there is one.
    pub balloon: Option<u32>,
    /// Images to be mapped into the guest.
    pub pmem: Vec<File>,
    /// Limits of the entropy source.
    pub entropy: Limits,
    /// Whether there is a virtio console beside the serial port.
    pub virtio_console: bool,
}

/// What the machine's memory holds at first.
#[derive(Debug)]
pub enum Source {
    /// A kernel.
    Boot(Payload),
    /// What another machine's held.
    Snapshot {
        /// Everything but the memory.
        state: File,
        /// The memory.
        memory: File,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Blueprint {
    /// The item hash, for log lines.
    pub vm: String,
    /// How many.
    pub vcpus: u8,
    /// MiB.
    pub memory_mib: u32,
    /// What pages it is made of.
    pub memory_backing: MemoryBacking,
    /// The bus of the virtio devices.
    pub transport: Transport,
    /// `/dev/kvm`.
    pub kvm: OwnedFd,
    /// What its memory holds at first.
    pub source: Source,
    /// Its devices.
    pub parts: Parts,
    /// Where the console goes.
    pub console: ConsoleOutput,
}

impl Blueprint {
    /// Checks a description and takes the descriptors it names.
    ///
    /// # Errors
    /// [`Error::Spec`] with the first field that is out of bounds.
    pub fn new(spec: VmSpec, descriptors: Vec<OwnedFd>) -> Result<Self> {
        within(
            "cmdline",
            spec.cmdline.len(),
            spec.cmdline.len() <= CMDLINE_MAX,
            "at most 2047 bytes",
        )?;
        if !spec.cmdline.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(Error::spec(
                "cmdline",
                "has bytes other than printable ASCII",
            ));
        }
        Self::build(spec.hardware, spec.memory_backing, descriptors, |files| {
            let kernel = File::from(files.take("kernel", spec.kernel)?);
            let initramfs = spec
                .initramfs
                .map(|at| files.take("initramfs", at).map(File::from))
                .transpose()?;
            Ok(Source::Boot(Payload {
                kernel,
                initramfs,
                cmdline: spec.cmdline,
            }))
        })
    }

    /// The same for a machine that goes on from a snapshot, which is not looked into yet.
    ///
    /// # Errors
    /// As [`Blueprint::new`].
    pub fn restored(spec: RestoreSpec, descriptors: Vec<OwnedFd>) -> Result<Self> {
        Self::build(spec.hardware, MemoryBacking::Thp, descriptors, |files| {
            Ok(Source::Snapshot {
                state: files.take("state", spec.state)?.into(),
                memory: files.take("memory", spec.memory)?.into(),
            })
        })
    }

    fn build(
        spec: Hardware,
        memory_backing: MemoryBacking,
        descriptors: Vec<OwnedFd>,
        source: impl FnOnce(&mut Files) -> Result<Source>,
    ) -> Result<Self> {
        let mut files = Files::new(descriptors);
        within("vcpus", spec.vcpus, VCPUS.contains(&spec.vcpus), "1 to 64")?;
        within(
            "memory_mib",
            spec.memory_mib,
            MEMORY_MIB.contains(&spec.memory_mib),
            "32 to 524288",
        )?;
        if let Some(page) = huge_page_mib(memory_backing) {
            within(
                "memory_mib",
                spec.memory_mib,
                spec.memory_mib.is_multiple_of(page),
                &format!("a multiple of {page}, the huge pages' size"),
            )?;
            // A balloon gives back 4 KiB at a time.
            if spec.balloon.is_some() {
                return Err(Error::spec(
                    "balloon",
                    "cannot give back parts of huge pages",
                ));
            }
        }
        within(
            "vm",
            spec.vm.len(),
            spec.vm.len() <= NAME_MAX,
            "at most 128 bytes",
        )?;
        let devices = spec.disks.len()
            + spec.nics.len()
            + spec.pmem.len()
            + usize::from(spec.vsock.is_some())
            + usize::from(spec.balloon.is_some())
            + usize::from(spec.console.virtio)
            + 1;
        let most = match spec.transport {
            Transport::Mmio => MAX_MMIO_DEVICES,
            Transport::Pci => MAX_PCI_DEVICES,
        };
        if devices > most {
            return Err(Error::spec(
                "disks",
                format!("make, with all others, {devices} devices; {most} are possible"),
            ));
        }
        let kvm = files.take("kvm", spec.kvm)?;
        let source = source(&mut files)?;
        let mut disks = Vec::with_capacity(spec.disks.len());
        for (index, disk) in spec.disks.into_iter().enumerate() {
            disks.push(Disk::new(&format!("disks[{index}]"), disk, &mut files)?);
        }
        let mut nics = Vec::with_capacity(spec.nics.len());
        for (index, nic) in spec.nics.into_iter().enumerate() {
            within(
                &format!("nics[{index}].mtu"),
                nic.mtu,
                MTU.contains(&nic.mtu),
                "68 to 65521",
            )?;
            if nic.mac[0] & 1 != 0 || nic.mac == [0; 6] {
                return Err(Error::spec(
                    format!("nics[{index}].mac"),
                    "is not a station's address",
                ));
            }
            within(
                &format!("nics[{index}].taps"),
                nic.taps.len(),
                TAP_QUEUES.contains(&nic.taps.len()),
                "1 to 8 queues",
            )?;
            let field = format!("nics[{index}].taps");
            let taps = nic.taps.iter().map(|tap| files.take(&field, *tap));
            let field = format!("nics[{index}].limits");
            nics.push(Nic {
                taps: taps.collect::<Result<_>>()?,
                mac: nic.mac,
                mtu: nic.mtu,
                limits: NicLimits {
                    receive: limits(&field, nic.limits.receive)?,
                    send: limits(&field, nic.limits.send)?,
                },
            });
        }
        let vsock = match spec.vsock {
            None => None,
            Some(vsock) => {
                within(
                    "vsock.cid",
                    vsock.cid,
                    CID.contains(&vsock.cid),
                    "3 to 4294967294",
                )?;
                Some((vsock.cid, files.take("vsock.listener", vsock.listener)?))
            }
        };
        let balloon = spec.balloon.map(|balloon| balloon.target_mib);
        within(
            "balloon.target_mib",
            balloon.unwrap_or(0),
            balloon.is_none_or(|target| target < spec.memory_mib),
            "less than memory_mib",
        )?;
        let mut pmem = Vec::with_capacity(spec.pmem.len());
        for (index, image) in spec.pmem.iter().enumerate() {
            let file = files.take(&format!("pmem[{index}].file"), image.file)?;
            pmem.push(File::from(file));
        }
        let console = ConsoleOutput {
            output: files.take("console.output", spec.console.output)?,
            max_bytes: spec.console.max_bytes,
        };
        Ok(Self {
            vm: spec.vm,
            vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
            memory_backing,
            transport: spec.transport,
            kvm,
            source,
            parts: Parts {
                disks,
                nics,
                vsock,
                balloon,
                pmem,
                entropy: limits("entropy", spec.entropy)?,
                virtio_console: spec.console.virtio,
            },
            console,
        })
    }
}

fn within(field: &str, value: impl std::fmt::Display, holds: bool, bounds: &str) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::spec(
            field,
            format!("is {value}, allowed is {bounds}"),
        ))
    }
}

/// Limits under which something gets through.
fn limits(field: &str, limits: Limits) -> Result<Limits> {
    for rate in [limits.bytes, limits.operations].into_iter().flatten() {
        if rate.per_second == 0 || rate.burst == 0 {
            return Err(Error::spec(
                field,
                "has a rate or burst of 0, allowed is 1 and more",
            ));
        }
    }
    Ok(limits)
}

/// Descriptors, each taken at most once.
#[derive(Debug)]
pub struct Files(Vec<Option<OwnedFd>>);

impl Files {
    /// Those that came.
    #[must_use]
    pub fn new(descriptors: Vec<OwnedFd>) -> Self {
        Self(descriptors.into_iter().map(Some).collect())
    }

    /// The one that a field names.
    ///
    /// # Errors
    /// [`Error::Spec`]: there is none, or it has been taken.
    pub fn take(&mut self, field: &str, at: Descriptor) -> Result<OwnedFd> {
        match self.0.get_mut(usize::from(at.0)) {
            None => Err(Error::spec(
                field,
                format!("names descriptor {}, {} came", at.0, self.0.len()),
            )),
            Some(place) => place.take().ok_or_else(|| {
                Error::spec(
                    field,
                    format!("names descriptor {}, which another field has", at.0),
                )
            }),
        }
    }
}

#[cfg(test)]
mod tests;
