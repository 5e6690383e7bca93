//! The device as its driver and its clients see it.

use std::io::{Read, Write};

use vm_memory::{Bytes, GuestAddress};

use super::packet::HEADER;
use super::*;
use crate::devices::testing::{Driver, Host, READ, WRITE, ram};
use crate::memory::Ram;

const CID: u32 = 5;
const TX_AREA: u64 = 0x10_0000;
const RX_AREA: u64 = 0x20_0000;
const EVENT_AREA: u64 = 0x30_0000;

/// A device with a driver that has handed over its queues.
struct Machine<'m> {
    ram: &'m Ram,
    vsock: Vsock,
    host: Host,
    rx: Driver<'m>,
    tx: Driver<'m>,
    events: Driver<'m>,
    offered: u64,
    taken: u64,
    path: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

impl<'m> Machine<'m> {
    fn new(ram: &'m Ram) -> Self {
        Self::made(ram, |_| {})
    }

    /// A machine that goes on from another's snapshot, with a buffer for events.
    fn copy(ram: &'m Ram) -> Self {
        let mut machine = Self::made(ram, |vsock| vsock.restore(&[]));
        machine.offer_event();
        machine
    }

    fn made(ram: &'m Ram, prepare: impl FnOnce(&mut Vsock)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vsock");
        let listener = UnixListener::bind(&path).unwrap();
        let (mut vsock, offer) = Vsock::new(CID, listener.into()).unwrap();
        assert_eq!(offer.config.bytes(), [5, 0, 0, 0, 0, 0, 0, 0]);
        let (rx, tx, events) = (
            Driver::new(ram, 0),
            Driver::new(ram, 0x1_0000),
            Driver::new(ram, 0x2_0000),
        );
        let mut host = Host::new();
        prepare(&mut vsock);
        vsock.start(&mut host.context(ram)).unwrap();
        let queues = vec![rx.live(), tx.live(), events.live()].into();
        vsock.activate(0, queues, &mut host.context(ram)).unwrap();
        let mut machine = Self {
            ram,
            vsock,
            host,
            rx,
            tx,
            events,
            offered: 0,
            taken: 0,
            path,
            _directory: directory,
        };
        for _ in 0..16 {
            machine.offer_buffer();
        }
        machine
    }

    /// Gives the device room for an event and rings.
    fn offer_event(&mut self) {
        self.events.offer(&[(EVENT_AREA, 8, WRITE)]);
        self.vsock
            .queue_ready(EVENTS, &mut self.host.context(self.ram))
            .unwrap();
    }

    fn offer_buffer(&mut self) {
        let at = RX_AREA + self.offered % 32 * 0x2000;
        self.rx.offer(&[(at, 0x1100, WRITE)]);
        self.offered += 1;
    }

    fn send(
        &mut self,
        guest_port: u32,
        host_port: u32,
        operation: Operation,
        flags: u32,
        data: &[u8],
    ) {
        let header = Header {
            source_cid: u64::from(CID),
            destination_cid: HOST_CID,
            source_port: guest_port,
            destination_port: host_port,
            length: data.len() as u32,
            kind: TYPE_STREAM,
            operation: Some(operation),
            flags,
            buffer: 0x1_0000,
            forwarded: 0,
        };
        self.ram
            .write_slice(&header.to_bytes(), GuestAddress(TX_AREA))
            .unwrap();
        self.ram
            .write_slice(data, GuestAddress(TX_AREA + 0x100))
            .unwrap();
        let mut chain = vec![(TX_AREA, HEADER as u32, READ)];
        if !data.is_empty() {
            chain.push((TX_AREA + 0x100, data.len() as u32, READ));
        }
        self.tx.offer(&chain);
        self.vsock
            .queue_ready(TX, &mut self.host.context(self.ram))
            .unwrap();
    }

    /// Lets the device see whatever became ready on the host's side.
    fn poll(&mut self) {
        let mut ready = Vec::new();
        self.host
            .poller
            .wait(&mut ready, Some(Duration::from_millis(20)))
            .unwrap();
        for (token, readiness) in ready {
            let crate::poller::Token::Device { id, .. } = token else {
                continue;
            };
            self.vsock
                .io_ready(id, readiness, &mut self.host.context(self.ram))
                .unwrap();
        }
    }

