//! `crn-vmm`: one process, one virtual machine.
//!
//! With `--control-fd` it waits for its controller's `Launch` in the whole sandbox; `run` builds a machine from files, for
//! benches and debugging, under the system call filters and, with `--uid`, in the rest of the sandbox too. Exit status: 0 powered off, 1 failed, 3 reset, 4 stopped.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use crn_protocol::control::{
    ConsoleSpec, Descriptor, DiskSpec, ExitReason, Hardware, MemoryBacking, NicSpec, Transport,
    VmSpec, VsockSpec,
};
use crn_protocol::devices::{Engine, Limits, NicLimits};
use crn_vmm::control::Blueprint;
use crn_vmm::error::chain;
use crn_vmm::fd::{inherit, inherit_listener};
use crn_vmm::sandbox::{self, Identity, Role};
use crn_vmm::{Error, Result, Vmm};
use tracing_subscriber::EnvFilter;

/// One virtual machine.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true
)]
struct Cli {
    /// A listening UNIX stream socket, inherited as this descriptor, on which the controller connects.
    #[arg(long, value_name = "N", requires = "uid")]
    control_fd: Option<i32>,
    #[command(flatten)]
    jail: Jail,
    #[command(subcommand)]
    command: Option<Mode>,
}

/// Whom to become. The process has to be started as root and as the first one of a PID namespace.
#[derive(Debug, Args)]
struct Jail {
    /// The user to become, which no other process has.
    #[arg(long, requires = "gid", value_parser = clap::value_parser!(u32).range(1..))]
    uid: Option<u32>,
    /// The group to become.
    #[arg(long, requires = "uid", value_parser = clap::value_parser!(u32).range(1..))]
    gid: Option<u32>,
}

impl Jail {
    fn identity(&self) -> Option<Identity> {
        let (uid, gid) = self.uid.zip(self.gid)?;
        Some(Identity { uid, gid })
    }
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Runs a machine from files, its console on standard output.
    Run(RunArguments),
}

