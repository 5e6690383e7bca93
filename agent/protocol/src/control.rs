//! Agent ⇄ `crn-vmm`: what a virtual machine is made of, what it is told, and what it tells.
//!
//! The agent binds and listens on the machine's control socket (a UNIX stream socket) and starts
//! `crn-vmm --control-fd 3 --uid N --gid N` with that listening socket as descriptor 3 and as the first process of a PID
//! namespace, so that an agent that restarts finds the machine again by connecting to the same path. One controller is served
//! at a time; a new one replaces the old. A process whose controller leaves before there is a machine ends.
//! Every message is one JSON line ([`crate::lines`]). Descriptors are attached to the first byte of the line that
//! speaks of them, and are named there by their position ([`Descriptor`]).

use serde::{Deserialize, Serialize};

use crate::devices::{BalloonSpec, DeviceStatus, Engine, Limits, NewLimits, NicLimits, PmemSpec};

/// Position of a file descriptor among those sent with the same line, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor(pub u8);

/// What every machine is made of, whether it boots or goes on from a snapshot. The VMM opens nothing: all arrives as
/// descriptors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// The item hash, for log lines.
    pub vm: String,
    /// 1..=64.
    pub vcpus: u8,
    /// MiB of guest memory, exactly.
    pub memory_mib: u32,
    /// The bus of all virtio devices.
    #[serde(default)]
    pub transport: Transport,
    /// `/dev/kvm`, open for reading and writing.
    pub kvm: Descriptor,
    /// virtio-blk devices in the order in which the guest names them: vda, vdb, …
    #[serde(default)]
    pub disks: Vec<DiskSpec>,
    /// virtio-net devices: eth0, …
    #[serde(default)]
    pub nics: Vec<NicSpec>,
    /// virtio-vsock.
    #[serde(default)]
    pub vsock: Option<VsockSpec>,
    /// virtio-balloon.
    #[serde(default)]
    pub balloon: Option<BalloonSpec>,
    /// virtio-pmem devices: pmem0, …
    #[serde(default)]
    pub pmem: Vec<PmemSpec>,
    /// Limits of the entropy source, which every machine has.
    #[serde(default)]
    pub entropy: Limits,
    /// Where the guest's console goes: a regular file opened for reading and appending, or a pipe.
    pub console: ConsoleSpec,
}

impl Hardware {
    /// The descriptors it names.
    pub fn descriptors(&self) -> impl Iterator<Item = Descriptor> + '_ {
        let disks = self.disks.iter().map(|disk| disk.file);
        disks
            .chain(self.nics.iter().flat_map(|nic| nic.taps.iter().copied()))
            .chain(self.vsock.iter().map(|vsock| vsock.listener))
            .chain(self.pmem.iter().map(|pmem| pmem.file))
            .chain([self.kvm, self.console.output])
    }
}

/// A machine that boots a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// What it is made of.
    pub hardware: Hardware,
    /// What pages the guest's memory is made of.
    #[serde(default)]
    pub memory_backing: MemoryBacking,
    /// An ELF `vmlinux` (entered by its PVH note, or by the 64-bit boot protocol if it has none) or a bzImage, open
    /// for reading.
    pub kernel: Descriptor,
    /// A cpio archive, open for reading.
    #[serde(default)]
    pub initramfs: Option<Descriptor>,
    /// The kernel's command line, used as it is.
    pub cmdline: String,
}

impl VmSpec {
    /// The descriptors it names.
    pub fn descriptors(&self) -> impl Iterator<Item = Descriptor> + '_ {
        let source = [Some(self.kernel), self.initramfs];
        self.hardware
            .descriptors()
            .chain(source.into_iter().flatten())
    }
}

/// What pages a guest's memory is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryBacking {
    /// Ordinary pages, taken when they are first touched; the host is asked to join them to huge ones.
    #[default]
    Thp,
    /// Huge pages of 2 MiB from the host's pool, taken at launch. `memory_mib` is even; there can be no balloon.
    Hugetlb2m,
    /// Huge pages of 1 GiB from the host's pool, taken at launch. `memory_mib` is a multiple of 1024; there can be no
    /// balloon.
    Hugetlb1g,
}

/// How a guest finds its virtio devices and is interrupted by them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// virtio-mmio, found through ACPI: fastest to boot; at most 18 devices.
    #[default]
    Mmio,
    /// virtio-pci with a message for each queue: what stock kernels have drivers for; at most 31 devices, which can
    /// come and go.
    Pci,
}

