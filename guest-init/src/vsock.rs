//! Streams over AF_VSOCK (vsock(7)), with `unsafe`: the system call layer knows no vsock address.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType};

/// The host, `VMADDR_CID_HOST`.
pub const HOST: u32 = 2;
/// Any local context identifier, `VMADDR_CID_ANY`.
const ANY: u32 = u32::MAX;

/// `struct sockaddr_vm` of linux/vm_sockets.h.
#[repr(C)]
struct Address {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    flags: u8,
    zero: [u8; 3],
}

impl Address {
    const fn new(cid: u32, port: u32) -> Self {
        Self {
            family: AddressFamily::VSOCK.as_raw(),
            reserved: 0,
            port,
            cid,
            flags: 0,
            zero: [0; 3],
        }
    }
}

// SAFETY: `f` gets a pointer to `self`, a valid `sockaddr_vm` that outlives the call, and exactly its size.
unsafe impl SocketAddrArg for Address {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        f(
            std::ptr::from_ref(self).cast(),
            size_of::<Self>() as SocketAddrLen,
        )
    }
}

fn socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::VSOCK,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// A connected stream.
#[derive(Debug)]
pub struct Stream(File);

impl Stream {
    /// Connects to a port of the host; blocks until it answers.
    ///
    /// # Errors
    /// socket(2)'s or connect(2)'s.
    pub fn connect(port: u32) -> io::Result<Self> {
        let socket = socket()?;
        rustix::net::connect(&socket, &Address::new(HOST, port))?;
        Ok(Self(File::from(socket)))
    }

    /// A second handle of the same stream.
    ///
    /// # Errors
    /// dup(2)'s.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }
}

impl From<Stream> for OwnedFd {
    fn from(stream: Stream) -> Self {
        stream.0.into()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Ends one direction of any stream socket, or both; the peer having gone first is no error.
pub fn shutdown(stream: impl AsFd, how: Shutdown) {
    let _ = rustix::net::shutdown(stream, how);
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Listens on a port for connections from the host.
    ///
    /// # Errors
    /// socket(2)'s, bind(2)'s or listen(2)'s.
    pub fn bind(port: u32) -> io::Result<Self> {
        let socket = socket()?;
        rustix::net::bind(&socket, &Address::new(ANY, port))?;
        rustix::net::listen(&socket, 128)?;
        Ok(Self(socket))
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// accept(2)'s.
    pub fn accept(&self) -> io::Result<Stream> {
        let socket = rustix::net::accept_with(&self.0, SocketFlags::CLOEXEC)?;
        Ok(Stream(File::from(socket)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_has_the_kernels_layout() {
        assert_eq!(size_of::<Address>(), 16);
        assert_eq!(std::mem::offset_of!(Address, port), 4);
        assert_eq!(std::mem::offset_of!(Address, cid), 8);
    }
}
