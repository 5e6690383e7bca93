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
    self, ConsoleSpec, Descriptor, DiskSpec, Event, ExitReason, Hardware, MemoryBacking, NicSpec,
    Report, Request, RestoreSpec, Status, Transport, VmSpec,
};
use crn_protocol::descriptors::{Receiver, send_with};
use crn_protocol::devices::{
    BalloonCounters, BalloonSpec, DeviceCounters, DiskCounters, Engine, Limits, NicLimits,
    PmemSpec, Rate,
};
use crn_protocol::lines::encode;
use crn_protocol::start::first_of_a_namespace;

use crate::{MIB, PATIENCE};

/// The user and group the VMM becomes, those of copies behind it.
const IDENTITY: u32 = 1_900_000_000;
const MEMORY_MIB: u32 = 192;

/// What is started, and with what.
#[derive(Clone, Copy)]
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

/// All descriptors have the same places, whether the guest boots or goes on from a snapshot.
fn disks(machine: &Machine<'_>) -> Vec<DiskSpec> {
    vec![
        disk_spec("data", 2, None),
        disk_spec("limited", 3, Some(machine.rate)),
    ]
}

fn nics(queues: usize) -> Vec<NicSpec> {
    vec![NicSpec {
        taps: (7..).map(Descriptor).take(queues).collect(),
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        limits: NicLimits::default(),
    }]
}

fn pmem() -> Vec<PmemSpec> {
    vec![PmemSpec {
        file: Descriptor(5),
    }]
}

const fn console() -> ConsoleSpec {
    ConsoleSpec {
        output: Descriptor(4),
        max_bytes: MIB,
        virtio: true,
    }
}

/// What both kinds of start have in common. The TAP's queues are `queues`.
fn hardware(machine: &Machine<'_>, vm: &str, queues: usize) -> Hardware {
    Hardware {
        vm: vm.to_owned(),
        // Emulation loses guests whose vCPUs wait for one another on one CPU.
        vcpus: 1,
        memory_mib: MEMORY_MIB,
        transport: machine.transport,
        kvm: Descriptor(6),
        disks: disks(machine),
        nics: nics(queues),
        vsock: None,
        balloon: Some(BalloonSpec::default()),
        pmem: pmem(),
        entropy: Limits::default(),
        console: console(),
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
    /// Where the console's output goes.
    log: String,
    next_id: u64,
}

impl Guest {
    /// A VMM without a machine. The original's number is 0.
    fn vmm(machine: &Machine<'_>, number: u8) -> Result<(Self, UnixStream)> {
        let (path, log) = (
            format!("/tmp/control{number}.sock"),
            format!("/tmp/console{number}"),
        );
        // What a check before this one has left.
        for left in [&path, &log] {
            fs::remove_file(left).ok();
        }
        let listener = UnixListener::bind(&path)?;
        let identity = (IDENTITY + u32::from(number)).to_string();
        let mut command = Command::new(machine.vmm);
        command
            .args(["--control-fd", "3", "--uid", &identity, "--gid", &identity])
            .stdin(Stdio::null())
            .fd_mappings(vec![FdMapping {
                parent_fd: OwnedFd::from(listener),
                child_fd: 3,
            }])?;
        let child = first_of_a_namespace(|| command.spawn()).context("start the VMM")?;
        let control = UnixStream::connect(&path)?;
        control.set_read_timeout(Some(PATIENCE))?;
        let (console, theirs) = UnixStream::pair()?;
        console.set_nonblocking(true)?;
        let guest = Self {
            vmm: child,
            control,
            receiver: Receiver::default(),
            console,
            said: String::new(),
            all: String::new(),
            log,
            next_id: 1,
        };
        Ok((guest, theirs))
    }

    /// The descriptors of all that a machine has besides its kernel and its TAP: disks, console, image, KVM.
    fn files(&self, machine: &Machine<'_>) -> Result<[OwnedFd; 5]> {
        let log = File::options()
            .create(true)
            .append(true)
            .read(true)
            .open(&self.log)?;
        let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
        Ok([
            machine.data.try_clone()?,
            machine.limited.try_clone()?,
            log,
            File::open(machine.image)?,
            kvm,
        ]
        .map(OwnedFd::from))
    }

    fn attach(&mut self, theirs: UnixStream) -> Result<()> {
        let stream = Request::AttachConsole {
            stream: Descriptor(0),
        };
        self.request_with(stream, &[theirs.into()])?;
        Ok(())
    }

    /// Starts it, `words` behind the others on the kernel's command line.
    pub fn start(machine: &Machine<'_>, taps: Vec<OwnedFd>, words: &str) -> Result<Self> {
        let (mut guest, theirs) = Self::vmm(machine, 0)?;
        let spec = VmSpec {
            hardware: hardware(machine, "device-check", taps.len()),
            memory_backing: MemoryBacking::Thp,
            kernel: Descriptor(0),
            initramfs: Some(Descriptor(1)),
            cmdline: format!("console=ttyS0 quiet panic=-1 {words}"),
        };
        let boot = [machine.kernel, machine.initramfs].map(File::open);
        let files: Vec<_> = boot
            .into_iter()
            .map(|file| file.map(OwnedFd::from))
            .chain(guest.files(machine)?.map(Ok))
            .chain(taps.into_iter().map(Ok))
            .collect::<std::io::Result<_>>()?;
        guest
            .request_with(Request::Launch(Box::new(spec)), &files)
            .context("launch")?;
        guest.attach(theirs)?;
        Ok(guest)
    }

    /// Starts one that goes on from a snapshot's state and memory.
    pub fn restore(
        machine: &Machine<'_>,
        taps: Vec<OwnedFd>,
        number: u8,
        snapshot: [&File; 2],
    ) -> Result<Self> {
        let (mut guest, theirs) = Self::vmm(machine, number)?;
        let spec = RestoreSpec {
            hardware: hardware(machine, &format!("copy-{number}"), taps.len()),
            state: Descriptor(0),
            memory: Descriptor(1),
        };
        let files: Vec<_> = snapshot
            .map(|file| file.try_clone().map(OwnedFd::from))
            .into_iter()
            .chain(guest.files(machine)?.map(Ok))
            .chain(taps.into_iter().map(Ok))
            .collect::<std::io::Result<_>>()?;
        guest
            .request_with(Request::Restore(Box::new(spec)), &files)
            .context("restore")?;
        guest.attach(theirs)?;
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
        self.wait_for(line, |said| said.find(line).map(|at| (at + line.len(), ())))
    }

    /// Waits until the guest says what something is.
    pub fn value(&mut self, name: &str) -> Result<String> {
        self.wait_for(name, |said| {
            let start = said.find(&format!("{name} "))?;
            let (line, _) = said[start..].split_once('\n')?;
            let value = line[name.len()..].trim().to_owned();
            Some((start + line.len(), value))
        })
    }

    /// Waits until `find` finds something in what has been said, and forgets that up to its end.
    fn wait_for<T>(&mut self, line: &str, find: impl Fn(&str) -> Option<(usize, T)>) -> Result<T> {
        let started = Instant::now();
        loop {
            if let Some((end, found)) = find(&self.said) {
                self.said.drain(..end);
                return Ok(found);
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
        Ok(fs::read_to_string(&self.log)?)
    }
}
