//! What a machine's devices may do and have done: limits, counters, and the descriptions of the optional ones.

use serde::{Deserialize, Serialize};

use crate::control::Descriptor;

/// How requests reach a disk's file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// io_uring where the host allows it, blocking calls elsewhere.
    #[default]
    Auto,
    /// io_uring, or the machine is not built.
    IoUring,
    /// Blocking calls, one after the other.
    Sync,
}

/// A rate: a token bucket that holds `burst` and gains `per_second`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Bytes or operations a second, 1 or more.
    pub per_second: u64,
    /// Bytes or operations that may come at once after a pause, 1 or more. A larger request waits for a full bucket
    /// and leaves a debt.
    pub burst: u64,
}

/// Limits of one flow; `None` is without limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes.
    pub bytes: Option<Rate>,
    /// Requests, or packets.
    pub operations: Option<Rate>,
}

/// A NIC's limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NicLimits {
    /// What the guest receives; what comes faster waits in the TAP's queue, and is lost when that is full.
    pub receive: Limits,
    /// What the guest sends.
    pub send: Limits,
}

/// New limits for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewLimits {
    /// A disk's or the entropy source's.
    Transfer(Limits),
    /// A NIC's.
    Nic(NicLimits),
}

/// The virtio-balloon device: memory the guest gives back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BalloonSpec {
    /// MiB the guest is asked to give back from the start.
    pub target_mib: u32,
}

/// A read-only image in the guest's address space: `/dev/pmem0`, … in the order of the description. All machines that
/// map the same file share its pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PmemSpec {
    /// A regular file open for reading, its length a multiple of 2 MiB.
    pub file: Descriptor,
}

/// One device's counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its name, as [`Request::SetLimits`](crate::control::Request::SetLimits) takes it: a disk's serial, or `disk0`,
    /// … if it has none; `nic0`, …; `vsock`; `rng`; `balloon`; `console`; `pmem0`, ….
    pub name: String,
    /// What it has done.
    pub counters: DeviceCounters,
}

/// Sums since the machine's start, by kind of device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceCounters {
    /// virtio-blk.
    Disk(DiskCounters),
    /// virtio-net.
    Nic(NicCounters),
    /// virtio-vsock.
    Vsock(VsockCounters),
    /// virtio-rng.
    Rng(RngCounters),
    /// virtio-balloon.
    Balloon(BalloonCounters),
    /// virtio-console.
    Console(ConsoleCounters),
    /// virtio-pmem.
    Pmem(PmemCounters),
}

/// A disk's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskCounters {
    /// Whether io_uring carries its requests.
    pub io_uring: bool,
    /// Reads, finished well or not.
    pub reads: u64,
    /// Writes, finished well or not.
    pub writes: u64,
    /// Flushes, finished well or not.
    pub flushes: u64,
    /// Discards and requests to write zeros, finished well or not.
    pub discards: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes discarded or zeroed.
    pub discarded_bytes: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// How often a queue had to wait for its limits.
    pub throttled: u64,
}

/// A NIC's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicCounters {
    /// Packets the guest received; one may be a whole segmentation unit.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Packets the guest's buffers could not hold.
    pub rx_drops: u64,
    /// How often reception had to wait for its limits.
    pub rx_throttled: u64,
    /// Packets the guest sent.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Packets that were malformed or that the host refused.
    pub tx_drops: u64,
    /// How often sending had to wait for its limits.
    pub tx_throttled: u64,
}

/// The vsock device's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockCounters {
    /// Streams open now.
    pub streams: u64,
    /// Streams opened from either side.
    pub opened: u64,
    /// Streams refused because of a bound.
    pub refused: u64,
    /// Bytes the guest received.
    pub rx_bytes: u64,
    /// Bytes the guest sent.
    pub tx_bytes: u64,
}

/// The entropy source's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RngCounters {
    /// Bytes given.
    pub bytes: u64,
    /// How often a request had to wait for the limits.
    pub throttled: u64,
}

/// The balloon's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonCounters {
    /// MiB the guest is asked to give back.
    pub target_mib: u32,
    /// MiB it says it has given back.
    pub actual_mib: u32,
    /// Bytes taken through the balloon.
    pub inflated_bytes: u64,
    /// Bytes returned to the guest.
    pub deflated_bytes: u64,
    /// Free bytes the guest has reported, which the host took back.
    pub reported_bytes: u64,
    /// Pages or ranges that were not whole pages of guest memory, or that the host did not take.
    pub refused: u64,
    /// The guest's view, if its driver tells.
    pub guest: Option<GuestMemory>,
}

/// A guest's own memory statistics (virtio 1.3, section 5.5.6.3), bytes; 0 for what it does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestMemory {
    /// All of it.
    pub total: u64,
    /// Unused.
    pub free: u64,
    /// What could be had without swapping.
    pub available: u64,
    /// Page cache.
    pub caches: u64,
    /// Major page faults, a count.
    pub major_faults: u64,
}

/// The virtio console's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleCounters {
    /// Bytes the guest wrote.
    pub output_bytes: u64,
    /// Bytes it was given.
    pub input_bytes: u64,
}

/// A pmem device's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PmemCounters {
    /// Flushes asked for.
    pub flushes: u64,
}
