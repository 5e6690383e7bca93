//! Starts programs the way the agent starts `crn-vmm`: first in a PID namespace, with one descriptor.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use command_fds::{CommandFdExt, FdMapping};
use crn_protocol::start::first_of_a_namespace;

/// Where a guest of a few bytes is loaded and entered.
pub const LOAD: u64 = 0x20_0000;
/// Where the control socket stands in the child.
pub const CONTROL_FD: i32 = 3;

/// A user and group that no other process has.
pub fn identity() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let own = std::process::id() % 100_000 * 64;
    1_900_000_000 + own + NEXT.fetch_add(1, Ordering::Relaxed)
}

/// `/dev/kvm`, or `None` with the reason why nothing can be tested: there is none, or this is not root.
pub fn kvm() -> Option<File> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("nothing is tested: only root can build the sandbox");
        return None;
    }
    match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(kvm) => Some(kvm),
        Err(error) => {
            eprintln!("nothing is tested, /dev/kvm does not open: {error}");
            None
        }
    }
}

/// An ELF file with segments at these addresses, entered at the first one's in 64-bit mode.
pub fn kernel(segments: &[(u64, &[u8])]) -> File {
    let count = u16::try_from(segments.len()).unwrap();
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    elf.resize(16, 0);
    // Executable, x86-64, version 1.
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    // Entry, program headers behind this header, no section headers, no flags.
    for word in [segments[0].0, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend([0; 4]);
    for half in [64u16, 56, count, 64, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    let mut offset = 64 + 56 * u64::from(count);
    for (address, bytes) in segments {
        let size = bytes.len() as u64;
        // Loadable, readable and executable: offset, addresses, sizes, alignment.
        elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
        for word in [offset, *address, *address, size, size, 0x1000] {
            elf.extend(word.to_le_bytes());
        }
        offset += size;
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&elf).unwrap();
    for (_, bytes) in segments {
        file.write_all(bytes).unwrap();
    }
    file.rewind().unwrap();
    file
}

/// Starts `crn-vmm` with a listening control socket and a place for its log.
pub fn vmm(control: OwnedFd, log: Stdio) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crn-vmm"));
    let (descriptor, identity) = (CONTROL_FD.to_string(), identity().to_string());
    command
        .args(["--control-fd", &descriptor])
        .args(["--uid", &identity, "--gid", &identity])
        .env("RUST_LOG", "warn,virtio_queue=off")
        .stdin(Stdio::null())
        .stderr(log)
        .fd_mappings(vec![FdMapping {
            parent_fd: control,
            child_fd: CONTROL_FD,
        }])
        .unwrap();
    first_of_a_namespace(|| command.spawn()).unwrap()
}
