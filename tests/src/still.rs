//! A compute node whose guests stand still: four bytes of machine code instead of a kernel, which run under any `/dev/kvm`,
//! and an uplink to nowhere. For the agent's tests and its bench, in a network namespace of their own.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

/// `cli; hlt; jmp $-1`
const GUEST: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];
/// Where the guest is loaded and entered.
const LOAD: u64 = 0x20_0000;
/// In `iproute2`'s words.
const UPLINK: [&str; 6] = [
    "link set lo up",
    "link add eth0 type veth peer name peer",
    "link set peer up",
    "addr add 10.0.2.15/24 dev eth0",
    "link set eth0 up",
    "route add default via 10.0.2.2",
];

/// What such a node's configuration begins with.
#[derive(Debug)]
pub struct Still<'a> {
    /// Where the agent serves.
    pub listen: SocketAddr,
    /// Base URL of its core channel node.
    pub ccn: &'a str,
    /// Ledger, cache and disks.
    pub state: &'a Path,
    /// Sockets; names have to be short.
    pub run: &'a Path,
    /// The monitor.
    pub vmm: &'a Path,
    /// Who may push allocations.
    pub scheduler: &'a str,
    /// Monitors in reserve.
    pub spare: usize,
}

/// Gives this network namespace an uplink.
///
/// # Errors
/// What `ip` says.
pub fn uplink() -> anyhow::Result<()> {
    for line in UPLINK {
        let output = Command::new("ip")
            .args(line.split(' '))
            .output()
            .context("start ip")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ip {line}: {said}");
    }
    Ok(())
}

/// Writes `agent.toml`, the guest's kernel and its initramfs into `directory`. `trust` are further lines of that section,
/// `more` whole ones.
///
/// # Errors
/// When a file cannot be written.
pub fn configure(
    directory: &Path,
    node: &Still<'_>,
    trust: &str,
    more: &str,
) -> anyhow::Result<()> {
    let (kernel, initramfs) = (directory.join("kernel"), directory.join("initramfs"));
    fs::write(&kernel, elf())?;
    fs::write(&initramfs, "none")?;
    let Still {
        listen,
        ccn,
        state,
        run,
        vmm,
        scheduler,
        spare,
    } = node;
    let config = format!(
        "listen = \"{listen}\"\ndomain = \"127.0.0.1\"\nccn = {ccn:?}\nstate_dir = {state:?}\nrun_dir = {run:?}\n\
         vmm = {vmm:?}\nkernel = {kernel:?}\ninitramfs = {initramfs:?}\n\
         [trust]\nallocation_signers = [{scheduler:?}]\n{trust}\
         [sandbox]\ncgroups = false\nspare = {spare}\n[network]\nipv6_pool = \"fd00:1::/64\"\n\
         [program]\nstart_timeout_seconds = 36000\n{more}"
    );
    Ok(fs::write(directory.join("agent.toml"), config)?)
}

/// An ELF file with the guest in one segment.
fn elf() -> Vec<u8> {
    let size = GUEST.len() as u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    elf.resize(16, 0);
    // Executable, x86-64, version 1.
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    // Entry, program headers behind this header, no section headers, no flags.
    for word in [LOAD, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend([0; 4]);
    for half in [64u16, 56, 1, 64, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    // Loadable, readable and executable: offset, addresses, sizes, alignment.
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [120, LOAD, LOAD, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(GUEST);
    elf
}
