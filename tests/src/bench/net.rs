//! The network bench: a guest talks TCP with the nested machine over a TAP device, under `crn-vmm` and under QEMU's
//! `microvm`, alternating.

use super::measure::{TAP_FD, Task};
use super::report::operations;
use super::setup::{CMDLINE, Outcome, REFERENCE, Setup};

/// The largest share of the reference's instructions for an operation: 1.2 times as many operations.
const GOAL: f64 = 1.0 / 1.2;
/// What the guest measures, in its order; streams by the MiB, requests of 64 bytes.
const KINDS: [&str; 3] = ["tcp-send-1m", "tcp-receive-1m", "tcp-request-response"];

/// Runs the bench, some minutes.
///
/// # Errors
/// When the machine cannot be made or a contestant fails.
pub fn run(setup: &Setup) -> anyhow::Result<Outcome> {
    let netdev = format!("tap,id=n,fd={TAP_FD},vhost=off");
    let mut plan = setup.plan(
        Task::Network,
        &format!("{CMDLINE} crn.bench=net"),
        &["-netdev", &netdev, "-device", "virtio-net-device,netdev=n"],
        &["--tap-fd", &TAP_FD.to_string()],
    );
    for contestant in &mut plan.contestants {
        contestant.taps = 1;
    }
    let (samples, hung) = setup.measure(setup.machine()?.module("tun"), &plan)?;
    let reference = format!("{REFERENCE}, virtio-net without vhost");
    Ok(Outcome {
        values: operations("net", &KINDS, &samples, &reference, GOAL),
        hung,
    })
}
