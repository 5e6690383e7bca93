//! `crn-vmm` boots the guest kernel under a real KVM. All boots share one nested machine, which has one CPU: emulation
//! loses guests that move between several.

use std::time::Duration;

use crn_protocol::control::ExitReason;
use crn_tests::bench::boot::MARKER;
use crn_tests::nested::{Command, CommandOutput, Ending, Nested};
use crn_tests::testbed::products::product;

/// Time for one boot, by the nested machine's clock; on an idle host it takes ten seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// `/init` of the bench initramfs prints [`MARKER`] and powers off, or resets when it is told so.
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

fn ended_with(output: &CommandOutput, reason: ExitReason) {
    assert_eq!(
        output.ending,
        Ending::Exited(i32::from(reason.code())),
        "{}{}",
        output.stdout_text(),
        output.stderr_text()
    );
}

#[test]
fn the_guest_kernel_reaches_user_space_and_ends_as_it_asks_to() {
    let output = Nested::new()
        .init(env!("CARGO_BIN_EXE_crn-nested"))
        .program(product("staging/usr/bin/crn-vmm").unwrap(), "/bin/crn-vmm")
        .file(product("vmlinux").unwrap(), "/vmlinux")
        .file(product("bench-initramfs").unwrap(), "/initramfs")
        .bytes("not an ELF file", "/text")
        .cpus(1)
        .timeout(PATIENCE * 4)
        .run([
            boot(1, 128, "console=ttyS0 quiet panic=-1"),
            boot(1, 128, "console=ttyS0 quiet panic=-1 crn.exit=reset"),
            // Says how many CPUs it has brought up; memory beyond the hole below 4 GiB is not needed for that.
            boot(2, 256, "console=ttyS0 panic=-1"),
            // No /init: the kernel panics, and `panic=-1` resets.
            boot(1, 128, "console=ttyS0 quiet panic=-1 rdinit=/nothing"),
            Command::new(["/bin/crn-vmm", "run", "--kernel", "/text"]),
        ])
        .unwrap();
    let [power_off, reset, two, panic, no_kernel] = output.commands.as_slice() else {
        panic!("{} outputs", output.commands.len());
    };
    ended_with(power_off, ExitReason::PowerOff);
    assert!(power_off.stdout_text().contains(MARKER));
    ended_with(reset, ExitReason::Reset);
    assert!(reset.stdout_text().contains(MARKER));
    ended_with(two, ExitReason::PowerOff);
    assert!(two.stdout_text().contains("Brought up 1 node, 2 CPUs"));
    ended_with(panic, ExitReason::Reset);
    assert!(panic.stdout_text().contains("Kernel panic"));
    ended_with(no_kernel, ExitReason::Failed);
    assert!(
        no_kernel.stderr_text().contains("/text"),
        "{}",
        no_kernel.stderr_text()
    );
}
