//! PID 1 for boot measurements: says that user space runs, then ends the machine at once.
//!
//! `crn.exit=reset` on the kernel's command line resets instead of powering off, for monitors that end that way.

#![forbid(unsafe_code)]

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
    let reset = cmdline
        .split_ascii_whitespace()
        .any(|word| word == "crn.exit=reset");
    system::end(if reset {
        RebootCommand::Restart
    } else {
        RebootCommand::PowerOff
    })
}
