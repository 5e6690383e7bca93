//! One connection between a mock guest and a real stream.

use std::io::Read;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::*;
use crate::devices::testing::ram;
use crate::devices::vsock::credit::BUFFER;
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
    assert_eq!(connection.sent.room(), 0);
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
        connection.received.waiting() as usize,
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
    assert_eq!(connection.received.waiting(), 0);
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
    assert_eq!(connection.received.tell(), 100);
}

#[test]
fn bytes_are_delivered_after_the_guest_is_gone() {
    let (mut connection, mut host) = established(0);
    let ram = ram();
    while connection.waiting.is_empty() {
        assert_eq!(connection.receive(segments(&ram, 60_000)), Verdict::Keep);
    }
    let total = connection.received.tell() as usize + connection.received.waiting() as usize;
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
    assert_eq!(connection.received.tell(), 0);
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
