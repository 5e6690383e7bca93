//! PID 1 for measurements: says that user space runs, does what the kernel's command line asks for, and ends the machine.
//!
//! `crn.wait` has it stay until the machine is ended from outside. `crn.bench=disk` measures `/dev/vda`, `crn.bench=net` TCP with the host at 10.9.9.1. `crn.exit=reset` resets instead of powering off, for monitors that end that way.

#![deny(unsafe_code)]

mod disk;
mod net;

use std::io;
use std::time::Instant;

use crn_init::system;
use rustix::mount::MountFlags;
use rustix::system::RebootCommand;

fn main() {
    // The kernel has opened /dev/console of its built-in initramfs for us.
    println!("CRN-BENCH first-instruction");
    let cmdline = system::mount("proc", "/proc", "proc", MountFlags::empty(), None)
        .ok()
        .and_then(|()| std::fs::read_to_string("/proc/cmdline").ok())
        .unwrap_or_default();
    let asked = |wanted: &str| cmdline.split_ascii_whitespace().any(|word| word == wanted);
    while asked("crn.wait") {
        std::thread::park();
    }
    for (bench, run) in [
        ("crn.bench=disk", disk::run as fn() -> io::Result<()>),
        ("crn.bench=net", net::run),
    ] {
        if asked(bench)
            && let Err(error) = prepare().and_then(|()| run().map_err(|error| error.to_string()))
        {
            println!("CRN-BENCH failed {error}");
        }
    }
    system::end(if asked("crn.exit=reset") {
        RebootCommand::Restart
    } else {
        RebootCommand::PowerOff
    })
}

/// What a bench needs and a boot does not.
fn prepare() -> Result<(), String> {
    for (kind, target) in [("devtmpfs", "/dev"), ("sysfs", "/sys")] {
        system::mount(kind, target, kind, MountFlags::empty(), None)
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// So many operations have been done since then.
fn report(name: &str, operations: usize, started: Instant) {
    println!(
        "CRN-BENCH measured {name} {operations} {}",
        started.elapsed().as_nanos()
    );
}
