//! What a controller can do to a running machine, in the sandbox and under the host's own KVM: with a guest of a hundred
//! bytes, so that it also runs where stock kernels do not. Without /dev/kvm, or without root, nothing is tested.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crn_protocol::control::{
    Command, ConsoleSpec, Descriptor, DiskSpec, Event, ExitReason, Hardware, MemoryBacking, Reply,
    Report, Request, Status, Transport, VmSpec,
};
use crn_protocol::descriptors::{Receiver, send_with};
use crn_protocol::devices::{Engine, Limits};
use crn_protocol::lines::encode;

const PATIENCE: Duration = Duration::from_secs(20);

/// The guest, in the order of its bytes:
/// ```text
/// start:  write '.' to COM1, count to 2000
///         read which PCI devices have come; for one, write '+' if its identity is a modern virtio-blk device's
///         read which are asked to leave; let them go, and write '-' if there were any
///         read the events; if the power button is among them and `obeys` is not 0, power off
///         jump to start
/// obeys:  0 or 1
/// ```
#[rustfmt::skip]
const GUEST: &[u8] = &[
    0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xb0, 0x2e, 0xee, // mov al, '.'; out dx, al
    0xb9, 0xd0, 0x07, 0x00, 0x00, // mov ecx, 2000
    0xff, 0xc9, 0x75, 0xfc, // dec ecx; jnz
    0x66, 0xba, 0x04, 0x06, 0xed, // mov dx, 0x604; in eax, dx
    0x0f, 0xbc, 0xd8, 0x74, 0x22, // bsf ebx, eax; jz
    0x89, 0xd8, 0xc1, 0xe0, 0x0b, // mov eax, ebx; shl eax, 11
    0x0d, 0x00, 0x00, 0x00, 0x80, // or eax, 1 << 31
    0x66, 0xba, 0xf8, 0x0c, 0xef, // mov dx, 0xcf8; out dx, eax
    0x66, 0xba, 0xfc, 0x0c, 0xed, // mov dx, 0xcfc; in eax, dx
    0x3d, 0xf4, 0x1a, 0x42, 0x10, 0x75, 0x07, // cmp eax, 0x10421af4; jne
    0x66, 0xba, 0xf8, 0x03, 0xb0, 0x2b, 0xee, // mov dx, 0x3f8; mov al, '+'; out dx, al
    0x66, 0xba, 0x08, 0x06, 0xed, // mov dx, 0x608; in eax, dx
    0x85, 0xc0, 0x74, 0x0c, // test eax, eax; jz
    0x66, 0xba, 0x0c, 0x06, 0xef, // mov dx, 0x60c; out dx, eax
    0x66, 0xba, 0xf8, 0x03, 0xb0, 0x2d, 0xee, // mov dx, 0x3f8; mov al, '-'; out dx, al
    0x66, 0xba, 0x03, 0x06, 0xec, // mov dx, 0x603; in al, dx
    0xa8, 0x01, 0x74, 0xa6, // test al, 1; jz start
    0x80, 0x3d, 0x0b, 0x00, 0x00, 0x00, 0x00, 0x74, 0x9d, // cmp byte [obeys], 0; je start
    0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee, // mov dx, 0x600; mov al, 0x34; out dx, al
    0xeb, 0x94, // jmp start
];