    /// The packets the guest has received since the last call.
    fn received(&mut self) -> Vec<(Header, Vec<u8>)> {
        self.poll();
        let mut packets = Vec::new();
        while self.taken < u64::from(self.rx.used().0) {
            let at = RX_AREA + self.taken % 32 * 0x2000;
            let mut bytes = [0; HEADER];
            self.ram.read_slice(&mut bytes, GuestAddress(at)).unwrap();
            let header = Header::from_bytes(&bytes);
            let mut data = vec![0; header.length as usize];
            self.ram
                .read_slice(&mut data, GuestAddress(at + HEADER as u64))
                .unwrap();
            packets.push((header, data));
            self.taken += 1;
            self.offer_buffer();
        }
        packets
    }

    fn receive_one(&mut self) -> (Header, Vec<u8>) {
        let mut packets = self.received();
        assert_eq!(packets.len(), 1, "{packets:?}");
        packets.remove(0)
    }
}

#[test]
fn a_host_client_talks_to_a_guest_port() {
    let ram = ram();
    let mut machine = Machine::new(&ram);
    let mut client = UnixStream::connect(&machine.path).unwrap();
    client.write_all(b"CONNECT 52\nfirst").unwrap();
    machine.poll();
    let (request, _) = machine.receive_one();
    assert_eq!(
        (request.operation, request.destination_port),
        (Some(Operation::Request), 52)
    );
    machine.send(52, request.source_port, Operation::Response, 0, &[]);
    let (data, bytes) = machine.receive_one();
    assert_eq!(
        (data.operation, &bytes[..]),
        (Some(Operation::Data), &b"first"[..])
    );
    machine.send(52, request.source_port, Operation::Data, 0, b"answer");
    let expected = format!("OK {}\nanswer", request.source_port).into_bytes();
    let mut text = vec![0; expected.len()];
    client.read_exact(&mut text).unwrap();
    assert_eq!(text, expected);
    drop(client);
    let (shutdown, _) = machine.receive_one();
    assert_eq!(
        (shutdown.operation, shutdown.flags),
        (Some(Operation::Shutdown), packet::SHUTDOWN_BOTH)
    );
    machine.send(52, request.source_port, Operation::Reset, 0, &[]);
    assert!(machine.vsock.connections.is_empty() && machine.vsock.ports.is_empty());
}

#[test]
fn a_client_of_a_copy_waits_until_the_guest_has_forgotten_the_connections_of_the_original() {
    let ram = ram();
    let mut machine = Machine::copy(&ram);
    assert_eq!(machine.events.used().0, 1, "it has been told");
    let mut client = UnixStream::connect(&machine.path).unwrap();
    client.write_all(b"CONNECT 52\n").unwrap();
    machine
        .vsock
        .queue_ready(EVENTS, &mut machine.host.context(&ram))
        .unwrap();
    assert_eq!(machine.received(), [], "a ring without a buffer");
    machine.offer_event();
    machine.poll();
    let (request, _) = machine.receive_one();
    assert_eq!(request.operation, Some(Operation::Request));
    assert_eq!(machine.events.used().0, 1, "once");
}

#[test]
fn a_guest_that_refuses_ends_the_clients_stream() {
    let ram = ram();
    let mut machine = Machine::new(&ram);
    let mut client = UnixStream::connect(&machine.path).unwrap();
    client.write_all(b"CONNECT 1\n").unwrap();
    machine.poll();
    let (request, _) = machine.receive_one();
    machine.send(1, request.source_port, Operation::Reset, 0, &[]);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn a_guests_connection_is_handed_over_and_refused_when_too_many_wait() {
    let ram = ram();
    let mut machine = Machine::new(&ram);
    machine.send(1000, 80, Operation::Request, 0, &[]);
    assert_eq!(machine.receive_one().0.operation, Some(Operation::Response));
    let (port, stream) = machine.host.guest_connects.pop().unwrap();
    assert_eq!(port, 80);
    machine.send(1000, 80, Operation::Data, 0, b"GET /");
    let mut stream = UnixStream::from(stream);
    let mut text = [0; 5];
    stream.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"GET /");
    stream.write_all(b"200").unwrap();
    assert_eq!(machine.receive_one().1, b"200");
    for port in 0..16 {
        machine.send(2000 + port, 80, Operation::Request, 0, &[]);
        assert_eq!(machine.receive_one().0.operation, Some(Operation::Response));
    }
    machine.send(3000, 80, Operation::Request, 0, &[]);
    assert_eq!(machine.receive_one().0.operation, Some(Operation::Reset));
}

