//! Machines in processes of their own, with what they print line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Stdio};
use std::time::Duration;

use crn_protocol::control::{
    Command, ConsoleSpec, Descriptor, Event, ExitReason, Hardware, MemoryBacking, Report, Request,
    RestoreSpec, SnapshotSpec, Status, Transport, VmSpec, VsockSpec,
};
use crn_protocol::descriptors::{Receiver, send_with};
use crn_protocol::devices::Limits;
use crn_protocol::lines::encode;

use crate::guest;
use crate::support::{self, LOAD};

/// A guest answers in milliseconds; one that takes so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);
pub const MEMORY_MIB: u32 = 64;

/// One line that the guest has printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Three sums of what has been typed.
    pub sums: [u64; 3],
    pub random: u64,
    pub generation: u64,
    pub events: u64,
    pub interrupts: u64,
}

pub struct Machine {
    stream: UnixStream,
    receiver: Receiver,
    next: u64,
    vmm: Child,
    console: BufReader<UnixStream>,
    directory: tempfile::TempDir,
}

/// A snapshot's two files.
pub struct Files {
    pub state: File,
    pub memory: File,
}

impl Files {
    pub fn empty() -> Self {
        let [state, memory] = [(), ()].map(|()| tempfile::tempfile().unwrap());
        Self { state, memory }
    }
}

impl Machine {
    /// A process without a machine.
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let vmm = support::vmm(listener.into(), Stdio::inherit());
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (ours, _) = UnixStream::pair().unwrap();
        Self {
            stream,
            receiver: Receiver::default(),
            next: 0,
            vmm,
            console: BufReader::new(ours),
            directory,
        }
    }

    fn console_file(&self) -> OwnedFd {
        let mut options = File::options();
        let path = self.directory.path().join("console");
        options.create(true).append(true).read(true);
        options.open(path).unwrap().into()
    }

    fn vsock(&self) -> OwnedFd {
        let path = self.directory.path().join("vsock");
        UnixListener::bind(path).unwrap().into()
    }

    /// `None` where there is no KVM.
    pub fn launch(transport: Transport) -> Option<Self> {
        let kvm = support::kvm()?;
        let mut machine = Self::start();
        let doorbell = guest::doorbell(transport, 1, 0).to_le_bytes();
        let kernel = support::kernel(&[
            (LOAD, guest::code()),
            (guest::DOORBELL, &doorbell),
            (guest::STORES, &guest::stores(transport)),
        ]);
        let spec = VmSpec {
            hardware: hardware(transport, "original", (3, 3), 2),
            memory_backing: MemoryBacking::Thp,
            kernel: Descriptor(1),
            initramfs: None,
            cmdline: String::new(),
        };
        let files = [
            kvm.into(),
            kernel.into(),
            machine.console_file(),
            machine.vsock(),
        ];
        machine
            .ask(Request::Launch(Box::new(spec)), &files)
            .unwrap();
        machine.attach();
        machine.read();
        Some(machine)
    }

    /// A copy, or why there is none. `change` has a word about its description.
    pub fn restore(
        files: &Files,
        transport: Transport,
        change: impl FnOnce(&mut RestoreSpec),
    ) -> Result<Self, String> {
        let kvm = support::kvm().unwrap();
        let mut machine = Self::start();
        let mut spec = RestoreSpec {
            hardware: hardware(transport, "copy", (4, 4), 3),
            state: Descriptor(1),
            memory: Descriptor(2),
        };
        change(&mut spec);
        let files = [
            kvm.into(),
            files.state.try_clone().unwrap().into(),
            files.memory.try_clone().unwrap().into(),
            machine.console_file(),
            machine.vsock(),
        ];
        match machine.ask(Request::Restore(Box::new(spec)), &files) {
            Ok(status) => assert!(status.running && !status.paused),
            Err(error) => {
                let end = machine.end();
                assert_eq!(end, (ExitReason::Failed, error.clone()));
                return Err(error);
            }
        }
        machine.attach();
        Ok(machine)
    }

    /// Sees all that is printed from the ring's beginning on.
    fn attach(&mut self) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let stream = Descriptor(0);
        self.ask(Request::AttachConsole { stream }, &[theirs.into()])
            .unwrap();
        self.console = BufReader::new(ours);
    }

    pub fn ask(&mut self, request: Request, descriptors: &[OwnedFd]) -> Result<Status, String> {
        self.next += 1;
        let id = self.next;
        let line = encode(&Command { id, request }).unwrap();
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        let sent = send_with(&self.stream, &line, &descriptors).unwrap();
        self.stream.write_all(&line[sent..]).unwrap();
        match self.report() {
            Report::Reply(reply) if reply.id == id => reply.result,
            other => panic!("no answer: {other:?}"),
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

    pub fn snapshot(&mut self) -> Result<Files, String> {
        let files = Files::empty();
        self.snapshot_into(&files)?;
        Ok(files)
    }

    pub fn snapshot_into(&mut self, files: &Files) -> Result<Status, String> {
        self.snapshot_with(files, false)
    }

    /// What has changed goes into a copy of another snapshot's memory file.
    pub fn differences_into(&mut self, files: &Files) -> Result<Status, String> {
        self.snapshot_with(files, true)
    }

    fn snapshot_with(&mut self, files: &Files, differences: bool) -> Result<Status, String> {
        let spec = SnapshotSpec {
            state: Descriptor(0),
            memory: Descriptor(1),
            differences,
        };
        let files = [&files.state, &files.memory].map(|file| file.try_clone().unwrap().into());
        self.ask(Request::Snapshot(spec), &files)
    }

    fn read(&mut self) -> String {
        let mut line = String::new();
        self.console.read_line(&mut line).unwrap();
        line
    }

    /// Types a letter; what the guest makes of it.
    pub fn type_letter(&mut self, letter: char) -> Line {
        let bytes = [letter as u8];
        self.console.get_ref().write_all(&bytes).unwrap();
        let line = self.read();
        let mut numbers = line
            .split_whitespace()
            .map(|word| u64::from_str_radix(word, 16).unwrap());
        let mut next = || numbers.next().unwrap();
        Line {
            sums: [next(), next(), next()],
            random: next(),
            generation: next(),
            events: next(),
            interrupts: next(),
        }
    }

    /// How it ended.
    pub fn end(&mut self) -> (ExitReason, String) {
        let Report::Event(Event::Exited { reason, detail }) = self.report() else {
            panic!("no end");
        };
        let status = self.vmm.wait().unwrap();
        assert_eq!(status.code(), Some(i32::from(reason.code())), "{status}");
        (reason, detail)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Only fails for one that has ended.
        let _ = self.vmm.kill();
        let _ = self.vmm.wait();
    }
}

/// A vsock device with a context identifier and a listener, and a console.
fn hardware(transport: Transport, vm: &str, (cid, listener): (u32, u8), output: u8) -> Hardware {
    Hardware {
        vm: vm.to_owned(),
        vcpus: 1,
        memory_mib: MEMORY_MIB,
        transport,
        kvm: Descriptor(0),
        disks: Vec::new(),
        nics: Vec::new(),
        vsock: Some(VsockSpec {
            cid,
            listener: Descriptor(listener),
        }),
        balloon: None,
        pmem: Vec::new(),
        entropy: Limits::default(),
        console: ConsoleSpec {
            output: Descriptor(output),
            max_bytes: 0,
            virtio: false,
        },
    }
}
