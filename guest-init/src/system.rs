//! The machine: console, early mounts, power.

use std::io::Write as _;
use std::panic;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;
use rustix::system::RebootCommand;

use crate::error::{Context, Result};

/// How long the console may take to print what is still in its buffer before the power goes.
const CONSOLE_DRAIN: Duration = Duration::from_secs(1);

/// Mounts the kernel's file systems in the initramfs and takes /dev/console for standard input, output and error.
///
/// # Errors
/// mount(2)'s. A machine without a console is none: the kernel then says so itself.
pub fn prepare() -> Result<()> {
    let harmless = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    mount(
        "devtmpfs",
        "/dev",
        "devtmpfs",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        Some(c"mode=0755"),
    )?;
    if let Ok(console) = rustix::fs::open(
        "/dev/console",
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        let _ = rustix::stdio::dup2_stdin(&console);
        let _ = rustix::stdio::dup2_stdout(&console);
        let _ = rustix::stdio::dup2_stderr(&console);
    }
    mount("proc", "/proc", "proc", harmless, None)?;
    mount("sysfs", "/sys", "sysfs", harmless, None)
}

/// mount(2), with the directory made when it is missing.
///
/// # Errors
/// mkdir(2)'s or mount(2)'s.
pub fn mount(
    source: &str,
    target: &str,
    kind: &str,
    flags: MountFlags,
    options: Option<&std::ffi::CStr>,
) -> Result<()> {
    std::fs::create_dir_all(target).context(|| format!("create the directory {target}"))?;
    rustix::mount::mount(source, target, kind, flags, options)
        .context(|| format!("mount {source} on {target} as {kind}"))
}

/// Prints a line on the console.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "crn-init: {line}");
}

/// Ends the machine: writes back what is dirty, lets the console finish, powers off.
pub fn power_off() -> ! {
    end(RebootCommand::PowerOff)
}

/// Ends the machine the way `command` says; should the kernel refuse, a reset ends it as well.
pub fn end(command: RebootCommand) -> ! {
    rustix::fs::sync();
    drain_console();
    let _ = rustix::system::reboot(command);
    let _ = rustix::system::reboot(RebootCommand::Restart);
    // Neither worked: when PID 1 ends, the kernel panics, and `panic=` on its command line decides.
    std::process::exit(1)
}

/// The serial console is drained by interrupts, which a power off does not wait for.
fn drain_console() {
    let (done, wait) = mpsc::channel();
    let drain = move || {
        let _ = rustix::termios::tcdrain(rustix::stdio::stdout());
        let _ = done.send(());
    };
    if thread::Builder::new().spawn(drain).is_ok() {
        let _ = wait.recv_timeout(CONSOLE_DRAIN);
    }
}

/// From here on a panic in any thread powers the machine off: a guest without its init must not linger.
pub fn power_off_on_panic() {
    panic::set_hook(Box::new(|panic| {
        say(&panic.to_string());
        power_off();
    }));
}
