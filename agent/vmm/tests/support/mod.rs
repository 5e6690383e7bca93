//! Starts programs the way the agent starts `crn-vmm`: first in a PID namespace, with one descriptor.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use command_fds::{CommandFdExt, FdMapping};
use crn_protocol::start::first_of_a_namespace;

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

/// Starts `crn-vmm` with a listening control socket.
pub fn vmm(control: OwnedFd) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crn-vmm"));
    let (descriptor, identity) = (CONTROL_FD.to_string(), identity().to_string());
    command
        .args(["--control-fd", &descriptor])
        .args(["--uid", &identity, "--gid", &identity])
        .env("RUST_LOG", "warn,virtio_queue=off")
        .stdin(Stdio::null())
        .fd_mappings(vec![FdMapping {
            parent_fd: control,
            child_fd: CONTROL_FD,
        }])
        .unwrap();
    first_of_a_namespace(|| command.spawn()).unwrap()
}
