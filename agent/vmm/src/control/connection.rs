//! One controller's connection.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crn_protocol::control::{Command, Descriptor, Report, Request};
use crn_protocol::descriptors::{Receiver, send_with};
use crn_protocol::lines::encode;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Reports that wait for a controller that does not read; one more and it is let go.
const MAX_WAITING: usize = 256;

/// The controller has left, or was let go.
#[derive(Debug, thiserror::Error)]
#[error("the controller is gone")]
pub struct Gone(#[source] pub Option<io::Error>);

/// How many descriptors come with a line: one more than the highest it names.
fn count(named: impl IntoIterator<Item = Descriptor>) -> usize {
    let highest = named.into_iter().map(|one| usize::from(one.0)).max();
    highest.map_or(0, |highest| highest + 1)
}

/// A report on its way.
#[derive(Debug)]
struct Waiting {
    line: Vec<u8>,
    sent: usize,
    descriptor: Option<OwnedFd>,
}

/// See the module.
#[derive(Debug)]
pub struct Controller {
    stream: UnixStream,
    receiver: Receiver,
    waiting: VecDeque<Waiting>,
    writable: bool,
}

impl Controller {
    /// Takes a connection over.
    ///
    /// # Errors
    /// When it cannot be made non-blocking.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            receiver: Receiver::default(),
            waiting: VecDeque::new(),
            writable: true,
        })
    }

    /// The stream, to be watched.
    #[must_use]
    pub const fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Reads all that has come; `commands` gets the lines. A line that does not parse ends the connection: there is
    /// no id to answer to.
    ///
    /// # Errors
    /// [`Gone`]; `commands` may still have some.
    pub fn read(&mut self, commands: &mut Vec<(Command, Vec<OwnedFd>)>) -> Result<(), Gone> {
        loop {
            let end = match self.receiver.read(&self.stream) {
                Ok(0) => Some(Gone(None)),
                Ok(_) => None,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Some(Gone(Some(error))),
            };
            loop {
                let command: Command = match self.receiver.next() {
                    Ok(Some(command)) => command,
                    Ok(None) => break,
                    Err(error) => {
                        return Err(Gone(Some(io::Error::new(
                            io::ErrorKind::InvalidData,
                            error,
                        ))));
                    }
                };
                let count = match &command.request {
                    Request::Launch(spec) => count(spec.descriptors()),
                    Request::Restore(spec) => count(spec.descriptors()),
                    Request::Snapshot(spec) => count([spec.state, spec.memory]),
                    Request::AttachDisk(disk) => count([disk.file]),
                    Request::AttachConsole { stream } => count([*stream]),
                    _ => 0,
                };
                // Fewer than named: the description's check says which field lacks its own.
                let descriptors = (0..=count)
                    .rev()
                    .find_map(|count| self.receiver.take(count))
                    .unwrap_or_default();
                commands.push((command, descriptors));
            }
            if let Some(gone) = end {
                return Err(gone);
            }
        }
    }

    /// Sends a report, now or when the controller reads.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn send(&mut self, report: &Report, descriptor: Option<OwnedFd>) -> Result<(), Gone> {
        let line = encode(report).map_err(|error| Gone(Some(io::Error::other(error))))?;
        if self.waiting.len() == MAX_WAITING {
            return Err(Gone(Some(io::Error::new(
                io::ErrorKind::TimedOut,
                "it does not read",
            ))));
        }
        self.waiting.push_back(Waiting {
            line,
            sent: 0,
            descriptor,
        });
        self.flush()
    }

    /// The stream takes bytes again.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn writable(&mut self) -> Result<(), Gone> {
        self.writable = true;
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Gone> {
        while self.writable
            && let Some(first) = self.waiting.front_mut()
        {
            let rest = &first.line[first.sent..];
            let sent = match &first.descriptor {
                Some(descriptor) => send_with(&self.stream, rest, &[descriptor.as_fd()]),
                None => self.stream.write(rest),
            };
            match sent {
                Ok(count) => {
                    first.descriptor = None;
                    first.sent += count;
                    if first.sent == first.line.len() {
                        self.waiting.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Gone(Some(error))),
            }
        }
        Ok(())
    }

    /// Sends what waits before the process ends, at most for `patience`.
    pub fn finish(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while !self.waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let ready = poll(
                &mut [PollFd::new(&self.stream, PollFlags::OUT)],
                Some(&timeout),
            );
            if !matches!(ready, Ok(1..)) || self.writable().is_err() {
                return;
            }
        }
    }
}
