//! `crn-vmm` boots the guest kernel under a real KVM. All boots share one nested machine.

use std::time::Duration;

use crn_protocol::control::ExitReason;
use crn_tests::bench::boot::MARKER;
use crn_tests::nested::{Command, CommandOutput, Ending, Nested};
use crn_tests::testbed::products::product;

/// Time for one boot, by the nested machine's clock; on an idle host it takes two seconds.
const PATIENCE: Duration = Duration::from_secs(40);

/// `/init` of the bench initramfs prints [`MARKER`] and powers off; the kernel's `init=` picks what else a test wants.
fn boot(vcpus: u32, memory_mib: u32, cmdline: &str) -> Command {
    let vcpus = vcpus.to_string();
    let memory = memory_mib.to_string();
    let argv = [
        "/bin/crn-vmm",
        "run",
        "--kernel",
        "/vmlinux",
        "--initramfs",
        "/initramfs",
        "--vcpus",
        &vcpus,
        "--memory",
        &memory,
        "--cmdline",
        cmdline,
    ];
    Command::new(argv).timeout(PATIENCE)
}

fn ended_with(output: &CommandOutput, reason: ExitReason) -> bool {
    output.ending == Ending::Exited(i32::from(reason.code()))
}
