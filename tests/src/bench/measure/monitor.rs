//! A confined `crn-vmm` behind a control socket, as the agent has them.

use std::fs::{self, File};
use std::io::{PipeReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use command_fds::{CommandFdExt as _, FdMapping};
use crn_protocol::control::{
    self, ConsoleSpec, Descriptor, DiskSpec, Event, Hardware, MemoryBacking, Report, Request,
    RestoreSpec, SnapshotSpec, Transport, VmSpec, VsockSpec,
};
use crn_protocol::descriptors::{Receiver, send_with};
use crn_protocol::devices::{Engine, Limits};
use crn_protocol::lines::encode;
use crn_protocol::start::first_of_a_namespace;

use super::entry::Entries;

/// After this long a machine without work has done what comes after its start.
pub const SETTLED: Duration = Duration::from_secs(1);
/// The first user and group of a monitor.
const IDENTITY: u32 = 1_900_000_000;
/// No answer takes longer, by the machine's clock.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a machine has beside its memory.
#[derive(Debug, Clone, Copy)]
pub struct Board {
    /// Where its initramfs is.
    pub initramfs: &'static str,
    /// Its kernel's command line.
    pub cmdline: &'static str,
    /// Where its disks are, with their serials; it can only read them.
    pub disks: &'static [(&'static str, &'static str)],
}

/// A snapshot's two files.
pub struct Snapshot {
    state: File,
    memory: File,
}

/// A confined `crn-vmm` and the connection to it.
pub struct Monitor {
    child: Child,
    control: UnixStream,
    receiver: Receiver,
    number: u32,
}

impl Monitor {
    /// Starts a process that waits for its machine; `number` is in its user's name and its sockets'.
    pub fn start(vmm: &str, number: u32) -> Result<Self> {
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

    /// Asks it and waits for its yes.
    pub fn ask(&mut self, request: Request, files: &[OwnedFd]) -> Result<()> {
        let line = encode(&control::Command { id: 1, request })?;
        let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
        let sent = send_with(&self.control, &line, &files)?;
        self.control.write_all(&line[sent..])?;
        match self.next()? {
            Report::Reply(reply) => reply.result.map(drop).map_err(anyhow::Error::msg),
            Report::Event(event) => bail!("unexpected: {event:?}"),
        }
    }

    fn next(&mut self) -> Result<Report> {
        loop {
            if let Some(report) = self.receiver.next()? {
                return Ok(report);
            }
            ensure!(
                self.receiver.read(&self.control)? > 0,
                "the monitor is gone"
            );
        }
    }

    /// The guest's connection to the host's port, which is the next thing to happen.
    pub fn guest(&mut self, port: u32) -> Result<UnixStream> {
        match self.next()? {
            Report::Event(Event::GuestConnect { port: found }) if found == port => {}
            other => bail!("unexpected: {other:?}"),
        }
        let stream = self.receiver.take(1).and_then(|mut streams| streams.pop());
        let stream = UnixStream::from(stream.context("no stream came with it")?);
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// A connection to the guest's port.
    pub fn connect(&self, port: u32) -> Result<UnixStream> {
        let mut stream = UnixStream::connect(self.vsock()).context("connect to the guest")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
        let mut answer = [0];
        let mut line = Vec::new();
        // One byte at a time: what follows is the guest's.
        while answer != *b"\n" {
            stream
                .read_exact(&mut answer)
                .context("the guest does not listen")?;
            line.extend(answer);
        }
        ensure!(line.starts_with(b"OK "), "the guest does not listen");
        Ok(stream)
    }

    fn vsock(&self) -> String {
        format!("/tmp/vsock{}.sock", self.number)
    }

    /// The machine's description and all that it names, and the console's other end.
    fn hardware(
        &self,
        guest_mib: u64,
        board: &Board,
    ) -> Result<(Hardware, Vec<OwnedFd>, PipeReader)> {
        // An earlier machine has left it.
        let _ = fs::remove_file(self.vsock());
        let vsock = UnixListener::bind(self.vsock()).context("listen for vsock clients")?;
        let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
        let (console, output) = std::io::pipe().context("make a console")?;
        let mut files = vec![kvm.into(), output.into(), vsock.into()];
        let mut disks = Vec::new();
        for (path, serial) in board.disks {
            disks.push(DiskSpec {
                file: Descriptor(u8::try_from(files.len())?),
                read_only: true,
                serial: (*serial).to_owned(),
                engine: Engine::Auto,
                limits: Limits::default(),
            });
            files.push(File::open(path).context(*path)?.into());
        }
        let hardware = Hardware {
            vm: "bench".to_owned(),
            vcpus: 1,
            memory_mib: u32::try_from(guest_mib)?,
            transport: Transport::Mmio,
            kvm: Descriptor(0),
            disks,
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
        };
        Ok((hardware, files, console))
    }

    /// Boots; the console.
    pub fn launch(&mut self, guest_mib: u64, board: &Board) -> Result<PipeReader> {
        let (hardware, mut files, console) = self.hardware(guest_mib, board)?;
        let next = u8::try_from(files.len())?;
        let spec = VmSpec {
            hardware,
            memory_backing: MemoryBacking::Thp,
            kernel: Descriptor(next),
            initramfs: Some(Descriptor(next + 1)),
            cmdline: board.cmdline.to_owned(),
        };
        files.push(File::open("/vmlinux")?.into());
        files.push(File::open(board.initramfs)?.into());
        self.ask(Request::Launch(Box::new(spec)), &files)?;
        Ok(console)
    }

    /// Goes on from a snapshot. Nobody reads what it prints, and the monitor bears that.
    pub fn restore(&mut self, guest_mib: u64, board: &Board, snapshot: &Snapshot) -> Result<()> {
        let (hardware, mut files, _) = self.hardware(guest_mib, board)?;
        let next = u8::try_from(files.len())?;
        let spec = RestoreSpec {
            hardware,
            state: Descriptor(next),
            memory: Descriptor(next + 1),
        };
        files.push(snapshot.state.try_clone()?.into());
        files.push(snapshot.memory.try_clone()?.into());
        self.ask(Request::Restore(Box::new(spec)), &files)
    }

    /// Writes the machine down once it has nothing to do any more, and ends it.
    pub fn snapshot(mut self) -> Result<Snapshot> {
        std::thread::sleep(SETTLED);
        self.ask(Request::Pause, &[])?;
        let create = |path| {
            let mut options = File::options();
            options.create_new(true).read(true).write(true).open(path)
        };
        let snapshot = Snapshot {
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
        self.ask(Request::Snapshot(spec), &[state?.into(), memory?.into()])?;
        self.end()?;
        Ok(snapshot)
    }

    /// Nanoseconds until its guest was first entered; ends it.
    pub fn entered(self, entries: Entries, started: u64) -> Result<u64> {
        let entry = entries.first();
        self.end()?;
        Ok(entry?.saturating_sub(started))
    }

    /// Ends it.
    pub fn end(mut self) -> Result<()> {
        self.child.kill().context("end a monitor")?;
        self.child.wait()?;
        Ok(())
    }
}