#[derive(Debug, Args)]
struct RunArguments {
    #[command(flatten)]
    jail: Jail,
    /// An ELF vmlinux or a bzImage.
    #[arg(long)]
    kernel: PathBuf,
    /// A cpio archive.
    #[arg(long)]
    initramfs: Option<PathBuf>,
    /// The kernel's command line.
    #[arg(long, default_value = "console=ttyS0 panic=1")]
    cmdline: String,
    /// A raw image; `,ro` behind it makes it read-only. The device's serial is disk0, disk1, …
    #[arg(long = "disk", value_name = "FILE[,ro]")]
    disks: Vec<String>,
    /// A NIC over a TAP queue (IFF_TAP, IFF_NO_PI, IFF_VNET_HDR) inherited as this descriptor; its address is
    /// 02:00:00:00:00:01, 02:00:00:00:00:02, …
    #[arg(long = "tap-fd", value_name = "N")]
    taps: Vec<i32>,
    /// A UNIX socket to create for vsock clients; the guest's context identifier is 3.
    #[arg(long, value_name = "SOCKET")]
    vsock: Option<PathBuf>,
    /// MiB of memory.
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    memory: u32,
    /// vCPUs.
    #[arg(long, default_value_t = 1, value_name = "N")]
    vcpus: u8,
    /// Take memory from the host's pool of huge pages of this size.
    #[arg(long, value_enum, value_name = "SIZE")]
    huge_pages: Option<HugePages>,
    /// The bus of the devices.
    #[arg(long, value_enum, default_value_t = Bus::Mmio)]
    transport: Bus,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum HugePages {
    #[value(name = "2m")]
    TwoMib,
    #[value(name = "1g")]
    OneGib,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Bus {
    /// virtio-mmio: fastest to boot.
    Mmio,
    /// virtio-pci with MSI-X: what stock kernels have drivers for.
    Pci,
}

fn main() -> ExitCode {
    let started = Instant::now();
    let cli = Cli::parse();
    log_to_stderr();
    let reason = match serve(cli, started) {
        Ok(reason) => reason,
        Err(error) => {
            tracing::error!(error = chain(&error), "failed");
            ExitReason::Failed
        }
    };
    ExitCode::from(reason.code())
}

/// Lines for people on a terminal, JSON lines elsewhere.
fn log_to_stderr() {
    // The queue library logs what hostile guests do; a device that stops for it says so once.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,virtio_queue=off"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    if io::stderr().is_terminal() {
        builder.init()
    } else {
        builder.json().init()
    }
}

fn serve(cli: Cli, started: Instant) -> Result<ExitReason> {
    let mut vmm = match (cli.control_fd, cli.command) {
        (Some(fd), None) => {
            sandbox::close_others(fd)
                .map_err(|error| Error::Os("close what was inherited", error))?;
            let listener =
                inherit_listener(fd).map_err(|error| Error::Os("use --control-fd", error))?;
            confine(&cli.jail)?;
            Vmm::new(Some(listener), started)?
        }
        (_, Some(Mode::Run(arguments))) => {
            let blueprint = blueprint(&arguments)?;
            confine(&arguments.jail)?;
            let mut vmm = Vmm::new(None, started)?;
            vmm.launch(blueprint)?;
            vmm
        }
        (None, None) => {
            return Err(Error::Os(
                "start without --control-fd or run",
                io::ErrorKind::InvalidInput.into(),
            ));
        }
    };
    let end = vmm
        .run()
        .map_err(|error| Error::Os("wait for events", error))?;
    Ok(end.reason)
}

/// Takes from this process what its machine does not need.
fn confine(jail: &Jail) -> Result<()> {
    match jail.identity() {
        Some(identity) => sandbox::enter(identity)?,
        None => sandbox::install(Role::Starting)?,
    }
    Ok(())
}

fn blueprint(arguments: &RunArguments) -> Result<Blueprint> {
    let mut files = Opened::default();
    let kvm = files.open("kvm", Path::new("/dev/kvm"), true)?;
    let kernel = files.open("--kernel", &arguments.kernel, false)?;
    let initramfs = arguments
        .initramfs
        .as_ref()
        .map(|path| files.open("--initramfs", path, false))
        .transpose()?;
    let mut disks = Vec::new();
    for (index, disk) in arguments.disks.iter().enumerate() {
        let (path, read_only) = disk
            .strip_suffix(",ro")
            .map_or((disk.as_str(), false), |path| (path, true));
        let file = files.open("--disk", Path::new(path), !read_only)?;
        disks.push(DiskSpec {
            file,
            read_only,
            serial: format!("disk{index}"),
            engine: Engine::Auto,
            limits: Limits::default(),
        });
    }
    let mut nics = Vec::new();
    for (&tap, last) in arguments.taps.iter().zip(1..=u8::MAX) {
        let tap = inherit(tap).map_err(|error| Error::Os("use --tap-fd", error))?;
        nics.push(NicSpec {
            taps: vec![files.keep(tap)],
            mac: [2, 0, 0, 0, 0, last],
            mtu: 1500,
            limits: NicLimits::default(),
        });
    }
    let vsock = match &arguments.vsock {
        None => None,
        Some(path) => {
            let listener =
                UnixListener::bind(path).map_err(|error| failed("--vsock", path, &error))?;
            Some(VsockSpec {
                cid: 3,
                listener: files.keep(listener.into()),
            })
        }
    };
    let stdout = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)
        .map_err(|error| Error::Os("use standard output", error.into()))?;
    let spec = VmSpec {
        hardware: Hardware {
            vm: "run".to_owned(),
            vcpus: arguments.vcpus,
            memory_mib: arguments.memory,
            transport: match arguments.transport {
                Bus::Mmio => Transport::Mmio,
                Bus::Pci => Transport::Pci,
            },
            kvm,
            disks,
            nics,
            vsock,
            balloon: None,
            pmem: Vec::new(),
            entropy: Limits::default(),
            console: ConsoleSpec {
                output: files.keep(stdout),
                max_bytes: 0,
                virtio: false,
            },
        },
        memory_backing: match arguments.huge_pages {
            None => MemoryBacking::Thp,
            Some(HugePages::TwoMib) => MemoryBacking::Hugetlb2m,
            Some(HugePages::OneGib) => MemoryBacking::Hugetlb1g,
        },
        kernel,
        initramfs,
        cmdline: arguments.cmdline.clone(),
    };
    Blueprint::new(spec, files.0)
}

fn failed(field: &str, path: &Path, error: &io::Error) -> Error {
    Error::Spec {
        field: field.to_owned(),
        reason: format!("{}: {error}", path.display()),
    }
}

/// Descriptors in the order in which the description names them.
#[derive(Default)]
struct Opened(Vec<OwnedFd>);

impl Opened {
    fn open(&mut self, field: &str, path: &Path, write: bool) -> Result<Descriptor> {
        let file = File::options()
            .read(true)
            .write(write)
            .open(path)
            .map_err(|error| failed(field, path, &error))?;
        Ok(self.keep(file.into()))
    }

    fn keep(&mut self, fd: OwnedFd) -> Descriptor {
        self.0.push(fd);
        Descriptor((self.0.len() - 1) as u8)
    }
}
