//! The memory bench: what a running machine takes beyond its guest's memory.

use super::measure::{DISK_PATH, Measured, Plan, TAP_FD, Task};
use super::report::{Value, median};
use super::setup::{CMDLINE, GUEST_MIB, MARKER, Outcome, Setup, ours};

/// Bytes of each disk.
const DISK_BYTES: u64 = 1 << 20;

struct Machine {
    name: &'static str,
    vcpus: u32,
    disks: u32,
    nics: u8,
    /// KiB, at most.
    limit: f64,
}

const MACHINES: [Machine; 2] = [
    Machine {
        name: "1 vCPU, 1 disk, 1 NIC, vsock",
        vcpus: 1,
        disks: 1,
        nics: 1,
        limit: 3.0 * 1024.0,
    },
    Machine {
        name: "8 vCPUs, 8 disks, 4 NICs, vsock",
        vcpus: 8,
        disks: 8,
        nics: 4,
        limit: 5.0 * 1024.0,
    },
];

/// Runs the bench, about a minute. There is nothing to see of the reference alone.
///
/// # Errors
/// When the machine cannot be made or a contestant fails.
pub fn run(setup: &Setup) -> anyhow::Result<Outcome> {
    if setup.vmm.is_none() {
        return Ok(Outcome {
            values: Vec::new(),
            hung: 0,
        });
    }
    let contestants = MACHINES.iter().zip(0..).map(|(machine, index)| {
        let mut arguments = vec![
            "--vcpus".to_owned(),
            machine.vcpus.to_string(),
            "--vsock".to_owned(),
            format!("/tmp/vsock{index}"),
        ];
        for _ in 0..machine.disks {
            arguments.extend(["--disk".to_owned(), DISK_PATH.to_owned()]);
        }
        for nic in 0..i32::from(machine.nics) {
            arguments.extend(["--tap-fd".to_owned(), (TAP_FD + nic).to_string()]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut contestant = ours(machine.name, CMDLINE, &arguments);
        contestant.taps = machine.nics;
        contestant
    });
    let plan = Plan {
        contestants: contestants.collect(),
        runs: setup.runs,
        finished: 0,
        marker: MARKER.to_owned(),
        guest_mib: GUEST_MIB,
        task: Task::Memory { bytes: DISK_BYTES },
    };
    let (samples, hung) = setup.measure(setup.machine()?.module("tun"), &plan)?;
    let values = MACHINES.iter().map(|machine| Value {
        name: format!("memory: {}", machine.name),
        unit: "KiB".to_owned(),
        value: median(
            samples
                .iter()
                .filter(|sample| sample.contestant == machine.name)
                .filter_map(|sample| match sample.measured {
                    Measured::Footprint { resident_kib, .. } => Some(resident_kib as f64),
                    _ => None,
                })
                .collect(),
        ),
        reference: None,
        reference_name: String::new(),
        goal: None,
        limit: Some(machine.limit),
    });
    Ok(Outcome {
        values: values.collect(),
        hung,
    })
}