/// One virtio-blk device over a raw image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// A regular file or block device; its length rounded up to 512 bytes is the disk's, and reads past its end
    /// are zeros.
    pub file: Descriptor,
    /// Offer VIRTIO_BLK_F_RO and refuse writes.
    pub read_only: bool,
    /// The device's identity in the guest (`/sys/block/vd?/serial`), at most 20 bytes of ASCII.
    pub serial: String,
    /// How requests reach the file.
    #[serde(default)]
    pub engine: Engine,
    /// Limits of reads and writes together.
    #[serde(default)]
    pub limits: Limits,
}

/// One virtio-net device over the queues of a TAP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NicSpec {
    /// Queues of one TAP device opened with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`, and `IFF_MULTI_QUEUE` if they are
    /// several (1 to 8); the VMM sets the header size and the offloads.
    pub taps: Vec<Descriptor>,
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// Bytes.
    pub mtu: u16,
    /// Limits each way.
    #[serde(default)]
    pub limits: NicLimits,
}

/// The virtio-vsock device.
///
/// Host → guest: a client connects to the listening socket, writes `CONNECT <port>\n` and reads `OK <port>\n`, with the
/// port that the VMM gave the host's end, before the stream begins. Guest → host (CID 2): the VMM makes a socket pair and
/// sends one end to the controller with [`Event::GuestConnect`]; with no controller attached up to 16 such connections
/// wait for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockSpec {
    /// The guest's context identifier, 3 or more.
    pub cid: u32,
    /// A UNIX stream socket, bound and listening.
    pub listener: Descriptor,
}

/// Where the guest's console output goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleSpec {
    /// Open for writing (a file also for reading, in append mode).
    pub output: Descriptor,
    /// A regular file that reaches this length is cut to empty and begun again, so that a guest cannot fill the
    /// disk. 0 means no limit.
    pub max_bytes: u64,
    /// Also offer a virtio console (hvc0), whose output joins the serial port's.
    #[serde(default)]
    pub virtio: bool,
}

/// A line from the controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Chosen by the controller, repeated in the [`Reply`].
    pub id: u64,
    /// What is wanted.
    pub request: Request,
}

/// Where a machine's snapshot goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotSpec {
    /// An empty regular file, open for writing: all but the memory.
    pub state: Descriptor,
    /// An empty regular file, open for writing: the memory, sparse. With `differences` a copy (or a clone, where the file
    /// system has them) of the memory file of the snapshot before, open for reading and writing.
    pub memory: Descriptor,
    /// Write only the memory that has changed since the snapshot before: the last one of this machine, or the one that
    /// it went on from.
    #[serde(default)]
    pub differences: bool,
}

/// A machine that goes on from a snapshot. Its memory is made of ordinary pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreSpec {
    /// The same as the snapshot's machine has, each device over a descriptor of its own: vCPUs, memory, bus, disks of the
    /// same lengths and serials, NICs with the same addresses, MTUs and numbers of queues, the same images. The context
    /// identifier, the balloon's target and all limits may be others. What does not fit is refused by name.
    pub hardware: Hardware,
    /// The snapshot's state file, open for reading.
    pub state: Descriptor,
    /// Its memory file, open for reading. It is mapped, not copied: copies of one machine share what they do not
    /// change. It must not change or become shorter while one of them runs.
    pub memory: Descriptor,
}

impl RestoreSpec {
    /// The descriptors it names.
    pub fn descriptors(&self) -> impl Iterator<Item = Descriptor> + '_ {
        self.hardware.descriptors().chain([self.state, self.memory])
    }
}

