//! A machine under `crn-vmm` and its controller.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use command_fds::{CommandFdExt, FdMapping};
use crn_protocol::control::{
    self, ConsoleSpec, Descriptor, DiskSpec, Event, ExitReason, MemoryBacking, NicSpec, Report,
    Request, Status, Transport, VmSpec,
};
use crn_protocol::descriptors::{Receiver, send_with};
use crn_protocol::devices::{
    BalloonCounters, BalloonSpec, DeviceCounters, DiskCounters, Engine, Limits, NicLimits,
    PmemSpec, Rate,
};
use crn_protocol::lines::encode;
use crn_protocol::start::first_of_a_namespace;

use crate::{MIB, PATIENCE};

/// Where the console's output goes.
const LOG: &str = "/tmp/console";

/// The user and group the VMM becomes.
const IDENTITY: &str = "1900000000";

/// What is started, and with what.
pub struct Machine<'a> {
    /// The VMM, and the guest's kernel, initramfs and shared image.
    pub vmm: &'a str,
    pub kernel: &'a str,
    pub initramfs: &'a str,
    pub image: &'a str,
    pub transport: Transport,
    pub data: &'a File,
    pub limited: &'a File,
    /// Operations the second disk is let do.
    pub rate: Rate,
}

/// A disk as the guest is to see it; its file is the descriptor of this number.
pub fn disk_spec(serial: &str, file: u8, operations: Option<Rate>) -> DiskSpec {
    DiskSpec {
        file: Descriptor(file),
        read_only: false,
        serial: serial.to_owned(),
        engine: Engine::Auto,
        limits: Limits {
            bytes: None,
            operations,
        },
    }
}

/// A running guest, its control socket and its console.
pub struct Guest {
    vmm: Child,
    control: UnixStream,
    receiver: Receiver,
    console: UnixStream,
    /// What the guest has said and nobody has expected yet.
    said: String,
    /// Everything it has said.
    all: String,
    next_id: u64,
}

impl Guest {
    /// Starts it, `words` behind the others on the kernel's command line.
    pub fn start(machine: &Machine<'_>, taps: Vec<OwnedFd>, words: &str) -> Result<Self> {
        let path = "/tmp/control.sock";
        // What a check before this one has left.
        for left in [path, LOG] {
            fs::remove_file(left).ok();
        }
        let listener = UnixListener::bind(path)?;
        let mut command = Command::new(machine.vmm);
        command
            .args(["--control-fd", "3", "--uid", IDENTITY, "--gid", IDENTITY])
            .stdin(Stdio::null())
            .fd_mappings(vec![FdMapping {
                parent_fd: OwnedFd::from(listener),
                child_fd: 3,
            }])?;
        let child = first_of_a_namespace(|| command.spawn()).context("start the VMM")?;
        let control = UnixStream::connect(path)?;
        control.set_read_timeout(Some(PATIENCE))?;
        let (console, theirs) = UnixStream::pair()?;
        console.set_nonblocking(true)?;
        let mut guest = Self {
            vmm: child,
            control,
            receiver: Receiver::default(),
            console,
            said: String::new(),
            all: String::new(),
            next_id: 1,
        };
        let spec = VmSpec {
            vm: "device-check".to_owned(),
            // Emulation loses guests whose vCPUs wait for one another on one CPU.
            vcpus: 1,
            memory_mib: 192,
            memory_backing: MemoryBacking::Thp,
            transport: machine.transport,
            kvm: Descriptor(6),
            kernel: Descriptor(0),
            initramfs: Some(Descriptor(1)),
            cmdline: format!("console=ttyS0 quiet panic=-1 {words}"),
            disks: vec![
                disk_spec("data", 2, None),
                disk_spec("limited", 3, Some(machine.rate)),
            ],
            nics: vec![NicSpec {
                taps: (7..).map(Descriptor).take(taps.len()).collect(),
                mac: [2, 0, 0, 0, 0, 1],
                mtu: 1500,
                limits: NicLimits::default(),
            }],
            vsock: None,
            balloon: Some(BalloonSpec::default()),
            pmem: vec![PmemSpec {
                file: Descriptor(5),
            }],
            entropy: Limits::default(),
            console: ConsoleSpec {
                output: Descriptor(4),
                max_bytes: MIB,
                virtio: true,
            },
        };
        let log = File::options()
            .create(true)
            .append(true)
            .read(true)
            .open(LOG)?;
        let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
        let files = [
            File::open(machine.kernel)?,
            File::open(machine.initramfs)?,
            machine.data.try_clone()?,
            machine.limited.try_clone()?,
            log,
            File::open(machine.image)?,
            kvm,
        ];
        let files: Vec<_> = files.map(OwnedFd::from).into_iter().chain(taps).collect();
        guest
            .request_with(Request::Launch(Box::new(spec)), &files)
            .context("launch")?;
        let stream = Request::AttachConsole {
            stream: Descriptor(0),
        };
        guest.request_with(stream, &[theirs.into()])?;
        Ok(guest)
    }

