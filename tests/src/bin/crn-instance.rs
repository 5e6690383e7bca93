//! Runs one instance under `crn-vmm` the way the agent does, without the agent: hands over descriptors, answers the
//! first stage's hello, shows the console, and ends the machine when it has shown what was waited for.
//!
//! Exit status: the machine's (0 powered off, 3 reset, 4 stopped), 1 when what was waited for never came.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use command_fds::{CommandFdExt, FdMapping};
use crn_protocol::control::{self, Event, ExitReason, Report, Request, VmSpec};
use crn_protocol::descriptors::{Receiver, send_with};
use crn_protocol::guest::{CONTROL_PORT, GuestConfig, ToGuest, Workload};
use crn_protocol::lines;
use crn_protocol::start::first_of_a_namespace;
use crn_tests::tap;
use serde_json::json;

/// The NIC's address.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// The user and group the monitor becomes.
const IDENTITY: &str = "1900000000";

/// Runs an instance under crn-vmm.
#[derive(Debug, Parser)]
struct Arguments {
    /// The monitor.
    #[arg(long)]
    vmm: PathBuf,
    /// The first stage's kernel.
    #[arg(long)]
    kernel: PathBuf,
    /// The first stage's initramfs.
    #[arg(long)]
    initramfs: PathBuf,
    /// Its arguments.
    #[arg(long, default_value = "console=ttyS0 loglevel=4 panic=-1")]
    cmdline: String,
    /// A raw image or block device; the first holds the root, the second (if any) the seed.
    #[arg(long = "disk", required = true)]
    disks: Vec<PathBuf>,
    /// vCPUs.
    #[arg(long, default_value_t = 1)]
    vcpus: u8,
    /// MiB.
    #[arg(long, default_value_t = 1024)]
    memory: u32,
    /// How devices are found.
    #[arg(long)]
    transport: Option<String>,
    /// A TAP queue inherited as this descriptor.
    #[arg(long, value_name = "N")]
    tap_fd: Option<i32>,
    /// Text the console must show, in this order; without any, the guest runs until it ends by itself.
    #[arg(long = "until")]
    until: Vec<String>,
    /// What ends the machine then.
    #[arg(long, value_enum, default_value = "stop")]
    end: End,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum End {
    /// At once.
    Stop,
    /// The power button; the guest has to answer it.
    PowerButton,
    /// The guest ends by itself.
    Wait,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut monitor = Monitor::start(&arguments)?;
    let (output, console) = std::io::pipe().context("make the console's pipe")?;
    monitor.launch(&arguments, console.into())?;
    let (end, wanted) = (arguments.end, arguments.until.clone());
    let control = monitor.socket.try_clone().context("the control socket")?;
    let watcher = thread::spawn(move || watch(output, &wanted, end, &control));
    let reason = monitor.serve()?;
    let seen = watcher
        .join()
        .map_err(|_| anyhow::anyhow!("the console's reader panicked"))??;
    if let Some(missing) = arguments.until.get(seen) {
        bail!("the machine ended ({reason:?}) and its console never showed {missing:?}");
    }
    Ok(ExitCode::from(reason.code()))
}

/// Copies the console; returns how many of the texts it has shown.
fn watch(
    mut output: impl Read,
    wanted: &[String],
    end: End,
    mut control: &UnixStream,
) -> Result<usize> {
    let mut seen = 0;
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let count = output.read(&mut chunk).context("read the console")?;
        if count == 0 {
            return Ok(seen);
        }
        let mut stdout = std::io::stdout();
        stdout.write_all(&chunk[..count])?;
        stdout.flush()?;
        text.extend_from_slice(&chunk[..count]);
        while let Some(next) = wanted.get(seen) {
            let Some(at) = find(&text, next.as_bytes()) else {
                break;
            };
            text.drain(..at + next.len());
            seen += 1;
            if seen == wanted.len() {
                let request = match end {
                    End::Stop => Request::Stop,
                    End::PowerButton => Request::PowerButton,
                    End::Wait => continue,
                };
                control.write_all(&lines::encode(&control::Command { id: 2, request })?)?;
            }
        }
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len())
        .position(|window| window == wanted)
}

/// The monitor's process and the way to it.
struct Monitor {
    child: Child,
    socket: UnixStream,
    receiver: Receiver,
    vsock: PathBuf,
    _directory: tempfile::TempDir,
}

