//! Machines as the agent starts them: confined, over a control socket; and copies of one snapshot.

use std::fs::{self, File};
use std::io::{PipeReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use command_fds::{CommandFdExt as _, FdMapping};
use crn_protocol::control::{
    self, ConsoleSpec, Descriptor, Hardware, MemoryBacking, Report, Request, RestoreSpec,
    SnapshotSpec, Transport, VmSpec, VsockSpec,
};
use crn_protocol::descriptors::{Receiver, send_with};
use crn_protocol::devices::Limits;
use crn_protocol::lines::encode;
use crn_protocol::start::first_of_a_namespace;

use super::entry::Entries;
use super::{Measured, Plan, await_marker, monotonic};

/// Copies that run at once.
pub const COPIES: u32 = 50;
/// Machines that are started at once.
pub const AT_ONCE: u32 = 20;
/// The first user and group of a monitor.
const IDENTITY: u32 = 1_900_000_000;
/// After this long a machine without work has done what comes after its start.
const SETTLED: Duration = Duration::from_secs(1);
/// No answer takes longer, by the machine's clock.
const PATIENCE: Duration = Duration::from_secs(60);
/// Has the guest stay when it is up.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 crn.wait";

/// One of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A new process and a kernel, to the first entry of the guest.
    Launch,
    /// A new process and a snapshot.
    Restore,
    /// A process that waits and a snapshot.
    RestoreReserve,
    /// What copies take of the host's memory.
    Memory,
    /// A start beside no other, to the guest's first words.
    Alone,
    /// Many starts at once.
    AtOnce,
}

impl Step {
    /// What its result is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Restore => "restore",
            Self::RestoreReserve => "restore, in reserve",
            Self::Memory => "memory",
            Self::Alone => "alone",
            Self::AtOnce => "at once",
        }
    }

    /// Measures: nanoseconds, and KiB a copy of [`Step::Memory`].
    pub fn measure(self, plan: &Plan, vmm: &str, snapshot: &Snapshot) -> Result<Measured> {
        let value = match self {
            Self::Launch => {
                let entries = Entries::watch()?;
                let started = monotonic()?;
                let mut monitor = Monitor::start(vmm, 0)?;
                monitor.launch(plan.guest_mib)?;
                monitor.entered(entries, started)?
            }
            Self::Restore => {
                let entries = Entries::watch()?;
                let started = monotonic()?;
                let mut monitor = Monitor::start(vmm, 0)?;
                monitor.restore(plan.guest_mib, snapshot)?;
                monitor.entered(entries, started)?
            }
            Self::RestoreReserve => {
                let mut monitor = Monitor::start(vmm, 0)?;
                monitor.ask(Request::Status, &[])?;
                let entries = Entries::watch()?;
                let started = monotonic()?;
                monitor.restore(plan.guest_mib, snapshot)?;
                monitor.entered(entries, started)?
            }
            Self::Memory => each_copy(plan, vmm, snapshot)?,
            Self::Alone => slowest(plan, vmm, 1)?,
            Self::AtOnce => slowest(plan, vmm, AT_ONCE)?,
        };
        Ok(Measured::Named {
            name: self.name().to_owned(),
            value,
        })
    }
}

/// KiB that the host has less for each copy but the first.
fn each_copy(plan: &Plan, vmm: &str, snapshot: &Snapshot) -> Result<u64> {
    let mut copies = Vec::new();
    let mut first = 0;
    for number in 0..COPIES {
        let mut monitor = Monitor::start(vmm, number)?;
        monitor.restore(plan.guest_mib, snapshot)?;
        copies.push(monitor);
        if number == 0 {
            std::thread::sleep(SETTLED);
            first = available_kib()?;
        }
    }
    std::thread::sleep(SETTLED);
    let taken = first.saturating_sub(available_kib()?);
    for copy in copies {
        copy.end()?;
    }
    Ok(taken / u64::from(COPIES - 1))
}

/// Starts so many machines at once; nanoseconds until the last guest has said its first words.
fn slowest(plan: &Plan, vmm: &str, count: u32) -> Result<u64> {
    let started = Instant::now();
    let one = |number| -> Result<(Monitor, Duration)> {
        let mut monitor = Monitor::start(vmm, number)?;
        let mut console = monitor.launch(plan.guest_mib)?;
        await_marker(&mut console, &plan.marker, || {})?;
        Ok((monitor, started.elapsed()))
    };
    std::thread::scope(|scope| {
        let starts: Vec<_> = (0..count)
            .map(|number| scope.spawn(move || one(number)))
            .collect();
        let mut slowest = Duration::ZERO;
        for start in starts {
            let Ok(started) = start.join() else {
                bail!("a start panicked");
            };
            let (monitor, took) = started?;
            slowest = slowest.max(took);
            monitor.end()?;
        }
        Ok(u64::try_from(slowest.as_nanos())?)
    })
}

fn available_kib() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.context("no MemAvailable")?.parse()?)
}

/// A snapshot's two files.
pub struct Snapshot {
    state: File,
    memory: File,
}