/// What a controller may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Build the machine and run it. Once in a process's life; carries the descriptors.
    Launch(Box<VmSpec>),
    /// Build a machine that goes on where a snapshot was taken. Instead of `Launch`; carries the descriptors.
    Restore(Box<RestoreSpec>),
    /// How the machine is.
    Status,
    /// Press the ACPI power button: the guest is asked to shut down.
    PowerButton,
    /// Press the power button, and stop the machine if it is still there after so many milliseconds: the
    /// [`Event::Exited`] says whether the guest did it ([`ExitReason::PowerOff`]) or the deadline
    /// ([`ExitReason::Stopped`]).
    PowerOff {
        /// From now.
        deadline_ms: u64,
    },
    /// Take all vCPUs out of the guest, finish what its disks have under way and make it durable, and leave its queues
    /// alone until [`Request::Resume`].
    Pause,
    /// Go on after [`Request::Pause`].
    Resume,
    /// Write the machine, which is paused, into two files; carries them. It stays paused, and can be resumed. Not with
    /// devices that have come or gone since its start.
    Snapshot(SnapshotSpec),
    /// Attach a disk; carries its descriptor. With [`Transport::Pci`] only. The reply comes when the disk is on the
    /// bus; the guest finds it by itself if its kernel has ACPI hot plug.
    AttachDisk(DiskSpec),
    /// Ask the guest to let a disk go. The reply comes at once, [`Event::DiskDetached`] when the guest has, or when it
    /// has lost the disk at the deadline: what it had not written by then is gone, and the disk's place on the bus is
    /// not used again.
    DetachDisk {
        /// The disk's identity, from its [`DiskSpec`].
        serial: String,
        /// Milliseconds until a guest that does not answer loses the disk; for ever when left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_ms: Option<u64>,
    },
    /// Limit a device anew, from now on; its name is in [`Status::devices`].
    SetLimits {
        /// The device's name.
        device: String,
        /// All of its limits.
        limits: NewLimits,
    },
    /// Ask the guest to give back so much memory, or to take back what is more; it does so in its own time.
    Balloon {
        /// MiB given back in all, less than the machine's memory.
        target_mib: u32,
    },
    /// Connect to the console: `stream` first carries the last output (at most 64 KiB), then what comes; what is
    /// written into it is the guest's input. A reader that is too slow loses output. Up to 8 at once; a stream is
    /// let go by closing it.
    AttachConsole {
        /// One end of a UNIX stream socket pair.
        stream: Descriptor,
    },
    /// Stop at once: disks are flushed, the process exits. The guest is not asked.
    Stop,
}

/// A line from the VMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The answer to one [`Command`].
    Reply(Reply),
    /// Something that happened.
    Event(Event),
}

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The command's id.
    pub id: u64,
    /// `Ok(status)` after the request took effect, or the reason why not, the whole chain in one sentence.
    pub result: Result<Status, String>,
}

/// A machine's state and counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether `Launch` has succeeded and the guest has not stopped.
    pub running: bool,
    /// Whether [`Request::Pause`] is in effect.
    #[serde(default)]
    pub paused: bool,
    /// Microseconds from the process's start to the first entry into the guest.
    pub launch_us: u64,
    /// Guest exits handled in user space, all vCPUs.
    pub exits: u64,
    /// Bytes read from and written to the disks.
    pub disk_read_bytes: u64,
    /// See `disk_read_bytes`.
    pub disk_written_bytes: u64,
    /// Bytes the guest received and sent over its NICs.
    pub net_rx_bytes: u64,
    /// See `net_rx_bytes`.
    pub net_tx_bytes: u64,
    /// Each device's own counters.
    #[serde(default)]
    pub devices: Vec<DeviceStatus>,
}

/// Something that happened in the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The guest connected to host port `port` over vsock; one descriptor, the stream, comes with this line.
    GuestConnect {
        /// The host port the guest named.
        port: u32,
    },
    /// The guest has let a disk go; its file is closed.
    DiskDetached {
        /// The disk's identity, from its [`DiskSpec`].
        serial: String,
    },
    /// The guest has stopped; the process exits right after with [`ExitReason::code`].
    Exited {
        /// Why.
        reason: ExitReason,
        /// One sentence for the log; empty when the reason says it all.
        detail: String,
    },
}

/// Why a machine stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// The guest powered itself off (ACPI S5).
    PowerOff,
    /// The guest asked for a reset (ACPI reset register or triple fault). The controller starts it anew.
    Reset,
    /// [`Request::Stop`] or SIGTERM.
    Stopped,
    /// The machine could not be built or went on in no way: `detail` says which.
    Failed,
}

impl ExitReason {
    /// The process's exit status for this reason, for whoever only sees the process end.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::PowerOff => 0,
            Self::Failed => 1,
            Self::Reset => 3,
            Self::Stopped => 4,
        }
    }

    /// The reason behind an exit status; any other status (a signal, a panic) is [`ExitReason::Failed`].
    #[must_use]
    pub const fn from_code(code: i32) -> Self {
        match code {
            0 => Self::PowerOff,
            3 => Self::Reset,
            4 => Self::Stopped,
            _ => Self::Failed,
        }
    }
}