    pub fn request(&mut self, request: Request) -> Result<Status> {
        self.request_with(request, &[])
    }

    pub fn request_with(&mut self, request: Request, files: &[OwnedFd]) -> Result<Status> {
        let id = self.next_id;
        self.next_id += 1;
        let line = encode(&control::Command { id, request })?;
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let sent = send_with(&self.control, &line, &files)?;
        self.control.write_all(&line[sent..])?;
        loop {
            match self.report()? {
                Report::Reply(reply) if reply.id == id => {
                    return reply.result.map_err(anyhow::Error::msg);
                }
                Report::Reply(_) => {}
                Report::Event(event) => bail!("unexpected: {event:?}"),
            }
        }
    }

    fn report(&mut self) -> Result<Report> {
        loop {
            if let Some(report) = self.receiver.next()? {
                return Ok(report);
            }
            ensure!(self.receiver.read(&self.control)? > 0, "the VMM is gone");
        }
    }

    pub fn counters(&mut self, name: &str) -> Result<DeviceCounters> {
        let status = self.request(Request::Status)?;
        let device = status.devices.into_iter().find(|one| one.name == name);
        Ok(device
            .with_context(|| format!("no device {name}"))?
            .counters)
    }

    pub fn disk(&mut self, name: &str) -> Result<DiskCounters> {
        match self.counters(name)? {
            DeviceCounters::Disk(counters) => Ok(counters),
            other => bail!("{other:?}"),
        }
    }

    pub fn balloon(&mut self) -> Result<BalloonCounters> {
        match self.counters("balloon")? {
            DeviceCounters::Balloon(counters) => Ok(counters),
            other => bail!("{other:?}"),
        }
    }

    /// The VMM's resident memory, guest memory included, bytes.
    pub fn rss(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.vmm.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib.context("no VmRSS")?.trim().parse::<u64>()? * 1024)
    }

    pub fn until<T>(
        &mut self,
        what: &str,
        mut check: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let started = Instant::now();
        loop {
            if let Some(value) = check(self)? {
                return Ok(value);
            }
            ensure!(started.elapsed() < PATIENCE, "{what}: not in time");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until the guest says a line.
    pub fn expect(&mut self, line: &str) -> Result<()> {
        let started = Instant::now();
        loop {
            if let Some(at) = self.said.find(line) {
                self.said.drain(..at + line.len());
                return Ok(());
            }
            let mut bytes = [0; 4096];
            match self.console.read(&mut bytes) {
                Ok(0) => bail!("the console ended before {line}: {}", self.all),
                Ok(count) => {
                    let text = String::from_utf8_lossy(&bytes[..count]);
                    self.said.push_str(&text);
                    self.all.push_str(&text);
                }
                Err(_) if started.elapsed() > PATIENCE || self.said.contains("FAILED") => {
                    bail!("the guest did not say {line}: {}", self.all);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Types a line, which the guest repeats.
    pub fn answer(&mut self) -> Result<()> {
        self.type_line("go on")?;
        self.expect("HEARD go on")
    }

    pub fn type_line(&mut self, line: &str) -> Result<()> {
        Ok(self.console.write_all(format!("{line}\n").as_bytes())?)
    }

    /// The next event.
    pub fn event(&mut self) -> Result<Event> {
        loop {
            match self.report()? {
                Report::Event(event) => return Ok(event),
                Report::Reply(_) => {}
            }
        }
    }

    /// Ends the VMM as a power failure would.
    pub fn kill(mut self) -> Result<()> {
        self.vmm.kill()?;
        self.vmm.wait()?;
        Ok(())
    }

    /// Waits until the guest has powered off; the console's file.
    pub fn end(mut self) -> Result<String> {
        match self.event()? {
            Event::Exited {
                reason: ExitReason::PowerOff,
                ..
            } => {}
            other => bail!("{other:?}: {}", self.all),
        }
        let status = self.vmm.wait()?;
        ensure!(status.success(), "{status}");
        Ok(fs::read_to_string(LOG)?)
    }
}