impl Snapshot {
    /// Of a guest that is up and has nothing to do.
    pub fn take(plan: &Plan, vmm: &str) -> Result<Self> {
        let mut monitor = Monitor::start(vmm, 0)?;
        let mut console = monitor.launch(plan.guest_mib)?;
        await_marker(&mut console, &plan.marker, || {})?;
        std::thread::sleep(SETTLED);
        monitor.ask(Request::Pause, &[])?;
        let create = |path| {
            let mut options = File::options();
            options.create_new(true).read(true).write(true).open(path)
        };
        let snapshot = Self {
            state: create("/tmp/state")?,
            memory: create("/tmp/memory")?,
        };
        let spec = SnapshotSpec {
            state: Descriptor(0),
            memory: Descriptor(1),
            differences: false,
        };
        let files = [&snapshot.state, &snapshot.memory].map(File::try_clone);
        let [state, memory] = files;
        monitor.ask(Request::Snapshot(spec), &[state?.into(), memory?.into()])?;
        monitor.end()?;
        Ok(snapshot)
    }
}

/// A confined `crn-vmm` and the connection to it.
struct Monitor {
    child: Child,
    control: UnixStream,
    receiver: Receiver,
    number: u32,
}

impl Monitor {
    fn start(vmm: &str, number: u32) -> Result<Self> {
        let path = format!("/tmp/control{number}.sock");
        // One that was ended has left it.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).context("listen for a monitor")?;
        let identity = (IDENTITY + number).to_string();
        let mut command = Command::new(vmm);
        command
            .args(["--control-fd", "3", "--uid", &identity, "--gid", &identity])
            .stdin(Stdio::null())
            .fd_mappings(vec![FdMapping {
                parent_fd: OwnedFd::from(listener),
                child_fd: 3,
            }])?;
        let child = first_of_a_namespace(|| command.spawn()).context("start a monitor")?;
        let control = UnixStream::connect(&path).context("connect to a monitor")?;
        control.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            child,
            control,
            receiver: Receiver::default(),
            number,
        })
    }

    fn ask(&mut self, request: Request, files: &[OwnedFd]) -> Result<()> {
        let line = encode(&control::Command { id: 1, request })?;
        let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
        let sent = send_with(&self.control, &line, &files)?;
        self.control.write_all(&line[sent..])?;
        loop {
            match self.receiver.next()? {
                Some(Report::Reply(reply)) => {
                    reply.result.map_err(anyhow::Error::msg)?;
                    return Ok(());
                }
                Some(Report::Event(event)) => bail!("unexpected: {event:?}"),
                None if self.receiver.read(&self.control)? == 0 => bail!("the monitor is gone"),
                None => {}
            }
        }
    }

    /// The descriptors of all that a machine has besides its kernel or snapshot, and the console's other end.
    fn files(&self) -> Result<([OwnedFd; 3], PipeReader)> {
        let path = format!("/tmp/vsock{}.sock", self.number);
        let _ = fs::remove_file(&path);
        let vsock = UnixListener::bind(path).context("listen for vsock clients")?;
        let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
        let (console, output) = std::io::pipe().context("make a console")?;
        Ok(([kvm.into(), output.into(), vsock.into()], console))
    }

    /// Boots; the console.
    fn launch(&mut self, guest_mib: u64) -> Result<PipeReader> {
        let ([kvm, output, vsock], console) = self.files()?;
        let spec = VmSpec {
            hardware: hardware(guest_mib)?,
            memory_backing: MemoryBacking::Thp,
            kernel: Descriptor(3),
            initramfs: Some(Descriptor(4)),
            cmdline: CMDLINE.to_owned(),
        };
        let (kernel, initramfs) = (File::open("/vmlinux")?, File::open("/initramfs")?);
        let files = [kvm, output, vsock, kernel.into(), initramfs.into()];
        self.ask(Request::Launch(Box::new(spec)), &files)?;
        Ok(console)
    }

    /// Goes on from a snapshot. Nobody reads what it prints, and the monitor bears that.
    fn restore(&mut self, guest_mib: u64, snapshot: &Snapshot) -> Result<()> {
        let ([kvm, output, vsock], _) = self.files()?;
        let spec = RestoreSpec {
            hardware: hardware(guest_mib)?,
            state: Descriptor(3),
            memory: Descriptor(4),
        };
        let (state, memory) = (snapshot.state.try_clone()?, snapshot.memory.try_clone()?);
        let files = [kvm, output, vsock, state.into(), memory.into()];
        self.ask(Request::Restore(Box::new(spec)), &files)
    }

    /// Nanoseconds until its guest was first entered; ends it.
    fn entered(self, entries: Entries, started: u64) -> Result<u64> {
        let entry = entries.first();
        self.end()?;
        Ok(entry?.saturating_sub(started))
    }

    fn end(mut self) -> Result<()> {
        self.child.kill().context("end a monitor")?;
        self.child.wait()?;
        Ok(())
    }
}

fn hardware(guest_mib: u64) -> Result<Hardware> {
    Ok(Hardware {
        vm: "bench".to_owned(),
        vcpus: 1,
        memory_mib: u32::try_from(guest_mib)?,
        transport: Transport::Mmio,
        kvm: Descriptor(0),
        disks: Vec::new(),
        nics: Vec::new(),
        vsock: Some(VsockSpec {
            cid: 3,
            listener: Descriptor(2),
        }),
        balloon: None,
        pmem: Vec::new(),
        entropy: Limits::default(),
        console: ConsoleSpec {
            output: Descriptor(1),
            max_bytes: 0,
            virtio: false,
        },
    })
}
