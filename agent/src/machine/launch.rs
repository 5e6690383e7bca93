//! From a [`MachineSpec`] to open files and a started process: the blocking part of a start.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use crn_protocol::control::{
    ConsoleSpec, Descriptor, DiskSpec, Hardware, MemoryBacking, NicSpec, Transport, VmSpec,
    VsockSpec,
};
use crn_protocol::devices::{Engine, Limits, NicLimits};
use crn_protocol::guest::Workload;

use super::cgroup::Size;
use super::control::Control;
use super::pool::Spare;
use super::process::{Birth, Process};
use super::{CONTROL_SOCKET, MachineError, MachineSpec, VMM_LOG, VSOCK_SOCKET};

/// A log of the VMM's own words that is longer is begun again at the next start, in bytes.
const LOG_BYTES: u64 = 1 << 20;

/// What `Launch` says and carries.
#[derive(Debug)]
pub struct Launch {
    /// The line's content.
    pub spec: VmSpec,
    descriptors: Vec<OwnedFd>,
}

impl Launch {
    /// In the order in which the spec names them.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.descriptors.iter().map(AsFd::as_fd).collect()
    }

    fn attach(&mut self, descriptor: impl Into<OwnedFd>) -> Result<Descriptor, MachineError> {
        let at = u8::try_from(self.descriptors.len()).map_err(|_| MachineError::TooManyDisks)?;
        self.descriptors.push(descriptor.into());
        Ok(Descriptor(at))
    }
}

/// Opens everything, makes the run directory with its sockets, starts the process and connects to it, or takes the spare
/// one. Blocks; needs a runtime around it.
/// After an error the run directory is gone.
pub fn prepare(spec: MachineSpec) -> Result<(Process, Control, Launch), MachineError> {
    let run_dir = spec.run_dir.clone();
    let prepared = try_prepare(spec);
    if prepared.is_err() {
        fs::remove_dir_all(&run_dir).ok();
    }
    prepared
}

/// Where a machine's process comes from.
enum Origin {
    Spare(Box<Spare>),
    /// It is started with a control socket and a log.
    New(UnixListener, File),
}

fn try_prepare(mut spec: MachineSpec) -> Result<(Process, Control, Launch), MachineError> {
    fresh_dir(&spec.run_dir)?;
    let origin = match spec.spare.take() {
        Some(mut spare) => {
            spare
                .move_to(&spec.run_dir, &spec.state_dir)
                .map_err(failed("move a spare process to", &spec.run_dir))?;
            Origin::Spare(Box::new(spare))
        }
        None => Origin::New(
            listen(&spec.run_dir.join(CONTROL_SOCKET))?,
            log(&spec.state_dir)?,
        ),
    };
    let vsock = listen(&spec.run_dir.join(VSOCK_SOCKET))?;
    let launch = describe(&spec, vsock)?;
    let launch = with_nic(launch, spec.nic)?;
    let cgroup = match &spec.cgroups {
        Some(cgroups) => Some(cgroups.make(
            &spec.vm,
            Size {
                vcpus: spec.vcpus,
                memory_mib: spec.memory_mib,
                disks: spec.disks.len(),
            },
        )?),
        None => None,
    };
    let (process, control) = match origin {
        Origin::Spare(spare) => spare
            .into_machine(cgroup)
            .map_err(failed("limit", &spec.vmm))?,
        Origin::New(control, log) => {
            let born = Birth {
                program: &spec.vmm,
                identity: spec.identity,
                cgroup,
                run_dir: &spec.run_dir,
            };
            let process = Process::spawn(born, control.into(), log);
            connect(process.map_err(failed("start", &spec.vmm))?, &spec.run_dir)?
        }
    };
    Ok((process, control, launch))
}

/// A process that cannot be spoken to is ended.
fn connect(process: Process, run_dir: &Path) -> Result<(Process, Control), MachineError> {
    let path = run_dir.join(CONTROL_SOCKET);
    match Control::connect(&path) {
        Ok(control) => Ok((process, control)),
        Err(error) => {
            process.kill().map_err(MachineError::Kill)?;
            Err(failed("connect to", &path)(error))
        }
    }
}

