//! One running machine: its `crn-vmm` process, its control socket, its guest's first words.
//!
//! What comes in: a [`MachineSpec`]. What goes out: [`MachineEvent`]s over a bounded channel, the last of them always
//! [`MachineEvent::Exited`]. What may be touched: `<run_dir>/vm/<hash>/`, the console and log files named in the spec,
//! and the process.

pub mod cgroup;
mod control;
mod launch;
mod pidfd;
pub mod pool;
mod process;
mod session;
pub mod spec;
mod supervisor;
pub mod vsock;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crn_protocol::control::{ExitReason, Request, Status};
use crn_protocol::guest::{CONTROL_PORT, GuestConfig, ToGuest};
use crn_protocol::lines;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use cgroup::{CgroupError, Cgroups};
use control::Control;
use launch::Launch;
use pool::Spare;
use process::Process;
use supervisor::{End, Order, Supervisor};

const CONTROL_SOCKET: &str = "control.sock";
const VSOCK_SOCKET: &str = "vsock.sock";
const VMM_LOG: &str = "vmm.log";
/// Building a machine: most of it is memory to map, which an overcommitted host makes slow.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(60);
/// Any other request is answered at once or not at all.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// After SIGKILL: only a process stuck in the kernel takes longer.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);
/// Events that may wait for the reconciler.
const EVENTS: usize = 16;
/// Orders that may wait for the machine.
const ORDERS: usize = 16;

/// Everything a machine is started with. Paths are the host's.
#[derive(Debug)]
pub struct MachineSpec {
    /// The item hash.
    pub vm: String,
    /// The `crn-vmm` executable.
    pub vmm: PathBuf,
    /// `<run_dir>/vm/<hash>`: made here, removed after the end.
    pub run_dir: PathBuf,
    /// `<state_dir>/vm/<hash>`: `console.log` and `vmm.log` are written here; must exist.
    pub state_dir: PathBuf,
    /// The console log is begun again at this length, in bytes.
    pub console_bytes: u64,
    /// The host's KVM, `/dev/kvm`.
    pub kvm: PathBuf,
    /// Guest kernel.
    pub kernel: PathBuf,
    /// Guest initramfs.
    pub initramfs: PathBuf,
    /// The kernel's command line.
    pub cmdline: String,
    /// 1..=64.
    pub vcpus: u8,
    /// MiB.
    pub memory_mib: u32,
    /// In the order of vda, vdb, …
    pub disks: Vec<Disk>,
    /// The network card, if any.
    pub nic: Option<Nic>,
    /// vsock context identifier, 3 or more.
    pub cid: u32,
    /// User and group of its process, which no other machine has; a spare one has its own.
    pub identity: u32,
    /// A process that waits for a machine, to be this one's; otherwise one is started.
    pub spare: Option<Spare>,
    /// Where its control group is made; `None` for a machine that is not limited.
    pub cgroups: Option<Cgroups>,
    /// What the guest is told when it says hello.
    pub guest: GuestConfig,
}

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// A raw image.
    pub path: PathBuf,
    /// Whether the guest may not write.
    pub read_only: bool,
    /// Its name in the guest.
    pub serial: String,
}

