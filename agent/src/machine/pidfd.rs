//! A pidfd to wait on and to kill through.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Holds on to one process, whoever gets its number later.
#[derive(Debug)]
pub struct Pidfd(AsyncFd<OwnedFd>);

impl Pidfd {
    /// Takes hold of the process that has the number now; needs a runtime around it.
    pub fn open(pid: Pid) -> io::Result<Self> {
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        // SAFETY: an OwnedFd is open, names the same descriptor and file at every call, and is closed by its drop only,
        // which is AsyncFd's: nothing here takes it out or replaces it.
        let registered = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Waits for the end: a pidfd becomes readable when its process ends, and stays so.
    pub async fn ended(&self) -> io::Result<()> {
        self.0.readable().await?.retain_ready();
        Ok(())
    }

    /// SIGKILL; one that has ended already is no error.
    pub fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(self.0.get_ref(), Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