/// Begun again when it has become too long.
fn log(state_dir: &Path) -> Result<File, MachineError> {
    let path = state_dir.join(VMM_LOG);
    let file = open(
        &path,
        OpenOptions::new().append(true).create(true).mode(0o600),
    )?;
    if file
        .metadata()
        .is_ok_and(|metadata| metadata.len() > LOG_BYTES)
    {
        file.set_len(0).map_err(failed("empty", &path))?;
    }
    Ok(file)
}

fn describe(spec: &MachineSpec, vsock: UnixListener) -> Result<Launch, MachineError> {
    let read = |path: &Path| open(path, OpenOptions::new().read(true));
    let vm_spec = VmSpec {
        hardware: Hardware {
            vm: spec.vm.clone(),
            vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
            transport: match spec.guest.workload {
                Workload::Program(_) => Transport::Mmio,
                // An image's own kernel finds nothing else.
                Workload::Instance { .. } => Transport::Pci,
            },
            kvm: Descriptor(0),
            disks: Vec::new(),
            nics: Vec::new(),
            vsock: None,
            balloon: None,
            pmem: Vec::new(),
            entropy: Limits::default(),
            console: ConsoleSpec {
                output: Descriptor(0),
                max_bytes: spec.console_bytes,
                virtio: false,
            },
        },
        memory_backing: MemoryBacking::Thp,
        kernel: Descriptor(0),
        initramfs: None,
        cmdline: spec.cmdline.clone(),
    };
    let mut launch = Launch {
        spec: vm_spec,
        descriptors: Vec::new(),
    };
    launch.spec.hardware.kvm =
        launch.attach(open(&spec.kvm, OpenOptions::new().read(true).write(true))?)?;
    launch.spec.kernel = launch.attach(read(&spec.kernel)?)?;
    launch.spec.initramfs = Some(launch.attach(read(&spec.initramfs)?)?);
    for disk in &spec.disks {
        let file = open(
            &disk.path,
            OpenOptions::new().read(true).write(!disk.read_only),
        )?;
        let file = launch.attach(file)?;
        launch.spec.hardware.disks.push(DiskSpec {
            file,
            read_only: disk.read_only,
            serial: disk.serial.clone(),
            engine: Engine::Auto,
            limits: Limits::default(),
        });
    }
    launch.spec.hardware.vsock = Some(VsockSpec {
        cid: spec.cid,
        listener: launch.attach(vsock)?,
    });
    let console = spec.state_dir.join("console.log");
    let console = open(
        &console,
        OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600),
    )?;
    launch.spec.hardware.console.output = launch.attach(console)?;
    Ok(launch)
}

fn with_nic(mut launch: Launch, nic: Option<super::Nic>) -> Result<Launch, MachineError> {
    if let Some(nic) = nic {
        let tap = launch.attach(nic.tap)?;
        launch.spec.hardware.nics.push(NicSpec {
            taps: vec![tap],
            mac: nic.mac,
            mtu: nic.mtu,
            limits: NicLimits::default(),
        });
    }
    if launch.descriptors.len() > crn_protocol::descriptors::MAX_DESCRIPTORS {
        return Err(MachineError::TooManyDisks);
    }
    Ok(launch)
}

/// Whatever stood there belonged to a machine that is gone: running ones are adopted, not started.
fn fresh_dir(dir: &Path) -> Result<(), MachineError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("clear", dir)(error));
        }
        _ => {}
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed("make", dir))
}

fn listen(path: &Path) -> Result<UnixListener, MachineError> {
    UnixListener::bind(path).map_err(failed("listen on", path))
}

fn open(path: &Path, options: &OpenOptions) -> Result<File, MachineError> {
    options.open(path).map_err(failed("open", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MachineError + use<> {
    let path = path.to_owned();
    move |source| MachineError::File {
        action,
        path,
        source,
    }
}