fn kernel(obeys: bool) -> File {
    let guest = [GUEST, &[u8::from(obeys)]].concat();
    support::kernel(&[(support::LOAD, &guest)])
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn disk(file: Descriptor, serial: &str) -> DiskSpec {
    DiskSpec {
        file,
        read_only: false,
        serial: serial.to_owned(),
        engine: Engine::default(),
        limits: Limits::default(),
    }
}

fn detach(serial: String, deadline_ms: Option<u64>) -> Request {
    Request::DetachDisk {
        serial,
        deadline_ms,
    }
}

/// A machine and its controller.
struct Machine {
    stream: UnixStream,
    receiver: Receiver,
    console: File,
    events: Vec<Event>,
    next: u64,
    vmm: Child,
}

impl Machine {
    /// `None` where there is no KVM.
    fn launch(transport: Transport, obeys: bool) -> Option<Self> {
        let kvm = support::kvm()?;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let vmm = support::vmm(listener.into(), Stdio::inherit());
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let log = directory.path().join("console");
        let open = || {
            let mut options = File::options();
            options.create(true).append(true).read(true);
            options.open(&log).unwrap()
        };
        let mut machine = Self {
            stream,
            receiver: Receiver::default(),
            console: open(),
            events: Vec::new(),
            next: 0,
            vmm,
        };
        let spec = VmSpec {
            hardware: Hardware {
                vm: "hot".to_owned(),
                vcpus: 1,
                memory_mib: 32,
                transport,
                kvm: Descriptor(2),
                disks: Vec::new(),
                nics: Vec::new(),
                vsock: None,
                balloon: None,
                pmem: Vec::new(),
                entropy: Limits::default(),
                console: ConsoleSpec {
                    output: Descriptor(1),
                    max_bytes: 0,
                    virtio: false,
                },
            },
            memory_backing: MemoryBacking::Thp,
            kernel: Descriptor(0),
            initramfs: None,
            cmdline: String::new(),
        };
        let (kernel, console) = (kernel(obeys), open());
        let request = Request::Launch(Box::new(spec));
        let launched = machine.ask(request, &[kernel.as_fd(), console.as_fd(), kvm.as_fd()]);
        let status = launched.unwrap();
        assert!(status.running && !status.paused);
        Some(machine)
    }

    fn ask(&mut self, request: Request, descriptors: &[BorrowedFd<'_>]) -> Result<Status, String> {
        self.next += 1;
        let id = self.next;
        let line = encode(&Command { id, request }).unwrap();
        let sent = send_with(&self.stream, &line, descriptors).unwrap();
        self.stream.write_all(&line[sent..]).unwrap();
        loop {
            match self.report() {
                Report::Reply(Reply { id: of, result }) if of == id => return result,
                Report::Reply(other) => panic!("an answer to something else: {other:?}"),
                Report::Event(event) => self.events.push(event),
            }
        }
    }

    fn report(&mut self) -> Report {
        loop {
            if let Some(report) = self.receiver.next().unwrap() {
                return report;
            }
            assert_ne!(self.receiver.read(&self.stream).unwrap(), 0, "it is gone");
        }
    }

    fn event(&mut self) -> Event {
        if !self.events.is_empty() {
            return self.events.remove(0);
        }
        match self.report() {
            Report::Event(event) => event,
            Report::Reply(reply) => panic!("an answer nobody waits for: {reply:?}"),
        }
    }

    /// What the guest has written since the last call.
    fn output(&mut self) -> String {
        let mut text = String::new();
        self.console.read_to_string(&mut text).unwrap();
        text
    }

    fn wait_for(&mut self, sign: char) {
        let deadline = Instant::now() + PATIENCE;
        while !self.output().contains(sign) {
            assert!(Instant::now() < deadline, "no {sign:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn end(mut self) -> (ExitReason, String) {
        let Event::Exited { reason, detail } = self.event() else {
            panic!("not the end");
        };
        let status = self.vmm.wait().unwrap();
        assert_eq!(status.code(), Some(i32::from(reason.code())), "{status}");
        (reason, detail)
    }
}

#[test]
fn a_paused_guest_stands_still_and_goes_on_when_it_is_resumed() {
    let Some(mut machine) = Machine::launch(Transport::Pci, false) else {
        return;
    };
    machine.wait_for('.');
    assert!(machine.ask(Request::Pause, &[]).unwrap().paused);
    assert!(machine.ask(Request::Pause, &[]).unwrap().paused, "twice");
    let exits = machine.ask(Request::Status, &[]).unwrap().exits;
    // What it had written before comes out within a batch, later on a busy host.
    let deadline = Instant::now() + PATIENCE;
    while !machine.output().is_empty() {
        assert!(Instant::now() < deadline, "it goes on writing");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(machine.ask(Request::Status, &[]).unwrap().exits, exits);
    assert!(!machine.ask(Request::Resume, &[]).unwrap().paused);
    machine.wait_for('.');
    machine.ask(Request::Pause, &[]).unwrap();
    machine.ask(Request::Stop, &[]).unwrap();
    assert_eq!(machine.end().0, ExitReason::Stopped);
}

#[test]
fn a_disk_comes_and_goes() {
    let Some(mut machine) = Machine::launch(Transport::Pci, false) else {
        return;
    };
    let image = file(&[0; 4096]);
    let attach = || Request::AttachDisk(disk(Descriptor(0), "data"));
    for _ in 0..3 {
        let status = machine.ask(attach(), &[image.as_fd()]).unwrap();
        assert!(status.devices.iter().any(|device| device.name == "data"));
        machine.wait_for('+');
        let again = machine.ask(attach(), &[image.as_fd()]).unwrap_err();
        assert!(again.contains("attached already"), "{again}");
        let serial = "data".to_owned();
        machine.ask(detach(serial, None), &[]).unwrap();
        let serial = "data".to_owned();
        assert_eq!(machine.event(), Event::DiskDetached { serial });
        machine.wait_for('-');
        let status = machine.ask(Request::Status, &[]).unwrap();
        assert!(status.devices.iter().all(|device| device.name != "data"));
    }
    let serial = "rng".to_owned();
    let refused = machine.ask(detach(serial, None), &[]);
    assert!(refused.unwrap_err().contains("no disk"));
    let lacking = Request::AttachDisk(disk(Descriptor(1), "data"));
    let lacking = machine.ask(lacking, &[image.as_fd()]).unwrap_err();
    assert!(lacking.contains("disk.file"), "{lacking}");
    machine.ask(Request::Stop, &[]).unwrap();
    assert_eq!(machine.end().0, ExitReason::Stopped);
}

#[test]
fn a_guest_that_does_not_let_a_disk_go_loses_it() {
    let Some(mut machine) = Machine::launch(Transport::Pci, false) else {
        return;
    };
    let (image, other) = (file(&[0; 4096]), file(&[0; 4096]));
    for (serial, image) in [("data", &image), ("other", &other)] {
        let attach = Request::AttachDisk(disk(Descriptor(0), serial));
        machine.ask(attach, &[image.as_fd()]).unwrap();
        machine.wait_for('+');
    }
    // Without its vCPU, the guest hears nothing.
    machine.ask(Request::Pause, &[]).unwrap();
    machine.output();
    machine
        .ask(detach("data".to_owned(), Some(50)), &[])
        .unwrap();
    let serial = "data".to_owned();
    assert_eq!(machine.event(), Event::DiskDetached { serial });
    let status = machine.ask(Request::Status, &[]).unwrap();
    let names = |status: &Status| -> Vec<String> {
        let names = status.devices.iter().map(|device| device.name.clone());
        names.collect()
    };
    assert!(!names(&status).contains(&"data".to_owned()));
    assert!(names(&status).contains(&"other".to_owned()));
    machine.ask(Request::Resume, &[]).unwrap();
    // Told to look, it finds nothing in that place; and it is not asked to let go what is there no more. It looks at one
    // place a round, so this one has to be over: what came first may be from before the pause.
    for _ in 0..3 {
        machine.wait_for('.');
    }
    let attach = Request::AttachDisk(disk(Descriptor(0), "data"));
    let status = machine.ask(attach, &[image.as_fd()]).unwrap();
    assert_eq!(names(&status).last().unwrap(), "data", "in a new place");
    machine.wait_for('+');
    assert!(!machine.output().contains('-'));
    machine.ask(Request::Stop, &[]).unwrap();
    assert_eq!(machine.end().0, ExitReason::Stopped);
}

#[test]
fn disks_do_not_come_and_go_on_mmio() {
    let Some(mut machine) = Machine::launch(Transport::Mmio, false) else {
        return;
    };
    let image = file(&[0; 4096]);
    let attach = Request::AttachDisk(disk(Descriptor(0), "data"));
    let refused = machine.ask(attach, &[image.as_fd()]).unwrap_err();
    assert!(refused.contains("PCI"), "{refused}");
    machine.ask(Request::Stop, &[]).unwrap();
    machine.end();
}

#[test]
fn a_guest_asked_to_power_off_does_or_is_stopped_at_the_deadline() {
    for (obeys, deadline_ms, reason) in [
        (true, 20_000, ExitReason::PowerOff),
        (false, 100, ExitReason::Stopped),
    ] {
        let Some(mut machine) = Machine::launch(Transport::Pci, obeys) else {
            return;
        };
        machine.wait_for('.');
        machine.ask(Request::PowerOff { deadline_ms }, &[]).unwrap();
        let (ended, detail) = machine.end();
        assert_eq!(ended, reason);
        assert_eq!(detail.contains("within 100 ms"), !obeys, "{detail}");
    }
}

#[test]
fn a_process_whose_controller_leaves_before_there_is_a_machine_ends() {
    if support::kvm().is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut vmm = support::vmm(listener.into(), Stdio::inherit());
    // One that is replaced by another one does not count.
    let first = UnixStream::connect(&path).unwrap();
    let second = UnixStream::connect(&path).unwrap();
    let mut second = BufReader::new(second);
    for id in 1..=2 {
        let request = Request::Status;
        let line = encode(&Command { id, request }).unwrap();
        second.get_mut().write_all(&line).unwrap();
        let mut answer = String::new();
        second.read_line(&mut answer).unwrap();
        assert!(answer.contains(&format!("\"id\":{id}")), "{answer:?}");
        // The first time, the other one is still there.
        let _ = first.shutdown(Shutdown::Both);
    }
    drop(second);
    let ended = vmm.wait().unwrap();
    assert_eq!(ended.code(), Some(i32::from(ExitReason::Stopped.code())));
}
