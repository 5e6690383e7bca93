//! Starting a program: its environment, and the step between init and the program.
//!
//! Descriptor 3 and `LISTEN_PID` (sd_listen_fds(3)) can only be set up in the process that becomes the program. That
//! process is this binary once more, called with [`START`]: it arranges both and executes the program.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::io::FdFlags;
use rustix::process::Pid;

use crate::code::{CODE, Start};
use crate::error::{Context, Error, Result};

/// First argument of the step; [`LISTENING`] or `-` and the program with its arguments follow.
pub const START: &str = "start";
/// Second argument when standard input is the listening socket.
const LISTENING: &str = "listening";

/// Descriptor of the listening socket, SD_LISTEN_FDS_START.
const LISTEN_FD: i32 = 3;

/// The program's environment: what the init sets, then the message's variables, which may replace it.
#[must_use]
pub fn environment(
    hostname: &str,
    notify: &str,
    variables: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut environment: BTreeMap<String, String> = [
        (
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ),
        ("HOME", "/root"),
        ("LANG", "C.UTF-8"),
        ("ALEPH_INIT_VERSION", "2.0.0"),
        ("ALEPH_ADDRESS_TO_USE", hostname),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    // execve(2) cannot carry a name with `=` or anything with a NUL.
    let usable = variables.iter().filter(|(name, value)| {
        !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
    });
    environment.extend(usable.map(|(name, value)| (name.clone(), value.clone())));
    environment.insert("NOTIFY_SOCKET".to_owned(), notify.to_owned());
    environment
}

/// Starts the program, in its own session, with the console as output and `listener` as its descriptor 3.
///
/// # Errors
/// A program that is not there, or fork(2)'s.
pub fn spawn(
    start: &Start,
    environment: BTreeMap<String, String>,
    listener: Option<TcpListener>,
) -> Result<Pid> {
    if !start.executable.exists() {
        return Err(Error::Refused(format!(
            "there is no {}",
            start.executable.display()
        )));
    }
    let listening = if listener.is_some() { LISTENING } else { "-" };
    let stdin = listener.map_or_else(Stdio::null, |listener| OwnedFd::from(listener).into());
    let child = Command::new("/proc/self/exe")
        .arg(START)
        .arg(listening)
        .arg(&start.executable)
        .args(&start.arguments)
        .env_clear()
        .envs(environment)
        .current_dir(CODE)
        .stdin(stdin)
        .spawn()
        .context(|| format!("start {}", start.executable.display()))?;
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| Error::Refused("the kernel gave a process no number".to_owned()))
}

/// The step: becomes the program, or says why not.
pub fn become_program(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> io::Error {
    let (Some(listening), Some(executable)) = (arguments.next(), arguments.next()) else {
        return io::Error::new(io::ErrorKind::InvalidInput, "no program to start");
    };
    let mut command = Command::new(executable);
    command.args(arguments).stdin(Stdio::null());
    if let Err(error) = rustix::process::setsid() {
        return error.into();
    }
    // Held until execve(2) takes over.
    let _socket = if listening == LISTENING {
        match listen_descriptor() {
            Ok(socket) => {
                command
                    .env("LISTEN_FDS", "1")
                    .env("LISTEN_PID", std::process::id().to_string());
                Some(socket)
            }
            Err(error) => return error,
        }
    } else {
        None
    };
    command.exec()
}

/// Standard input as descriptor 3, kept over execve(2).
fn listen_descriptor() -> io::Result<OwnedFd> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), LISTEN_FD)?;
    if socket.as_raw_fd() != LISTEN_FD {
        return Err(io::Error::other("descriptor 3 is taken"));
    }
    rustix::io::fcntl_setfd(&socket, FdFlags::empty())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_variables_replace_the_inits_except_the_notify_socket() {
        let variables = [
            ("HOME", "/data"),
            ("NOTIFY_SOCKET", "/x"),
            ("A=B", "no"),
            ("NUL", "a\0b"),
            ("KEY", "value"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let environment = environment("host", "/run/crn/notify", &variables);
        assert_eq!(environment["HOME"], "/data");
        assert_eq!(environment["KEY"], "value");
        assert_eq!(environment["NOTIFY_SOCKET"], "/run/crn/notify");
        assert_eq!(environment["ALEPH_ADDRESS_TO_USE"], "host");
        assert!(!environment.contains_key("A=B") && !environment.contains_key("NUL"));
    }
}
