//! The disk bench: a guest reads and writes its virtio-blk disk under `crn-vmm` and under QEMU's `microvm`, alternating,
//! over the same file.

use super::boot::{CMDLINE, GUEST_MIB, MARKER, OURS, Outcome, REFERENCE, Setup, contestants};
use super::measure::{DISK_PATH, Measured, Plan, Sample};
use super::report::{Value, median};

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
    let plan = Plan {
        contestants: contestants(
            setup.vmm.is_some(),
            &format!("{CMDLINE} crn.bench=disk"),
            &["-drive", &drive, "-device", "virtio-blk-device,drive=d"],
            &["--disk", DISK_PATH],
        ),
        runs: setup.runs,
        marker: MARKER.to_owned(),
        guest_mib: GUEST_MIB,
        disk_bytes: Some(DISK_BYTES),
    };
    let (samples, hung) = setup.measure(&plan)?;
    Ok(Outcome {
        values: evaluate(&samples),
        hung,
    })
}

fn evaluate(samples: &[Sample]) -> Vec<Value> {
    let of = |contestant: &str, kind: &str| {
        let picked = samples.iter().filter_map(|sample| match &sample.measured {
            Measured::Disk {
                name,
                operations,
                ns,
            } if sample.contestant == contestant && name == kind => {
                Some(*ns as f64 / 1e3 / *operations as f64)
            }
            _ => None,
        });
        median(picked.collect())
    };
    KINDS
        .iter()
        .filter_map(|kind| {
            Some(Value {
                name: format!("disk: {kind}"),
                unit: "virtual µs per operation".to_owned(),
                value: of(OURS, kind),
                reference: of(REFERENCE, kind)?,
                reference_name: format!("{REFERENCE}, virtio-blk aio=io_uring"),
                goal: Some(GOAL),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_compared_one_by_one() {
        let sample = |contestant: &str, ns: u64| Sample {
            contestant: contestant.to_owned(),
            measured: Measured::Disk {
                name: "read-1m".to_owned(),
                operations: 10,
                ns,
            },
        };
        let values = evaluate(&[sample(REFERENCE, 2_000_000), sample(OURS, 1_000_000)]);
        assert_eq!(values.len(), 1);
        assert_eq!((values[0].value, values[0].reference), (Some(100.0), 200.0));
        assert!(values[0].meets_goal());
    }
}
