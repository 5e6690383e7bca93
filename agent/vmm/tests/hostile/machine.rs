//! A machine with one device of each kind that is asked for, watched until its end.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Child;
use std::time::{Duration, Instant};

use crn_protocol::control::{
    Command, ConsoleSpec, Descriptor, DiskSpec, Event, ExitReason, Hardware, MemoryBacking,
    NicSpec, Report, Request, Transport, VmSpec, VsockSpec,
};
use crn_protocol::descriptors::{Receiver, send_with};
use crn_protocol::devices::{BalloonSpec, Engine, Limits, NicLimits, PmemSpec};
use crn_protocol::lines::encode;

use crate::driver::{Kind, MAGIC};
use crate::support::{self, LOAD};
use crate::{MEMORY_MIB, guest};

/// All cases of a bus take a few seconds; a machine that takes so long hangs.
const PATIENCE: Duration = Duration::from_secs(300);
const GLANCE: Duration = Duration::from_millis(20);

pub struct Machine {
    stream: UnixStream,
    receiver: Receiver,
    vmm: Child,
    directory: tempfile::TempDir,
}

pub struct Ended {
    pub reason: ExitReason,
    pub detail: String,
    pub console: Vec<u8>,
    pub log_bytes: usize,
    pub most_resident_kib: u64,
    pub most_descriptors: usize,
}

/// Descriptors in the order in which the description names them.
#[derive(Default)]
struct Files(Vec<OwnedFd>);

impl Files {
    fn keep(&mut self, file: impl Into<OwnedFd>) -> Descriptor {
        self.0.push(file.into());
        Descriptor(u8::try_from(self.0.len() - 1).unwrap())
    }
}

impl Machine {
    /// `None` where there is no KVM.
    pub fn launch(transport: Transport, kinds: &[Kind], steps: &[u8]) -> Option<Self> {
        let kvm = support::kvm()?;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let log = File::create(directory.path().join("log")).unwrap();
        let vmm = support::vmm(UnixListener::bind(&path).unwrap().into(), log.into());
        let stream = UnixStream::connect(&path).unwrap();
        let mut files = Files::default();
        let console = File::options()
            .create(true)
            .append(true)
            .read(true)
            .open(directory.path().join("console"))
            .unwrap();
        let has = |kind| kinds.contains(&kind);
        let mut disks = Vec::new();
        for (kind, serial) in [(Kind::Disk, "disk"), (Kind::ReadOnlyDisk, "read-only")] {
            if has(kind) {
                disks.push(DiskSpec {
                    file: files.keep(image(0x1_0000)),
                    read_only: kind == Kind::ReadOnlyDisk,
                    serial: serial.to_owned(),
                    engine: Engine::Auto,
                    limits: Limits::default(),
                });
            }
        }
        let kvm = files.keep(kvm);
        let kernel = support::kernel(&[(LOAD, guest::code()), (guest::STEPS, steps)]);
        let kernel = files.keep(kernel);
        let hardware = Hardware {
            vm: "hostile".to_owned(),
            vcpus: 1,
            memory_mib: MEMORY_MIB,
            transport,
            kvm,
            disks,
            nics: has(Kind::Net)
                .then(|| NicSpec {
                    taps: vec![files.keep(tap())],
                    mac: [2, 0, 0, 0, 0, 1],
                    mtu: 1500,
                    limits: NicLimits::default(),
                })
                .into_iter()
                .collect(),
            vsock: has(Kind::Vsock).then(|| VsockSpec {
                cid: 3,
                listener: files.keep(UnixListener::bind(directory.path().join("vsock")).unwrap()),
            }),
            balloon: has(Kind::Balloon).then(BalloonSpec::default),
            pmem: has(Kind::Pmem)
                .then(|| PmemSpec {
                    file: files.keep(image(0x20_0000)),
                })
                .into_iter()
                .collect(),
            entropy: Limits::default(),
            console: ConsoleSpec {
                output: files.keep(console),
                max_bytes: 0,
                virtio: has(Kind::Console),
            },
        };
        let spec = VmSpec {
            hardware,
            memory_backing: MemoryBacking::Thp,
            kernel,
            initramfs: None,
            cmdline: String::new(),
        };
        let machine = Self {
            stream,
            receiver: Receiver::default(),
            vmm,
            directory,
        };
        let request = Request::Launch(Box::new(spec));
        let line = encode(&Command { id: 1, request }).unwrap();
        let files: Vec<_> = files.0.iter().map(AsFd::as_fd).collect();
        let sent = send_with(&machine.stream, &line, &files).unwrap();
        (&machine.stream).write_all(&line[sent..]).unwrap();
        Some(machine)
    }

    /// Holds the other ends of what the guest connects to until the machine is gone, and looks at the process meanwhile.
    pub fn run_to_its_end(mut self) -> Ended {
        self.stream.set_read_timeout(Some(GLANCE)).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let (mut connections, mut said) = (Vec::new(), None);
        let (mut most_resident_kib, mut most_descriptors) = (0, 0);
        loop {
            let pid = self.vmm.id();
            most_resident_kib = most_resident_kib.max(resident_kib(pid).unwrap_or(0));
            let open = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
            most_descriptors = most_descriptors.max(open);
            match self.receiver.read(&self.stream) {
                Ok(0) => break,
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break,
                _ => {}
            }
            while let Some(report) = self.receiver.next().unwrap() {
                match report {
                    Report::Reply(reply) => assert!(reply.result.unwrap().running),
                    Report::Event(Event::GuestConnect { .. }) => {
                        connections.extend(self.receiver.take(1).unwrap());
                        // The oldest are closed: a peer that goes is part of the game.
                        if connections.len() > 100 {
                            connections.remove(0);
                        }
                    }
                    Report::Event(Event::Exited { reason, detail }) => {
                        said = Some((reason, detail))
                    }
                    Report::Event(event) => panic!("unexpected: {event:?}"),
                }
            }
            if Instant::now() > deadline {
                self.vmm.kill().unwrap();
                let console = String::from_utf8_lossy(&self.console()).into_owned();
                panic!("the machine hangs after {console}");
            }
        }
        let status = self.vmm.wait().unwrap();
        let (reason, detail) = said.unwrap_or_else(|| {
            panic!(
                "the monitor ended without a word: {status}, after {} bytes",
                self.console().len()
            )
        });
        assert_eq!(status.code(), Some(i32::from(reason.code())), "{status}");
        Ended {
            reason,
            detail,
            console: self.console(),
            log_bytes: fs::read(self.directory.path().join("log")).unwrap().len(),
            most_resident_kib,
            most_descriptors,
        }
    }

    fn console(&self) -> Vec<u8> {
        fs::read(self.directory.path().join("console")).unwrap()
    }
}

/// So many bytes, the first of which are the magic word.
fn image(length: u64) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&MAGIC.to_le_bytes()).unwrap();
    file.set_len(length).unwrap();
    file.rewind().unwrap();
    file
}

/// A TAP device that is never up, and goes with its descriptor.
fn tap() -> File {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    let options = || File::options().read(true).write(true).clone();
    let tap = options().open("/dev/net/tun").unwrap();
    // SAFETY: an ifreq is plain data; all zeros is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).unwrap();
    // SAFETY: TUNSETIFF reads and fills the ifreq it is given; the pointer is valid for the call.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETIFF, &raw mut request) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    tap
}

fn resident_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
