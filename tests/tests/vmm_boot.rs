//! `crn-vmm` boots the guest kernel under a real KVM. All boots share one nested machine, which has one CPU: emulation
//! loses guests that move between several.

use std::time::Duration;

use crn_protocol::control::ExitReason;
use crn_tests::bench::setup::MARKER;
use crn_tests::nested::{Command, CommandOutput, Ending, Kernel, Nested};
use crn_tests::testbed::products::product;

/// Time for one boot, by the nested machine's clock; on an idle host it takes ten seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// A machine in which no command speaks or ends for longer than one may take is lost to its emulation.
const STALL: Duration = Duration::from_secs(150);
/// Machines tried before that counts.
const TRIES: u32 = 3;

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

/// The same with more arguments before the kernel's command line.
fn boot_with(kernel: &str, arguments: &[&str], cmdline: &str) -> Command {
    let mut argv = vec!["/bin/crn-vmm", "run", "--kernel", kernel];
    argv.extend(["--initramfs", "/initramfs"]);
    argv.extend(arguments);
    argv.extend(["--cmdline", cmdline]);
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
        .timeout(PATIENCE * 7)
        .stall(STALL)
        .tries(TRIES)
        .run([
            boot(1, 128, "console=ttyS0 quiet panic=-1"),
            boot(1, 128, "console=ttyS0 quiet panic=-1 crn.exit=reset"),
            // Says how many CPUs it has brought up; memory beyond the hole below 4 GiB is not needed for that.
            boot(2, 256, "console=ttyS0 panic=-1"),
            boot(8, 256, "console=ttyS0 panic=-1"),
            // No /init: the kernel panics, and `panic=-1` resets.
            boot(1, 128, "console=ttyS0 quiet panic=-1 rdinit=/nothing"),
            Command::new(["/bin/crn-vmm", "run", "--kernel", "/text"]),
        ])
        .unwrap();
    let [power_off, reset, two, eight, panic, no_kernel] = output.commands.as_slice() else {
        panic!("{} outputs", output.commands.len());
    };
    ended_with(power_off, ExitReason::PowerOff);
    assert!(power_off.stdout_text().contains(MARKER));
    ended_with(reset, ExitReason::Reset);
    assert!(reset.stdout_text().contains(MARKER));
    ended_with(two, ExitReason::PowerOff);
    assert!(two.stdout_text().contains("Brought up 1 node, 2 CPUs"));
    ended_with(eight, ExitReason::PowerOff);
    let eight = eight.stdout_text();
    assert!(eight.contains("Brought up 1 node, 8 CPUs"), "{eight}");
    ended_with(panic, ExitReason::Reset);
    assert!(panic.stdout_text().contains("Kernel panic"));
    ended_with(no_kernel, ExitReason::Failed);
    assert!(
        no_kernel.stderr_text().contains("cannot load the kernel"),
        "{}",
        no_kernel.stderr_text()
    );
}

/// Reading a disk's partition table waits for an interrupt, so a guest that gets to user space has had its messages.
#[test]
fn devices_are_found_over_pci_by_our_kernel_and_by_a_distributions() {
    let stock = Kernel::fetch().unwrap();
    let output = Nested::new()
        .init(env!("CARGO_BIN_EXE_crn-nested"))
        .program(product("staging/usr/bin/crn-vmm").unwrap(), "/bin/crn-vmm")
        .file(product("vmlinux").unwrap(), "/vmlinux")
        .file(&stock.image, "/bzImage")
        .file(product("bench-initramfs").unwrap(), "/initramfs")
        .bytes(vec![0; 1 << 20], "/disk")
        .cpus(1)
        .memory_mib(3584)
        .words("hugepagesz=1G hugepages=1")
        .timeout(PATIENCE * 7)
        .stall(STALL)
        .tries(TRIES)
        .run([
            boot_with(
                "/vmlinux",
                &[
                    "--transport",
                    "pci",
                    "--memory",
                    "128",
                    "--disk",
                    "/disk,ro",
                ],
                "console=ttyS0 panic=-1",
            ),
            boot_with(
                "/bzImage",
                &["--transport", "pci", "--memory", "256", "--disk", "/disk"],
                "console=ttyS0 panic=-1",
            ),
            // Linux restarts a machine like this one through the BIOS, unless it was started by EFI.
            boot_with(
                "/bzImage",
                &["--transport", "pci", "--memory", "256"],
                "console=ttyS0 quiet panic=-1 crn.exit=reset",
            ),
            boot_with(
                "/vmlinux",
                &["--huge-pages", "1g", "--memory", "1024"],
                "console=ttyS0 quiet panic=-1",
            ),
            boot_with(
                "/vmlinux",
                &["--huge-pages", "1g", "--memory", "2048"],
                "console=ttyS0 panic=-1",
            ),
        ])
        .unwrap();
    let [ours, theirs, restarted, huge, no_pages] = output.commands.as_slice() else {
        panic!("{} outputs", output.commands.len());
    };
    ended_with(ours, ExitReason::PowerOff);
    for line in ["[1af4:1042]", "[1af4:1044]", "[vda] 2048 512-byte", MARKER] {
        assert!(ours.stdout_text().contains(line), "{line}");
    }
    ended_with(theirs, ExitReason::PowerOff);
    ended_with(restarted, ExitReason::Reset);
    for line in [
        "PCI Root Bridge [PCI0]",
        "[1af4:1042]",
        "Slot [31] registered",
        MARKER,
    ] {
        assert!(theirs.stdout_text().contains(line), "{line}");
    }
    ended_with(huge, ExitReason::PowerOff);
    assert!(huge.stdout_text().contains(MARKER));
    ended_with(no_pages, ExitReason::Failed);
    assert!(no_pages.stderr_text().contains("huge pages of 1024 MiB"));
}
