//! One connection between a guest port and a stream on the host.
//!
//! Bytes from the guest go to the stream at once; what the stream does not take waits in a buffer whose size the
//! guest was told and may not exceed. Bytes to the guest stay in the stream's own kernel buffer until the guest has
//! room for them: nothing here grows with what either side sends.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::credit::{Received, Sent};
use super::packet::{Operation, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use crate::memory::io as guest_io;
use crate::poller::Readiness;
use crate::virtio::Segments;

/// Data in one packet to the guest at most (VIRTIO_VSOCK_MAX_PKT_BUF_SIZE of Linux).
pub const MAX_DATA: usize = 64 * 1024;

/// How far the handshake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The host asked; REQUEST is to be sent or has been.
    Connecting,
    /// Both sides agreed.
    Established,
    /// Both directions are over for the guest; bytes still wait for the stream.
    Draining,
}

/// What is to be done with a connection after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Keep,
    /// The guest is to get a RST, and the connection is gone.
    Reset,
    /// It is gone.
    Drop,
}

/// A packet to the guest, less its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// What for.
    pub operation: Operation,
    /// Data bytes already placed behind the header.
    pub length: u32,
    /// For SHUTDOWN.
    pub flags: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    /// The guest's port.
    pub guest_port: u32,
    /// The host's port.
    pub host_port: u32,
    stage: Stage,
    /// When a state that must not last ends: connecting, draining, closing.
    pub deadline: Option<Instant>,

    readable: bool,
    writable: bool,
    hung_up: bool,

    /// Guest → host: bytes the stream has not taken yet, of those received.
    waiting: VecDeque<u8>,
    received: Received,
    /// The stream takes no more; what the guest sends is thrown away.
    deaf: bool,

    /// Host → guest.
    sent: Sent,
    /// The stream has ended.
    ended: bool,

    /// SHUTDOWN flags the guest has sent, and those sent to it.
    guest_shutdown: u32,
    host_shutdown: u32,

    owes_request: bool,
    owes_response: bool,
    /// It stands in the device's line of those that may have something for the guest.
    pub queued: bool,
}

impl Connection {
    /// A connection the host asked for.
    #[must_use]
    pub fn to_guest(stream: UnixStream, guest_port: u32, host_port: u32) -> Self {
        let mut connection = Self::new(stream, guest_port, host_port, Stage::Connecting);
        connection.owes_request = true;
        connection
    }

    /// A connection the guest asked for, with the room it told.
    #[must_use]
    pub fn from_guest(
        stream: UnixStream,
        guest_port: u32,
        host_port: u32,
        room: (u32, u32),
    ) -> Self {
        let mut connection = Self::new(stream, guest_port, host_port, Stage::Established);
        connection.owes_response = true;
        connection.set_peer_room(room);
        connection
    }

    fn new(stream: UnixStream, guest_port: u32, host_port: u32, stage: Stage) -> Self {
        Self {
            stream,
            guest_port,
            host_port,
            stage,
            deadline: None,
            readable: false,
            writable: true,
            hung_up: false,
            waiting: VecDeque::new(),
            received: Received::default(),
            deaf: false,
            sent: Sent::default(),
            ended: false,
            guest_shutdown: 0,
            host_shutdown: 0,
            owes_request: false,
            owes_response: false,
            queued: false,
        }
    }

    /// How far the handshake is.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// The stream, to be watched.
    #[must_use]
    pub const fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// The receive counter that goes into every header.
    pub const fn tell_forwarded(&mut self) -> u32 {
        self.received.tell()
    }

    /// The guest's room, from the header of any packet of its.
    pub const fn set_peer_room(&mut self, (buffer, forwarded): (u32, u32)) {
        self.sent.hear(buffer, forwarded);
    }

    /// The guest answered REQUEST.
    pub fn accepted(&mut self) -> Verdict {
        if self.stage != Stage::Connecting || self.owes_request {
            return Verdict::Reset;
        }
        self.stage = Stage::Established;
        self.deadline = None;
        self.wait(format!("OK {}\n", self.host_port).as_bytes());
        self.push()
    }

    /// Data from the guest.
    pub fn receive(&mut self, mut data: Segments<'_>) -> Verdict {
        let length = data.len() as u32;
        if self.stage != Stage::Established
            || self.guest_shutdown & SHUTDOWN_SEND != 0
            || length > self.received.room()
        {
            return Verdict::Reset;
        }
        self.received.receive(length);
        if self.waiting.is_empty() && self.writable && !self.deaf {
            match guest_io::write(self.stream.as_fd(), data.slices()) {
                Ok(count) => {
                    let _ = data.take(count);
                    self.received.all_but(data.len() as u32);
                    // A short write means a full stream; if not, the next one finds out.
                }
                Err(error) => self.write_failed(&error),
            }
        }
        if self.deaf {
            self.received.all_but(0);
        } else if !data.is_empty() {
            let start = self.waiting.len();
            self.waiting.resize(start + data.len(), 0);
            let (front, back) = self.waiting.as_mut_slices();
            // `resize` appended zeros at the end; the new bytes are the tail of both halves.
            if start < front.len() {
                data.read(&mut front[start..]);
                data.read(back);
            } else {
                data.read(&mut back[start - front.len()..]);
            }
        }
        self.push()
    }