/// One network card.
#[derive(Debug)]
pub struct Nic {
    /// From [`crate::net::Net::attach`]; closed here once the VMM has it, so that the device goes with the VMM.
    pub tap: OwnedFd,
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// Bytes.
    pub mtu: u16,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineEvent {
    /// The program answers, or the instance's own init takes over.
    GuestReady,
    /// The guest could not start its workload.
    GuestFailed {
        /// What was attempted.
        stage: String,
        /// The causes.
        error: String,
    },
    /// The program ended; the machine powers off next.
    ProgramExited {
        /// Exit status.
        code: Option<i32>,
        /// Signal.
        signal: Option<i32>,
    },
    /// The machine is gone and its run directory removed. The last event.
    Exited {
        /// Why.
        reason: ExitReason,
        /// One sentence, maybe empty.
        detail: String,
    },
}

/// Why a machine could not be started, found or told something.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A file of the machine.
    #[error("cannot {action} {path}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its control group.
    #[error("cannot limit what the machine takes from the host")]
    Cgroup(#[from] CgroupError),
    /// More disks than one message carries.
    #[error("the machine has too many disks")]
    TooManyDisks,
    /// The control socket broke.
    #[error("cannot send {request} to crn-vmm")]
    Control {
        /// What was to be said.
        request: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The VMM answered no.
    #[error("crn-vmm refused {request}: {reason}")]
    Refused {
        /// What was asked.
        request: &'static str,
        /// Its words.
        reason: String,
    },
    /// The VMM did not answer.
    #[error("crn-vmm did not answer {request} within {limit:?}")]
    Timeout {
        /// What was asked.
        request: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// The machine is gone.
    #[error("the machine has ended ({reason:?}) {detail}")]
    Gone {
        /// Why.
        reason: ExitReason,
        /// One sentence, maybe empty.
        detail: String,
    },
    /// The guest cannot be reached over vsock.
    #[error("cannot reach the guest")]
    Guest(#[source] io::Error),
    /// The process does not die.
    #[error("cannot kill crn-vmm")]
    Kill(#[source] io::Error),
    /// The agent is shutting down.
    #[error("the runtime is shutting down")]
    Shutdown(#[from] tokio::task::JoinError),
}

/// A handle on a machine; clones speak to the same one. Dropping it stops nothing.
#[derive(Debug, Clone)]
pub struct Machine {
    vsock: PathBuf,
    orders: mpsc::Sender<Order>,
    ended: watch::Receiver<Option<End>>,
}

impl Machine {
    /// Starts a machine and returns once its vCPUs run.
    ///
    /// # Errors
    /// [`MachineError`]; the process and its run directory are gone then.
    pub async fn start(
        spec: MachineSpec,
    ) -> Result<(Self, mpsc::Receiver<MachineEvent>), MachineError> {
        let (vm, run_dir, guest) = (spec.vm.clone(), spec.run_dir.clone(), spec.guest.clone());
        let (process, control, launch) =
            tokio::task::spawn_blocking(move || launch::prepare(spec)).await??;
        let (machine, events) = Self::supervise(vm, run_dir, guest, control, process);
        match machine.launch(launch).await {
            Ok(_) => Ok((machine, events)),
            Err(error) => {
                machine.kill().await?;
                Err(error)
            }
        }
    }

    /// Finds a machine that an earlier agent started; `None` when it does not run, and then its run directory is gone.
    /// `guest` answers a guest that has yet to say hello. [`MachineEvent::GuestReady`] does not come again from a guest
    /// that was ready before.
    ///
    /// # Errors
    /// [`MachineError`].
    pub async fn adopt(
        vm: &str,
        run_dir: &Path,
        guest: GuestConfig,
    ) -> Result<Option<(Self, mpsc::Receiver<MachineEvent>)>, MachineError> {
        let dir = run_dir.to_owned();
        let path = run_dir.join("vmm.pid");
        let process = tokio::task::spawn_blocking(move || Process::find(&dir))
            .await?
            .map_err(|source| MachineError::File {
                action: "read",
                path,
                source,
            })?;
        let Some(process) = process else {
            return remove(run_dir).await.map(|()| None);
        };
        let Ok(control) = Control::connect(&run_dir.join(CONTROL_SOCKET)) else {
            // It runs and cannot be spoken to: of no use to anyone.
            process.kill().map_err(MachineError::Kill)?;
            return remove(run_dir).await.map(|()| None);
        };
        let (machine, events) =
            Self::supervise(vm.to_owned(), run_dir.to_owned(), guest, control, process);
        match machine.status().await {
            Ok(Status { running: true, .. }) => Ok(Some((machine, events))),
            // Started but never launched, or stopped since.
            Ok(_) | Err(MachineError::Gone { .. }) => machine.kill().await.map(|()| None),
            Err(error) => Err(error),
        }
    }

    fn supervise(
        vm: String,
        run_dir: PathBuf,
        guest: GuestConfig,
        control: Control,
        process: Process,
    ) -> (Self, mpsc::Receiver<MachineEvent>) {
        let (orders, their_orders) = mpsc::channel(ORDERS);
        let (events, our_events) = mpsc::channel(EVENTS);
        let (ended, our_ended) = watch::channel(None);
        let machine = Self {
            vsock: run_dir.join(VSOCK_SOCKET),
            orders,
            ended: our_ended,
        };
        let supervisor = Supervisor::new(
            (vm, run_dir),
            guest,
            (control, process),
            their_orders,
            events,
            ended,
        );
        tokio::spawn(supervisor.run());
        (machine, our_events)
    }

    /// The socket that leads to the guest's vsock ports, see [`vsock::connect`].
    #[must_use]
    pub fn vsock(&self) -> &Path {
        &self.vsock
    }

    /// Counters.
    ///
    /// # Errors
    /// [`MachineError`].
    pub async fn status(&self) -> Result<Status, MachineError> {
        self.ask(Request::Status).await
    }

    /// Hands a stream socket to the console: it is written the last output (at most 64 KiB), then what comes; what is
    /// read from it is typed.
    ///
    /// # Errors
    /// [`MachineError`]; [`MachineError::Refused`] when too many are attached.
    pub async fn attach_console(&self, stream: OwnedFd) -> Result<(), MachineError> {
        self.order("attach to the console", REPLY_TIMEOUT, |answer| {
            Order::Console(stream, answer)
        })
        .await
        .map(|_| ())
    }

    /// Takes the guest's vCPUs out of it and makes what its disks have under way durable, until [`Machine::resume`].
    ///
    /// # Errors
    /// [`MachineError`].
    pub async fn pause(&self) -> Result<(), MachineError> {
        self.ask(Request::Pause).await.map(|_| ())
    }

    /// Lets a guest go on after [`Machine::pause`].
    ///
    /// # Errors
    /// [`MachineError`].
    pub async fn resume(&self) -> Result<(), MachineError> {
        self.ask(Request::Resume).await.map(|_| ())
    }

    /// Asks an instance to shut down (ACPI power button). [`MachineEvent::Exited`] comes when it has.
    ///
    /// # Errors
    /// [`MachineError`].
    pub async fn power_button(&self) -> Result<(), MachineError> {
        self.ask(Request::PowerButton).await.map(|_| ())
    }

    /// Asks a program's guest to stop the program and power off: SIGTERM, and SIGKILL after `grace`.
    /// [`MachineEvent::Exited`] comes when it has.
    ///
    /// # Errors
    /// [`MachineError::Guest`].
    pub async fn shutdown_program(&self, grace: Duration) -> Result<(), MachineError> {
        let grace_seconds = u32::try_from(grace.as_secs()).unwrap_or(u32::MAX);
        let line = lines::encode(&ToGuest::Shutdown { grace_seconds }).map_err(|error| {
            MachineError::Guest(io::Error::new(io::ErrorKind::InvalidData, error))
        })?;
        let say = async {
            let mut stream = vsock::connect(&self.vsock, CONTROL_PORT).await?;
            stream.write_all(&line).await?;
            Ok(stream)
        };
        let mut stream = timeout(REPLY_TIMEOUT, say)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(MachineError::Guest)?;
        // Kept open until the guest has read the line and closed, so that nothing on the way drops it.
        tokio::spawn(async move { timeout(REPLY_TIMEOUT, stream.read_u8()).await });
        Ok(())
    }

    /// Ends the machine: told to stop, killed when it has not ended within `deadline`. Returns when the process and the
    /// run directory are gone.
    ///
    /// # Errors
    /// [`MachineError::Kill`], [`MachineError::Timeout`] when the process cannot be killed.
    pub async fn stop(&self, deadline: Duration) -> Result<(), MachineError> {
        let gently = async {
            self.ask(Request::Stop).await?;
            self.gone().await;
            Ok::<_, MachineError>(())
        };
        match timeout(deadline, gently).await {
            Ok(Ok(()) | Err(MachineError::Gone { .. })) => Ok(()),
            _ => self.kill().await,
        }
    }

    /// Returns when the machine is gone.
    pub async fn gone(&self) {
        // An error means that the task is gone too, at the runtime's end.
        self.ended.clone().wait_for(Option::is_some).await.ok();
    }

    async fn kill(&self) -> Result<(), MachineError> {
        let (answer, answered) = oneshot::channel();
        if self.orders.send(Order::Kill(answer)).await.is_ok()
            && let Ok(result) = answered.await
        {
            result.map_err(MachineError::Kill)?;
        }
        timeout(KILL_TIMEOUT, self.gone())
            .await
            .map_err(|_| MachineError::Timeout {
                request: "kill",
                limit: KILL_TIMEOUT,
            })
    }

    async fn launch(&self, launch: Launch) -> Result<Status, MachineError> {
        self.order("launch", LAUNCH_TIMEOUT, |answer| {
            Order::Launch(Box::new(launch), answer)
        })
        .await
    }

    async fn ask(&self, request: Request) -> Result<Status, MachineError> {
        self.order(supervisor::name(&request), REPLY_TIMEOUT, |answer| {
            Order::Ask(request, answer)
        })
        .await
    }

    async fn order(
        &self,
        request: &'static str,
        limit: Duration,
        order: impl FnOnce(oneshot::Sender<Result<Status, MachineError>>) -> Order,
    ) -> Result<Status, MachineError> {
        let (answer, answered) = oneshot::channel();
        let exchange = async {
            if self.orders.send(order(answer)).await.is_ok()
                && let Ok(result) = answered.await
            {
                return result;
            }
            // The answer was dropped: the machine has ended, or its control socket broke for a moment.
            timeout(REPLY_TIMEOUT, self.gone()).await.ok();
            let end = self.ended.borrow().clone();
            match end {
                Some(End { reason, detail }) => Err(MachineError::Gone { reason, detail }),
                None => Err(MachineError::Control {
                    request,
                    source: io::ErrorKind::ConnectionReset.into(),
                }),
            }
        };
        timeout(limit, exchange)
            .await
            .unwrap_or(Err(MachineError::Timeout { request, limit }))
    }
}

/// CPU time in microseconds and resident memory in bytes of the process noted in a machine's run directory. Blocks.
#[must_use]
pub fn usage(run_dir: &Path) -> Option<(u64, u64)> {
    process::usage(run_dir)
}

async fn remove(dir: &Path) -> Result<(), MachineError> {
    match tokio::fs::remove_dir_all(dir).await {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(MachineError::File {
            action: "remove",
            path: dir.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