impl Monitor {
    fn start(arguments: &Arguments) -> Result<Self> {
        let directory = tempfile::tempdir().context("make a directory")?;
        let path = directory.path().join("control");
        let listener = UnixListener::bind(&path).context("bind the control socket")?;
        let mut command = Command::new(&arguments.vmm);
        command
            .args(["--control-fd", "3", "--uid", IDENTITY, "--gid", IDENTITY])
            .stdin(Stdio::null())
            .fd_mappings(vec![FdMapping {
                parent_fd: listener.into(),
                child_fd: 3,
            }])
            .context("hand over the control socket")?;
        let child = first_of_a_namespace(|| command.spawn())
            .with_context(|| format!("start {}", arguments.vmm.display()))?;
        Ok(Self {
            child,
            socket: UnixStream::connect(&path).context("connect to the monitor")?,
            receiver: Receiver::default(),
            vsock: directory.path().join("vsock"),
            _directory: directory,
        })
    }

    fn launch(&mut self, arguments: &Arguments, console: OwnedFd) -> Result<()> {
        let mut descriptors: Vec<OwnedFd> = Vec::new();
        let mut keep = |descriptor: OwnedFd| {
            descriptors.push(descriptor);
            descriptors.len() - 1
        };
        let open = |path: &PathBuf, write: bool| {
            File::options()
                .read(true)
                .write(write)
                .open(path)
                .map(OwnedFd::from)
                .with_context(|| format!("open {}", path.display()))
        };
        let kvm = keep(open(&PathBuf::from("/dev/kvm"), true)?);
        let kernel = keep(open(&arguments.kernel, false)?);
        let initramfs = keep(open(&arguments.initramfs, false)?);
        let mut disks = Vec::new();
        for (path, serial) in arguments.disks.iter().zip(["root", "seed"]) {
            disks.push(
                json!({"file": keep(open(path, true)?), "read_only": false, "serial": serial}),
            );
        }
        let listener = UnixListener::bind(&self.vsock).context("bind the vsock listener")?;
        let mut nics = Vec::new();
        if let Some(fd) = arguments.tap_fd {
            let tap = keep(tap::inherited(fd).context("use --tap-fd")?);
            nics.push(json!({"taps": [tap], "mac": MAC, "mtu": 1500}));
        }
        let mut hardware = json!({
            "vm": "instance",
            "vcpus": arguments.vcpus,
            "memory_mib": arguments.memory,
            "kvm": kvm,
            "disks": disks,
            "nics": nics,
            "vsock": {"cid": 3, "listener": keep(listener.into())},
            "console": {"output": keep(console), "max_bytes": 0},
        });
        if let Some(transport) = &arguments.transport {
            hardware["transport"] = json!(transport);
        }
        let spec = json!({
            "hardware": hardware,
            "kernel": kernel,
            "initramfs": initramfs,
            "cmdline": arguments.cmdline,
        });
        let spec: VmSpec = serde_json::from_value(spec).context("describe the machine")?;
        let request = Request::Launch(Box::new(spec));
        let line = lines::encode(&control::Command { id: 1, request })?;
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        let sent = send_with(&self.socket, &line, &borrowed).context("send the launch")?;
        self.socket
            .write_all(&line[sent..])
            .context("send the launch")
    }

    /// Answers the first stage until the machine has ended.
    fn serve(&mut self) -> Result<ExitReason> {
        loop {
            while let Some(report) = self.receiver.next::<Report>()? {
                match report {
                    Report::Reply(reply) => {
                        if let Err(reason) = reply.result {
                            bail!("the monitor refuses: {reason}");
                        }
                    }
                    Report::Event(Event::GuestConnect { port }) => {
                        let stream = self.receiver.take(1).context("a guest's stream")?;
                        if let (CONTROL_PORT, Some(stream)) = (port, stream.into_iter().next()) {
                            configure(UnixStream::from(stream))?;
                        }
                    }
                    Report::Event(Event::DiskDetached { serial }) => {
                        eprintln!("the guest let the disk {serial} go");
                    }
                    Report::Event(Event::Exited { reason, detail }) => {
                        eprintln!("the machine ended: {reason:?} {detail}");
                        self.child.wait().context("wait for the monitor")?;
                        return Ok(reason);
                    }
                }
            }
            if self
                .receiver
                .read(&self.socket)
                .context("hear the monitor")?
                == 0
            {
                bail!("the monitor ended without a word");
            }
        }
    }
}

/// Tells the first stage what it is, and lets it talk.
fn configure(mut stream: UnixStream) -> Result<()> {
    let config = GuestConfig {
        hostname: "instance".to_owned(),
        network: None,
        workload: Workload::Instance {
            root: "root".to_owned(),
        },
    };
    let line = lines::encode(&ToGuest::Configure(Box::new(config)))?;
    stream.write_all(&line).context("configure the guest")?;
    thread::spawn(move || {
        let mut rest = String::new();
        let _ = stream.read_to_string(&mut rest);
        eprint!("{rest}");
    });
    Ok(())
}
