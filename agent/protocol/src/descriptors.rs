//! Lines and file descriptors over one UNIX stream socket (SCM_RIGHTS, unix(7)).
//!
//! Works on blocking and non-blocking sockets alike: a call that would block returns
//! [`io::ErrorKind::WouldBlock`] and may be repeated.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;

use crate::lines::{LineBuffer, LineError};

/// Descriptors that one line may carry: the kernel's own limit is 253 (SCM_MAX_FD).
pub const MAX_DESCRIPTORS: usize = 64;

/// Sends bytes with descriptors attached to the first of them; returns how many bytes went out (at least one, so the
/// descriptors have gone too; what is left is to be sent as plain bytes).
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for more than [`MAX_DESCRIPTORS`] descriptors or no bytes, or sendmsg(2)'s error.
pub fn send_with(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    if bytes.is_empty() || descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let sent = rustix::net::sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(sent)
}

/// The receiving side: collects lines and the descriptors that came with them, both in order.
#[derive(Debug, Default)]
pub struct Receiver {
    lines: LineBuffer,
    descriptors: VecDeque<OwnedFd>,
}

impl Receiver {
    /// Reads once from the socket; returns the number of bytes, 0 at the end of the stream.
    ///
    /// # Errors
    /// recvmsg(2)'s error, or [`io::ErrorKind::InvalidData`] for an endless line or a flood of descriptors.
    pub fn read(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0u8; 16 * 1024];
        let got = rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                self.descriptors.extend(received);
            }
        }
        if self.descriptors.len() > 2 * MAX_DESCRIPTORS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "more descriptors than lines that name them",
            ));
        }
        self.lines
            .push(&bytes[..got.bytes])
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(got.bytes)
    }

    /// The next whole line, parsed.
    ///
    /// # Errors
    /// [`LineError::Parse`].
    #[expect(
        clippy::should_implement_trait,
        reason = "fallible, and typed by the caller"
    )]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LineError> {
        self.lines.next()
    }

    /// Takes the `count` oldest descriptors, those of the line just returned; `None` when fewer have come.
    pub fn take(&mut self, count: usize) -> Option<Vec<OwnedFd>> {
        (self.descriptors.len() >= count).then(|| self.descriptors.drain(..count).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::control::{Event, Report};
    use crate::lines::encode;

    #[test]
    fn a_descriptor_arrives_with_its_line() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut file = File::from(rustix_memfd());
        file.write_all(b"content").unwrap();
        let report = Report::Event(Event::GuestConnect { port: 7 });
        let line = encode(&report).unwrap();
        assert_eq!(
            send_with(&here, &line, &[file.as_fd()]).unwrap(),
            line.len()
        );

        let mut receiver = Receiver::default();
        assert!(receiver.read(&there).unwrap() > 0);
        assert_eq!(receiver.next::<Report>().unwrap(), Some(report));
        let mut copy = File::from(receiver.take(1).unwrap().remove(0));
        copy.rewind().unwrap();
        let mut text = String::new();
        copy.read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        assert!(receiver.take(1).is_none());
    }

    fn rustix_memfd() -> OwnedFd {
        tempfile::tempfile().unwrap().into()
    }
}