#[test]
fn a_guest_that_closes_gets_its_reset_and_its_bytes_arrive() {
    let ram = ram();
    let mut machine = Machine::new(&ram);
    machine.send(1000, 80, Operation::Request, 0, &[]);
    machine.receive_one();
    machine.send(1000, 80, Operation::Data, 0, b"bye");
    machine.send(1000, 80, Operation::Shutdown, packet::SHUTDOWN_BOTH, &[]);
    assert_eq!(machine.receive_one().0.operation, Some(Operation::Reset));
    let (_, stream) = machine.host.guest_connects.pop().unwrap();
    let mut text = String::new();
    UnixStream::from(stream).read_to_string(&mut text).unwrap();
    assert_eq!(text, "bye");
}

#[test]
fn packets_for_nobody_are_reset_and_nonsense_is_ignored() {
    let ram = ram();
    let mut machine = Machine::new(&ram);
    machine.send(7, 8, Operation::Data, 0, b"x");
    let (reset, _) = machine.receive_one();
    assert_eq!(
        (reset.operation, reset.source_port, reset.destination_port),
        (Some(Operation::Reset), 8, 7)
    );
    machine.send(7, 8, Operation::Reset, 0, &[]);
    // Outside memory, too short, length beyond the chain.
    machine.tx.offer(&[(1 << 50, 44, READ)]);
    machine.tx.offer(&[(TX_AREA, 10, READ)]);
    let mut header = Header::from_bytes(&[0; HEADER]);
    (header.source_cid, header.destination_cid, header.length) = (u64::from(CID), 2, u32::MAX);
    ram.write_slice(&header.to_bytes(), GuestAddress(TX_AREA))
        .unwrap();
    machine
        .tx
        .offer(&[(TX_AREA, 44, READ), (TX_AREA, 100, READ)]);
    machine
        .vsock
        .queue_ready(TX, &mut machine.host.context(&ram))
        .unwrap();
    assert!(machine.received().is_empty());
    assert_eq!(machine.tx.used().0, 5);
}

#[test]
fn bad_greetings_end_the_stream() {
    let ram = ram();
    let mut machine = Machine::new(&ram);
    for line in [
        "CONNECT x\n",
        "CONNECT +1\n",
        "CONNECT 4294967296\n",
        "GET / HTTP/1.1\n",
        &"C".repeat(100),
    ] {
        let mut client = UnixStream::connect(&machine.path).unwrap();
        client.write_all(line.as_bytes()).unwrap();
        machine.poll();
        machine.poll();
        // Bytes left unread turn the end into a reset.
        assert!(!matches!(client.read(&mut [0; 8]), Ok(1..)), "{line}");
    }
    assert!(machine.received().is_empty());
}

#[test]
fn a_large_answer_crosses_in_credit_sized_steps() {
    let ram = ram();
    let mut machine = Machine::new(&ram);
    machine.send(1000, 80, Operation::Request, 0, &[]);
    machine.receive_one();
    let (_, stream) = machine.host.guest_connects.pop().unwrap();
    let body: Vec<u8> = (0..1_000_000u32).map(|n| (n / 7) as u8).collect();
    let sent = body.clone();
    let writer = std::thread::spawn(move || UnixStream::from(stream).write_all(&sent).unwrap());
    let mut got = Vec::new();
    let started = Instant::now();
    while got.len() < body.len() {
        assert!(started.elapsed().as_secs() < 20, "{} bytes", got.len());
        for (header, bytes) in machine.received() {
            if header.operation == Some(Operation::Data) {
                got.extend(bytes);
            }
        }
        let id = machine.vsock.ports[&(1000, 80)];
        machine
            .vsock
            .connections
            .get_mut(&id)
            .unwrap()
            .set_peer_room((0x1_0000, got.len() as u32));
        machine.vsock.mark_ready(id);
        machine
            .vsock
            .queue_ready(RX, &mut machine.host.context(&ram))
            .unwrap();
    }
    writer.join().unwrap();
    assert!(got == body);
}

