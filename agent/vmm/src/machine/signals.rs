//! SIGTERM and SIGINT as events, and the signal that takes vCPU threads out of the guest.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use vmm_sys_util::signal::{SIGRTMIN, block_signal, create_sigset, register_signal_handler};

/// Sent to a vCPU's thread to make it look at what it is told.
#[must_use]
pub fn kick_signal() -> libc::c_int {
    SIGRTMIN()
}

extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Makes the kick signal interrupt KVM_RUN and do nothing else.
///
/// # Errors
/// sigaction(2)'s.
pub fn prepare_kick() -> io::Result<()> {
    register_signal_handler(kick_signal(), nothing)
        .map_err(|error| io::Error::from_raw_os_error(error.errno()))
}

/// The signals that stop a machine, as a descriptor.
#[derive(Debug)]
pub struct StopSignals(OwnedFd);

impl StopSignals {
    /// Blocks SIGTERM and SIGINT in this thread and those it starts, and receives them here.
    ///
    /// # Errors
    /// pthread_sigmask(3)'s or signalfd(2)'s.
    pub fn new() -> io::Result<Self> {
        let signals = [libc::SIGTERM, libc::SIGINT];
        for signal in signals {
            block_signal(signal)
                .map_err(|error| io::Error::other(format!("cannot block a signal: {error:?}")))?;
        }
        let set =
            create_sigset(&signals).map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
        // SAFETY: the set is initialised and outlives the call; -1 asks for a new descriptor.
        let fd =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd returned a descriptor nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

impl AsFd for StopSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
