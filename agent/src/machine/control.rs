//! The control socket, asynchronously: commands out, reports and the descriptors that come with them in.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use crn_protocol::control::{Command, Event, Report};
use crn_protocol::descriptors::{Receiver, send_with};
use crn_protocol::lines;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// How long the VMM may leave a command unread.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// One connection to a machine's control socket.
#[derive(Debug)]
pub struct Control {
    socket: UnixStream,
    receiver: Receiver,
}

impl Control {
    /// Connects; needs a runtime around it. Connecting to a UNIX socket that listens does not block.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixStream::connect(path)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UnixStream::from_std(socket)?,
            receiver: Receiver::default(),
        })
    }

    /// Sends one command, its descriptors with its first byte.
    pub async fn send(&self, command: &Command, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let line = lines::encode(command)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let send = async {
            let (mut sent, mut descriptors) = (0, descriptors);
            while sent < line.len() {
                let write = || send_with(&self.socket, &line[sent..], descriptors);
                sent += self.socket.async_io(Interest::WRITABLE, write).await?;
                descriptors = &[];
            }
            Ok(())
        };
        tokio::time::timeout(SEND_TIMEOUT, send)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// The next report, with the stream of a [`Event::GuestConnect`]; `None` when the other side has closed.
    /// May be dropped and called again without losing anything.
    pub async fn next(&mut self) -> io::Result<Option<(Report, Option<OwnedFd>)>> {
        loop {
            let report = self
                .receiver
                .next()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if let Some(report) = report {
                let stream = match &report {
                    Report::Event(Event::GuestConnect { .. }) => {
                        let stream = self.receiver.take(1).and_then(|mut taken| taken.pop());
                        Some(stream.ok_or_else(|| {
                            io::Error::new(
                                io::ErrorKind::InvalidData,
                                "a guest's connection without its descriptor",
                            )
                        })?)
                    }
                    _ => None,
                };
                return Ok(Some((report, stream)));
            }
            match self
                .socket
                .async_io(Interest::READABLE, || self.receiver.read(&self.socket))
                .await
            {
                Ok(0) => return Ok(None),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }
}
