//! The console with its file, its streams and both of its ports.

use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixStream;

use vm_memory::{Bytes, GuestAddress};

use super::device::VirtioConsole;
use super::ring::CAPACITY;
use super::serial::{com1, type_into};
use super::*;
use crate::devices::Device;
use crate::devices::testing::{Driver, Host, READ, WRITE, ram};

fn event() -> EventFd {
    EventFd::new(EFD_NONBLOCK).unwrap()
}

fn to_file() -> (ConsoleEnd, Console) {
    Console::new(tempfile::tempfile().unwrap().into(), 0).unwrap()
}

fn attached(console: &mut Console, poller: &Poller) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    console.attach(ours.into(), poller).unwrap();
    theirs.set_nonblocking(true).unwrap();
    theirs
}

fn text(mut stream: &UnixStream) -> String {
    let mut bytes = vec![0; 1 << 20];
    let count = stream.read(&mut bytes).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

const READABLE: Readiness = Readiness {
    readable: true,
    writable: false,
    hang_up: false,
};

#[test]
fn a_file_is_cut_when_it_reaches_its_limit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("console");
    let file = File::options()
        .create(true)
        .append(true)
        .read(true)
        .open(&path)
        .unwrap();
    let (mut end, mut console) = Console::new(file.into(), 10_000).unwrap();
    for round in 0..4u8 {
        end.write_all(&[b'a' + round; 3000]).unwrap();
        assert!(console.drain(Duration::ZERO).unwrap());
    }
    assert_eq!(std::fs::read(&path).unwrap(), [b'd'; 3000]);
}

#[test]
fn a_full_pipe_loses_the_oldest_output_without_blocking() {
    let (mut reader, writer) = io::pipe().unwrap();
    let (mut end, mut console) = Console::new(OwnedFd::from(writer), 0).unwrap();
    for _ in 0..1000 {
        end.write_all(&[b'x'; 1000]).unwrap();
        console.drain(Duration::ZERO).unwrap();
    }
    end.write_all(b"last").unwrap();
    assert!(!console.drain(Duration::ZERO).unwrap());
    let mut bytes = vec![0; CAPACITY];
    let mut got = Vec::new();
    while !console.drain(Duration::ZERO).unwrap() {
        let count = reader.read(&mut bytes).unwrap();
        got.extend_from_slice(&bytes[..count]);
    }
    drop((console, end));
    reader.read_to_end(&mut got).unwrap();
    assert!(got.ends_with(b"xlast"));
}

#[test]
fn a_closed_pipe_is_an_error_that_leaves_nothing_waiting() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let (mut end, mut console) = Console::new(OwnedFd::from(writer), 0).unwrap();
    end.write_all(b"x").unwrap();
    assert!(console.drain(Duration::ZERO).is_err());
    assert!(console.drain(Duration::ZERO).unwrap());
}

#[test]
fn the_loop_is_told_once_of_output_and_again_after_it_has_looked() {
    let (mut end, mut console) = to_file();
    end.write_all(b"one").unwrap();
    end.write_all(b"two").unwrap();
    assert_eq!(console.kick().read().unwrap(), 1);
    console.drain(Duration::ZERO).unwrap();
    end.write_all(b"three").unwrap();
    assert_eq!(console.kick().read().unwrap(), 1);
}

#[test]
fn bytes_written_to_the_data_register_come_out_and_typed_ones_are_read_from_it() {
    let (end, mut console) = to_file();
    let poller = Poller::new().unwrap();
    let mut port = com1(event(), end.clone());
    for byte in b"login: " {
        port.write(0, *byte).unwrap();
    }
    let mut stream = attached(&mut console, &poller);
    assert_eq!(text(&stream), "login: ");
    let name = [b'r'; 100];
    stream.write_all(&name).unwrap();
    console.stream_ready(0, READABLE);
    let mut got = Vec::new();
    while got.len() < name.len() {
        assert!(end.read(|typed| type_into(&mut port, typed)) > 0);
        while port.read(5) & 1 != 0 {
            got.push(port.read(0));
        }
    }
    assert_eq!(got, name);
}

