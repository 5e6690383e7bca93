//! The disk bench: a guest reads and writes its virtio-blk disk under `crn-vmm` and under QEMU's `microvm`, alternating,
//! over the same file.

use super::measure::{DISK_PATH, Task};
use super::report::operations;
use super::setup::{CMDLINE, Outcome, REFERENCE, Setup};

/// The largest share of the reference's instructions for an operation: 1.3 times as many operations.
const GOAL: f64 = 1.0 / 1.3;
/// Bytes of the disk, which lies in the machine's memory.
const DISK_BYTES: u64 = 64 << 20;
/// What the guest measures, in its order.
const KINDS: [&str; 6] = [
    "randread-4k-qd1",
    "randwrite-4k-qd1",
    "randread-4k-qd32",
    "randwrite-4k-qd32",
    "read-1m",
    "write-1m",
];

/// Runs the bench, some minutes.
///
/// # Errors
/// When the machine cannot be made or a contestant fails.
pub fn run(setup: &Setup) -> anyhow::Result<Outcome> {
    let drive = format!("if=none,id=d,format=raw,cache=writeback,aio=io_uring,file={DISK_PATH}");
    let plan = setup.plan(
        Task::Disk { bytes: DISK_BYTES },
        &format!("{CMDLINE} crn.bench=disk"),
        &["-drive", &drive, "-device", "virtio-blk-device,drive=d"],
        &["--disk", DISK_PATH],
    );
    let (samples, hung) = setup.measure(setup.machine()?, &plan)?;
    let reference = format!("{REFERENCE}, virtio-blk aio=io_uring");
    Ok(Outcome {
        values: operations("disk", &KINDS, &samples, &reference, GOAL),
        hung,
    })
}
