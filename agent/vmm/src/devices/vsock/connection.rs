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

use super::packet::{Operation, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use crate::memory::io as guest_io;
use crate::poller::Readiness;
use crate::virtio::Segments;

/// The receive buffer the guest is told of, bytes.
pub const BUFFER: u32 = 128 * 1024;
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
    received: u32,
    forwarded: u32,
    /// The value of `forwarded` the guest was told last.
    forwarded_told: u32,
    /// The stream takes no more; what the guest sends is thrown away.
    deaf: bool,

    /// Host → guest: bytes sent, and the guest's room as it told it.
    sent: u32,
    peer_buffer: u32,
    peer_forwarded: u32,
    /// The stream has ended.
    ended: bool,

    /// SHUTDOWN flags the guest has sent, and those sent to it.
    guest_shutdown: u32,
    host_shutdown: u32,

    owes_request: bool,
    owes_response: bool,
    owes_credit: bool,
    credit_asked: bool,
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
            received: 0,
            forwarded: 0,
            forwarded_told: 0,
            deaf: false,
            sent: 0,
            peer_buffer: 0,
            peer_forwarded: 0,
            ended: false,
            guest_shutdown: 0,
            host_shutdown: 0,
            owes_request: false,
            owes_response: false,
            owes_credit: false,
            credit_asked: false,
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
    pub fn tell_forwarded(&mut self) -> u32 {
        self.owes_credit = false;
        self.forwarded_told = self.forwarded;
        self.forwarded
    }

    /// The guest's room, from the header of any packet of its.
    pub fn set_peer_room(&mut self, (buffer, forwarded): (u32, u32)) {
        self.peer_buffer = buffer;
        self.peer_forwarded = forwarded;
        self.credit_asked = false;
    }

    fn peer_room(&self) -> u32 {
        // A guest that claims to have forwarded more than was sent gets nothing.
        self.peer_buffer
            .saturating_sub(self.sent.wrapping_sub(self.peer_forwarded))
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
        let room = BUFFER.saturating_sub(self.received.wrapping_sub(self.forwarded));
        if self.stage != Stage::Established
            || self.guest_shutdown & SHUTDOWN_SEND != 0
            || length > room
        {
            return Verdict::Reset;
        }
        self.received = self.received.wrapping_add(length);
        if self.waiting.is_empty() && self.writable && !self.deaf {
            match guest_io::write(self.stream.as_fd(), data.slices()) {
                Ok(count) => {
                    let _ = data.take(count);
                    self.forwarded = self.forwarded.wrapping_add(count as u32);
                    // A short write means a full stream; if not, the next one finds out.
                }
                Err(error) => self.write_failed(&error),
            }
        }
        if self.deaf {
            self.forwarded = self.received;
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
                    self.forwarded = self.received.wrapping_sub(self.waiting.len() as u32);
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
                self.forwarded = self.received;
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
                    || self.owes_credit_update()
                    || self.shutdown_due() != self.host_shutdown
                    || (self.may_read() && (self.peer_room() > 0 || !self.credit_asked))
            }
        }
    }

    const fn may_read(&self) -> bool {
        self.readable && !self.ended && self.guest_shutdown & SHUTDOWN_RECEIVE == 0
    }

    const fn owes_credit_update(&self) -> bool {
        self.owes_credit || self.forwarded.wrapping_sub(self.forwarded_told) >= BUFFER / 4
    }

    /// The guest asked for this side's room.
    pub const fn credit_requested(&mut self) {
        self.owes_credit = true;
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
        if self.may_read() && self.peer_room() > 0 && !data.is_empty() {
            let window = data.take(MAX_DATA.min(self.peer_room() as usize));
            match guest_io::read(self.stream.as_fd(), window.slices()) {
                Ok(0) => self.ended = true,
                Ok(length) => {
                    self.sent = self.sent.wrapping_add(length as u32);
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
        if self.owes_credit_update() {
            return bare(Operation::CreditUpdate);
        }
        if self.may_read() && self.peer_room() == 0 && !self.credit_asked {
            self.credit_asked = true;
            return bare(Operation::CreditRequest);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

    use super::*;
    use crate::devices::testing::ram;
    use crate::memory::Ram;
    use crate::virtio::buffers::Buffers;

    fn pair() -> (UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (ours, theirs)
    }

    fn segments(ram: &Ram, length: usize) -> Segments<'_> {
        let mut driver = crate::devices::testing::Driver::new(ram, 0);
        driver.offer(&[(0x10_0000, length as u32, 2)]);
        let mut live = driver.live();
        let chain = live.pop(ram).unwrap().unwrap();
        Buffers::of(chain, ram).unwrap().writable
    }

    fn established(room: u32) -> (Connection, UnixStream) {
        let (ours, theirs) = pair();
        let mut connection = Connection::from_guest(ours, 1, 2, (room, 0));
        assert_eq!(
            connection.next(Segments::default()).unwrap().operation,
            Operation::Response
        );
        (connection, theirs)
    }

    const READABLE: Readiness = Readiness {
        readable: true,
        writable: false,
        hang_up: false,
    };

    #[test]
    fn data_to_the_guest_stops_at_its_room_and_goes_on_with_new_credit() {
        let (mut connection, mut host) = established(10);
        host.write_all(b"hello, world").unwrap();
        assert_eq!(connection.ready(READABLE), Verdict::Keep);
        let ram = ram();
        assert_eq!(connection.next(segments(&ram, 4096)).unwrap().length, 10);
        assert_eq!(
            connection.next(segments(&ram, 4096)).unwrap().operation,
            Operation::CreditRequest
        );
        assert!(connection.next(segments(&ram, 4096)).is_none() && !connection.has_work());
        connection.set_peer_room((10, 10));
        assert!(connection.has_work());
        assert_eq!(connection.next(segments(&ram, 4096)).unwrap().length, 2);
        let mut text = [0; 2];
        ram.read_slice(&mut text, GuestAddress(0x10_0000)).unwrap();
        assert_eq!(&text, b"ld");
    }

    #[test]
    fn a_guest_that_claims_more_than_it_got_gets_nothing() {
        let (mut connection, mut host) = established(10);
        host.write_all(b"hello").unwrap();
        connection.ready(READABLE);
        connection.set_peer_room((10, 1));
        assert_eq!(connection.peer_room(), 0);
    }

    #[test]
    fn data_from_the_guest_waits_for_a_slow_host_within_the_credit() {
        let (mut connection, mut host) = established(0);
        let ram = ram();
        let mut sent = 0u32;
        // The stream's kernel buffer, then the connection's own.
        while connection.waiting.len() + 4096 <= BUFFER as usize {
            ram.write_slice(&[(sent / 4096) as u8; 4096], GuestAddress(0x10_0000))
                .unwrap();
            assert_eq!(connection.receive(segments(&ram, 4096)), Verdict::Keep);
            sent += 4096;
        }
        assert_eq!(
            connection.received.wrapping_sub(connection.forwarded) as usize,
            connection.waiting.len()
        );
        assert_eq!(
            connection.receive(segments(&ram, 4096)),
            Verdict::Reset,
            "beyond the credit"
        );
        let mut got = vec![0; sent as usize];
        let mut at = 0;
        while at < got.len() {
            at += host.read(&mut got[at..]).unwrap();
            connection.ready(Readiness {
                writable: true,
                ..Readiness::default()
            });
        }
        assert!(
            got.iter()
                .enumerate()
                .all(|(index, byte)| *byte == (index / 4096) as u8)
        );
        assert_eq!(connection.forwarded, sent);
        assert_eq!(
            connection.next(Segments::default()).unwrap().operation,
            Operation::CreditUpdate
        );
        assert_eq!(connection.tell_forwarded(), sent);
        assert!(connection.next(Segments::default()).is_none());
    }

    #[test]
    fn a_host_that_finishes_writing_still_reads() {
        let (mut connection, mut host) = established(100);
        host.write_all(b"last").unwrap();
        host.shutdown(Shutdown::Write).unwrap();
        connection.ready(READABLE);
        let ram = ram();
        assert_eq!(connection.next(segments(&ram, 100)).unwrap().length, 4);
        let shutdown = connection.next(segments(&ram, 100)).unwrap();
        assert_eq!(
            (shutdown.operation, shutdown.flags),
            (Operation::Shutdown, SHUTDOWN_SEND)
        );
        assert!(!connection.is_closing());
        ram.write_slice(b"answer", GuestAddress(0x10_0000)).unwrap();
        assert_eq!(connection.receive(segments(&ram, 6)), Verdict::Keep);
        assert_eq!(connection.guest_shut_down(SHUTDOWN_BOTH), Verdict::Reset);
        drop(connection);
        let mut text = String::new();
        host.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
    }

    #[test]
    fn a_guest_that_finishes_writing_still_reads() {
        let (mut connection, mut host) = established(100);
        assert_eq!(connection.guest_shut_down(SHUTDOWN_SEND), Verdict::Keep);
        assert_eq!(host.read(&mut [0; 4]).unwrap(), 0);
        host.write_all(b"late").unwrap();
        connection.ready(READABLE);
        let ram = ram();
        assert_eq!(connection.next(segments(&ram, 100)).unwrap().length, 4);
    }

    #[test]
    fn a_host_that_goes_away_closes_both_directions() {
        let (mut connection, host) = established(100);
        drop(host);
        connection.ready(Readiness {
            readable: true,
            writable: true,
            hang_up: true,
        });
        let ram = ram();
        let shutdown = connection.next(segments(&ram, 100)).unwrap();
        assert_eq!(
            (shutdown.operation, shutdown.flags),
            (Operation::Shutdown, SHUTDOWN_BOTH)
        );
        assert!(connection.is_closing());
        // What the guest still sends vanishes without stopping it.
        assert_eq!(connection.receive(segments(&ram, 100)), Verdict::Keep);
        assert_eq!(connection.forwarded, 100);
    }

    #[test]
    fn bytes_are_delivered_after_the_guest_is_gone() {
        let (mut connection, mut host) = established(0);
        let ram = ram();
        while connection.waiting.is_empty() {
            assert_eq!(connection.receive(segments(&ram, 60_000)), Verdict::Keep);
        }
        let total = connection.received as usize;
        assert_eq!(connection.guest_shut_down(SHUTDOWN_BOTH), Verdict::Keep);
        assert!(connection.guest_gone());
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            host.read_to_end(&mut bytes).unwrap();
            bytes.len()
        });
        let started = Instant::now();
        while connection.ready(Readiness {
            writable: true,
            ..Readiness::default()
        }) == Verdict::Keep
        {
            assert!(started.elapsed().as_secs() < 10);
        }
        drop(connection);
        assert_eq!(reader.join().unwrap(), total);
    }

    #[test]
    fn the_host_reads_ok_before_the_stream_begins() {
        let (ours, mut host) = pair();
        let mut connection = Connection::to_guest(ours, 52, 1 << 30);
        assert!(connection.has_work());
        assert_eq!(
            connection.next(Segments::default()).unwrap().operation,
            Operation::Request
        );
        assert!(!connection.has_work());
        assert_eq!(connection.accepted(), Verdict::Keep);
        assert_eq!(connection.forwarded, 0);
        let mut line = [0; 14];
        host.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"OK 1073741824\n");
    }

    #[test]
    fn unasked_answers_and_data_before_the_handshake_are_reset() {
        let (ours, _host) = pair();
        let mut connection = Connection::to_guest(ours, 52, 1 << 30);
        assert_eq!(connection.accepted(), Verdict::Reset);
        let ram = ram();
        assert!(ram.check_range(GuestAddress(0x10_0000), 8));
        assert_eq!(connection.receive(segments(&ram, 8)), Verdict::Reset);
    }
}
