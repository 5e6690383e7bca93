//! A guest uses its devices under a real KVM, while `crn-device-check` plays its controller beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crn_tests::nested::{Command, Ending, Nested};
use crn_tests::testbed::products::product;

/// Time for one check, by the nested machine's clock; on an idle host it takes about a minute, six machines at once on a
/// busy one have taken seven.
const PATIENCE: Duration = Duration::from_secs(1200);
/// A machine that is silent for so long is lost to its emulation: even its clock stands still.
const STALL: Duration = Duration::from_secs(150);
/// Machines tried before that counts.
const TRIES: u32 = 3;

/// A file system with two files in it; each byte of the one is the other's complement.
fn image(directory: &Path) -> anyhow::Result<PathBuf> {
    let content = directory.join("content");
    fs::create_dir(&content)?;
    let one: Vec<u8> = (0u32..1 << 21).map(|n| (n ^ (n >> 9)) as u8).collect();
    let other: Vec<u8> = one.iter().map(|byte| !byte).collect();
    fs::write(content.join("one"), one)?;
    fs::write(content.join("other"), other)?;
    let image = directory.join("image");
    let status = std::process::Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-b", "4096", "-O", "^has_journal", "-d"])
        .arg(&content)
        .arg(&image)
        .arg("8M")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .status()?;
    anyhow::ensure!(status.success(), "mke2fs: {status}");
    Ok(image)
}

fn check(transport: &str, image: &Path) -> anyhow::Result<()> {
    let machine = Nested::new()
        .init(env!("CARGO_BIN_EXE_crn-nested"))
        .program(
            env!("CARGO_BIN_EXE_crn-device-check"),
            "/bin/crn-device-check",
        )
        .program(product("staging/usr/bin/crn-vmm")?, "/bin/crn-vmm")
        .file(product("vmlinux")?, "/vmlinux")
        .file(product("device-initramfs")?, "/initramfs")
        .file(image, "/image")
        .module("tun")
        .cpus(1)
        .timeout(PATIENCE)
        .stall(STALL)
        .tries(TRIES)
        .live(true);
    let command = Command::new([
        "/bin/crn-device-check",
        "/bin/crn-vmm",
        "/vmlinux",
        "/initramfs",
        "/image",
        transport,
    ])
    .timeout(PATIENCE);
    let output = machine.run([command])?;
    let check = &output.commands[0];
    let text = format!("{}{}", check.stdout_text(), check.stderr_text());
    assert_eq!(check.ending, Ending::Exited(0), "{text}");
    assert!(text.contains("CHECKED done"), "{text}");
    Ok(())
}

#[test]
fn copies_of_a_snapshot_go_on_at_once_with_secrets_of_their_own() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let image = image(directory.path())?;
    ["copies", "pci-copies"]
        .into_iter()
        .try_for_each(|transport| check(transport, &image))
}

#[test]
fn data_survives_freed_space_and_memory_come_back_limits_hold_and_disks_come_and_go()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let image = image(directory.path())?;
    ["mmio", "pci"]
        .into_iter()
        .try_for_each(|transport| check(transport, &image))
}