#[test]
fn a_late_reader_gets_the_last_output_and_a_slow_one_loses_some() {
    let (mut end, mut console) = to_file();
    let poller = Poller::new().unwrap();
    end.write_all(&vec![b'a'; CAPACITY]).unwrap();
    end.write_all(b"late").unwrap();
    console.drain(Duration::ZERO).unwrap();
    let late = attached(&mut console, &poller);
    let got = text(&late);
    assert!(got.len() <= CAPACITY && got.ends_with("late") && got.starts_with("aaa"));
    for _ in 0..100 {
        end.write_all(&[b'b'; 8000]).unwrap();
        console.drain(Duration::ZERO).unwrap();
    }
    end.write_all(b"end").unwrap();
    console.drain(Duration::ZERO).unwrap();
    let mut got = String::new();
    while !got.ends_with("end") {
        got.push_str(&text(&late));
        console.stream_ready(
            0,
            Readiness {
                writable: true,
                ..Readiness::default()
            },
        );
    }
    assert!(got.len() < 800_000);
}

#[test]
fn streams_are_counted_and_closed_ones_make_room() {
    let (_end, mut console) = to_file();
    let poller = Poller::new().unwrap();
    let streams: Vec<_> = (0..8).map(|_| attached(&mut console, &poller)).collect();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    assert!(console.attach(ours.into(), &poller).is_err());
    drop(streams);
    console.drain(Duration::ZERO).unwrap();
    attached(&mut console, &poller);
    let (pipe, _writer) = io::pipe().unwrap();
    assert!(console.attach(pipe.into(), &poller).is_err());
}

#[test]
fn a_guest_that_does_not_read_bounds_what_is_taken_from_its_typists() {
    let (end, mut console) = to_file();
    let poller = Poller::new().unwrap();
    let mut stream = attached(&mut console, &poller);
    let typed = vec![b'k'; 3 * INPUT];
    assert!(stream.write(&typed).unwrap() > 2 * INPUT);
    console.stream_ready(0, READABLE);
    assert_eq!(lock(&console.shared).input.len(), INPUT);
    console.drain(Duration::ZERO).unwrap();
    assert_eq!(lock(&console.shared).input.len(), INPUT);
    assert_eq!(end.read(<[u8]>::len), INPUT);
    console.drain(Duration::ZERO).unwrap();
    assert_eq!(lock(&console.shared).input.len(), INPUT);
}

#[test]
fn the_virtio_console_prints_into_the_same_ring_and_reads_once_it_has_printed() {
    let (end, mut console) = to_file();
    let ram = ram();
    let mut host = Host::new();
    let (mut rx, mut tx) = (Driver::new(&ram, 0), Driver::new(&ram, 0x1_0000));
    let (mut device, _) = VirtioConsole::new(&end);
    let queues = vec![rx.live(), tx.live()].into();
    device.activate(0, queues, &mut host.context(&ram)).unwrap();
    let mut stream = attached(&mut console, &host.poller);
    rx.offer(&[(0x10_0000, 16, WRITE)]);
    stream.write_all(b"to the serial port").unwrap();
    console.stream_ready(0, READABLE);
    device.queue_ready(0, &mut host.context(&ram)).unwrap();
    assert_eq!(rx.used().0, 0);
    assert_eq!(end.read(<[u8]>::len), 18);

    ram.write_slice(b"hvc0", GuestAddress(0x20_0000)).unwrap();
    tx.offer(&[(0x20_0000, 4, READ)]);
    // Hostile ones come back.
    tx.offer(&[(u64::MAX, 4, READ)]);
    tx.offer(&[(0x20_0000, 4, WRITE)]);
    device.queue_ready(1, &mut host.context(&ram)).unwrap();
    assert_eq!(tx.used().0, 3);
    console.drain(Duration::ZERO).unwrap();
    assert_eq!(text(&stream), "hvc0");
    stream.write_all(b"0123456789abcdefXYZ").unwrap();
    console.stream_ready(0, READABLE);
    device
        .io_ready(0, READABLE, &mut host.context(&ram))
        .unwrap();
    assert_eq!(rx.used(), (1, 0, 16));
    rx.offer(&[(0x10_0000, 16, READ)]);
    rx.offer(&[(0x10_0000, 16, WRITE)]);
    device.queue_ready(0, &mut host.context(&ram)).unwrap();
    assert_eq!((rx.used().0, rx.used().2), (3, 3));
    let mut bytes = [0; 3];
    ram.read_slice(&mut bytes, GuestAddress(0x10_0000)).unwrap();
    assert_eq!(&bytes, b"XYZ");
}
