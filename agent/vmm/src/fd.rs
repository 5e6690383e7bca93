//! Raw descriptors become typed ones here and nowhere else.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use rustix::net::{SocketType, sockopt};
use vmm_sys_util::eventfd::EventFd;

/// Lends an event counter to calls that want a typed descriptor.
#[must_use]
pub fn of_event(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the counter owns its descriptor, which stays open as long as the borrow.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

/// One more descriptor of what this process was started with as `fd`.
///
/// # Errors
/// When it was started without.
pub fn inherit(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: only borrowed for a question to the kernel, which answers EBADF if it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(rustix::io::fcntl_dupfd_cloexec(borrowed, 3)?)
}

/// Takes over the listening socket this process was started with. To be called once, first thing.
///
/// # Errors
/// When the descriptor is not open or not a listening stream socket.
pub fn inherit_listener(fd: RawFd) -> io::Result<UnixListener> {
    if fd <= 2 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a standard stream is no control socket",
        ));
    }
    // SAFETY: only borrowed for a question to the kernel, which answers EBADF if it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC)?;
    // SAFETY: the descriptor is open, was given to this process for this purpose, and is taken over once.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    if sockopt::socket_type(&fd)? != SocketType::STREAM || !sockopt::socket_acceptconn(&fd)? {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a listening stream socket",
        ));
    }
    Ok(UnixListener::from(fd))
}