    /// The guest ends one or both directions.
    pub fn guest_shut_down(&mut self, flags: u32) -> Verdict {
        self.guest_shutdown |= flags & SHUTDOWN_BOTH;
        if self.guest_shutdown & SHUTDOWN_RECEIVE != 0 {
            // The host's writes fail from now on, as they would on a local stream.
            let _ = self.stream.shutdown(Shutdown::Read);
        }
        self.push()
    }

    /// The guest is done with the connection; true when bytes still wait for the stream.
    pub fn guest_gone(&mut self) -> bool {
        self.stage = Stage::Draining;
        self.push();
        !self.waiting.is_empty()
    }

    /// The stream is ready for something.
    pub fn ready(&mut self, ready: Readiness) -> Verdict {
        self.readable |= ready.readable;
        self.writable |= ready.writable;
        self.hung_up |= ready.hang_up;
        self.push()
    }

    /// Writes what waits, and carries on with what follows when nothing does.
    fn push(&mut self) -> Verdict {
        while !self.waiting.is_empty() && self.writable {
            let (front, _) = self.waiting.as_slices();
            match self.stream.write(front) {
                Ok(count) => {
                    self.waiting.drain(..count);
                    // The greeting is not the guest's: it was never received from it.
                    let waiting = self.received.waiting().min(self.waiting.len() as u32);
                    self.received.all_but(waiting);
                }
                Err(error) => self.write_failed(&error),
            }
        }
        if !self.waiting.is_empty() {
            return Verdict::Keep;
        }
        if self.stage == Stage::Draining {
            return Verdict::Drop;
        }
        if self.guest_shutdown == SHUTDOWN_BOTH {
            return Verdict::Reset;
        }
        if self.guest_shutdown & SHUTDOWN_SEND != 0 && !self.deaf {
            self.deaf = true;
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        Verdict::Keep
    }

    fn wait(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
    }

    fn write_failed(&mut self, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::WouldBlock => self.writable = false,
            io::ErrorKind::Interrupted => {}
            _ => {
                self.deaf = true;
                self.hung_up = true;
                self.waiting.clear();
                self.received.all_but(0);
            }
        }
    }

    /// Whether `next` may have something for the guest.
    #[must_use]
    pub fn has_work(&self) -> bool {
        match self.stage {
            Stage::Draining => false,
            Stage::Connecting => self.owes_request,
            Stage::Established => {
                self.owes_response
                    || self.received.owes_update()
                    || self.shutdown_due() != self.host_shutdown
                    || (self.may_read() && (self.sent.room() > 0 || self.sent.may_ask()))
            }
        }
    }

    const fn may_read(&self) -> bool {
        self.readable && !self.ended && self.guest_shutdown & SHUTDOWN_RECEIVE == 0
    }

    /// The guest asked for this side's room.
    pub const fn credit_requested(&mut self) {
        self.received.ask();
    }

    /// What the guest should know about the stream's ends.
    const fn shutdown_due(&self) -> u32 {
        if self.ended && self.hung_up {
            SHUTDOWN_BOTH
        } else if self.ended {
            SHUTDOWN_SEND
        } else if self.hung_up && self.guest_shutdown & SHUTDOWN_RECEIVE != 0 {
            SHUTDOWN_BOTH
        } else {
            0
        }
    }

    /// True once the guest has been told that both directions are over: it has to answer with RST.
    #[must_use]
    pub const fn is_closing(&self) -> bool {
        self.host_shutdown == SHUTDOWN_BOTH
    }

    /// The next packet for the guest, its data placed into `data`.
    pub fn next(&mut self, mut data: Segments<'_>) -> Option<Outgoing> {
        let bare = |operation| {
            Some(Outgoing {
                operation,
                length: 0,
                flags: 0,
            })
        };
        if self.stage == Stage::Draining {
            return None;
        }
        if self.owes_request {
            self.owes_request = false;
            return bare(Operation::Request);
        }
        if self.stage == Stage::Connecting {
            return None;
        }
        if self.owes_response {
            self.owes_response = false;
            return bare(Operation::Response);
        }
        if self.may_read() && self.sent.room() > 0 && !data.is_empty() {
            let window = data.take(MAX_DATA.min(self.sent.room() as usize));
            match guest_io::read(self.stream.as_fd(), window.slices()) {
                Ok(0) => self.ended = true,
                Ok(length) => {
                    self.sent.send(length as u32);
                    return Some(Outgoing {
                        operation: Operation::Data,
                        length: length as u32,
                        flags: 0,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                // A stream reset by its other end.
                Err(_) => {
                    self.ended = true;
                    self.hung_up = true;
                }
            }
        }
        let flags = self.shutdown_due();
        if flags != self.host_shutdown {
            self.host_shutdown = flags;
            return Some(Outgoing {
                operation: Operation::Shutdown,
                length: 0,
                flags,
            });
        }
        if self.received.owes_update() {
            return bare(Operation::CreditUpdate);
        }
        if self.may_read() && self.sent.room() == 0 && self.sent.may_ask() {
            self.sent.ask();
            return bare(Operation::CreditRequest);
        }
        None
    }
}

#[cfg(test)]
mod tests;