#[test]
fn a_reset_device_closes_every_stream() {
    let ram = ram();
    let mut machine = Machine::new(&ram);
    machine.send(1000, 80, Operation::Request, 0, &[]);
    let (_, stream) = machine.host.guest_connects.pop().unwrap();
    machine.vsock.reset();
    assert_eq!(UnixStream::from(stream).read(&mut [0; 1]).unwrap(), 0);
    machine
        .vsock
        .queue_ready(TX, &mut machine.host.context(&ram))
        .unwrap();
}

#[test]
fn hundreds_of_streams_at_once_each_get_their_own_bytes() {
    const STREAMS: usize = 300;
    let ram = ram();
    let mut machine = Machine::new(&ram);
    let payload = |index: usize| format!("{index:08}").repeat(100).into_bytes();
    let mut clients = Vec::new();
    for index in 0..STREAMS {
        let mut client = UnixStream::connect(&machine.path).unwrap();
        client.write_all(b"CONNECT 52\n").unwrap();
        client.write_all(&payload(index)).unwrap();
        client.set_nonblocking(true).unwrap();
        clients.push((client, Vec::new()));
        if index % 50 == 49 {
            machine.poll();
        }
    }
    let started = Instant::now();
    let mut done = 0;
    while done < STREAMS {
        assert!(started.elapsed().as_secs() < 60, "{done} are done");
        for (header, data) in machine.received() {
            let port = header.source_port;
            match header.operation {
                Some(Operation::Request) => {
                    machine.send(52, port, Operation::Response, 0, &[]);
                }
                Some(Operation::Data) => machine.send(52, port, Operation::Data, 0, &data),
                _ => {}
            }
        }
        machine
            .vsock
            .queue_ready(RX, &mut machine.host.context(&ram))
            .unwrap();
        done = 0;
        for (index, (client, got)) in clients.iter_mut().enumerate() {
            let mut bytes = [0; 4096];
            if let Ok(count) = client.read(&mut bytes) {
                got.extend_from_slice(&bytes[..count]);
            }
            let expected = payload(index);
            if let Some(at) = got.iter().position(|byte| *byte == b'\n') {
                assert!(got.starts_with(b"OK "));
                let echo = &got[at + 1..];
                assert_eq!(echo, &expected[..echo.len()], "stream {index}");
                done += usize::from(echo.len() == expected.len());
            }
        }
    }
    let DeviceCounters::Vsock(counters) = machine.vsock.counters() else {
        panic!("not a vsock's");
    };
    let bytes = (STREAMS * 800) as u64;
    assert_eq!((counters.rx_bytes, counters.tx_bytes), (bytes, bytes));
    assert_eq!((counters.opened, counters.streams), (300, 300));
    drop(clients);
    machine.vsock.reset();
    assert!(machine.vsock.connections.is_empty() && machine.vsock.ready.is_empty());
}

#[test]
fn a_guest_that_provokes_resets_and_takes_none_does_not_make_them_pile_up() {
    let ram = ram();
    let mut machine = Machine::new(&ram);
    // All receive buffers are used up by the first of them.
    for port in 0..2 * MAX_RESETS as u32 {
        machine.send(port, 9, Operation::Data, 0, b"x");
    }
    assert!(machine.vsock.resets.len() <= MAX_RESETS);
    for port in 0..600 {
        machine.send(port, 80, Operation::Request, 0, &[]);
        machine.host.guest_connects.pop();
        machine.send(port, 80, Operation::Response, 0, &[]);
    }
    assert!(machine.vsock.resets.len() <= MAX_RESETS);
    assert!(machine.vsock.connections.is_empty());
}
