//! One task a machine: hears its reports, passes on commands, notices its end, and is the only one who declares it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crn_protocol::control::{
    Command, Descriptor, Event, ExitReason, Reply, Report, Request, Status,
};
use crn_protocol::guest::{CONTROL_PORT, GuestConfig};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::control::Control;
use super::launch::Launch;
use super::process::Process;
use super::session;
use super::{CONTROL_SOCKET, MachineError, MachineEvent};

/// From the report of the end, or the loss of the control socket, until the process must have ended.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// What a guest said last is waited for this long after its machine's end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Attempts to get a lost control socket back from a process that runs on.
const RECONNECTS: u32 = 3;

/// What handles ask the task for.
#[derive(Debug)]
pub enum Order {
    /// Send a request; answer when the reply is there.
    Ask(Request, oneshot::Sender<Result<Status, MachineError>>),
    /// Send the launch; answer when the reply is there.
    Launch(Box<Launch>, oneshot::Sender<Result<Status, MachineError>>),
    /// Hand this stream to the console; answer when the reply is there.
    Console(OwnedFd, oneshot::Sender<Result<Status, MachineError>>),
    /// SIGKILL.
    Kill(oneshot::Sender<io::Result<()>>),
}

/// Why and how a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub reason: ExitReason,
    /// One sentence, maybe empty.
    pub detail: String,
}

/// A request that was sent: its name, and where its answer goes.
type Waiting = (&'static str, oneshot::Sender<Result<Status, MachineError>>);

/// The task's state.
#[derive(Debug)]
pub struct Supervisor {
    pub vm: String,
    pub run_dir: PathBuf,
    pub guest: Arc<GuestConfig>,
    pub control: Control,
    pub process: Process,
    pub orders: mpsc::Receiver<Order>,
    pub events: mpsc::Sender<MachineEvent>,
    pub ended: watch::Sender<Option<End>>,
    next_id: u64,
    waiting: HashMap<u64, Waiting>,
    session: Option<JoinHandle<()>>,
    said: Option<End>,
}

impl Supervisor {
    /// Puts the parts together.
    pub fn new(
        (vm, run_dir): (String, PathBuf),
        guest: GuestConfig,
        (control, process): (Control, Process),
        orders: mpsc::Receiver<Order>,
        events: mpsc::Sender<MachineEvent>,
        ended: watch::Sender<Option<End>>,
    ) -> Self {
        Self {
            vm,
            run_dir,
            guest: Arc::new(guest),
            control,
            process,
            orders,
            events,
            ended,
            next_id: 1,
            waiting: HashMap::new(),
            session: None,
            said: None,
        }
    }

    /// Runs until the machine is gone; then removes its run directory, and only then says so.
    pub async fn run(mut self) {
        let status = self.watch().await;
        // Reports that were written before the end are still in the socket.
        while let Ok(Ok(Some((report, stream)))) =
            tokio::time::timeout(LAST_WORDS, self.control.next()).await
        {
            self.report(report, stream).await;
        }
        if let Some(session) = &mut self.session
            && tokio::time::timeout(LAST_WORDS, &mut *session)
                .await
                .is_err()
        {
            session.abort();
        }
        let end = self.said.take().unwrap_or_else(|| End {
            reason: status.map_or(ExitReason::Failed, ExitReason::from_code),
            detail: match status {
                Some(code) => format!("crn-vmm ended with exit status {code} and no word"),
                None => "crn-vmm ended with no word".to_owned(),
            },
        });
        tracing::info!(vm = self.vm, reason = ?end.reason, detail = end.detail, "machine ended");
        if let Err(error) = tokio::fs::remove_dir_all(&self.run_dir).await
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(vm = self.vm, %error, "cannot remove the run directory");
        }
        self.process.clear();
        self.ended.send_replace(Some(end.clone()));
        self.waiting.clear();
        self.orders.close();
        self.events
            .send(MachineEvent::Exited {
                reason: end.reason,
                detail: end.detail,
            })
            .await
            .ok();
    }

    /// Until the process has ended; its exit status, if known.
    async fn watch(&mut self) -> Option<i32> {
        let mut orders_open = true;
        let mut connected = true;
        loop {
            tokio::select! {
                biased;
                report = self.control.next(), if connected => match report {
                    Ok(Some((report, stream))) => self.report(report, stream).await,
                    other => {
                        if let Err(error) = other {
                            tracing::warn!(vm = self.vm, %error, "control socket");
                        }
                        match self.lost().await {
                            Ok(control) => self.control = control,
                            Err(status) => return status,
                        }
                    }
                },
                status = self.process.ended() => return status,
                order = self.orders.recv(), if orders_open => match order {
                    Some(order) => connected &= self.order(order).await,
                    // No handle is left; the machine goes on all the same.
                    None => orders_open = false,
                },
            }
            if !connected {
                match self.lost().await {
                    Ok(control) => (self.control, connected) = (control, true),
                    Err(status) => return status,
                }
            }
        }
    }

    /// The control socket closed. Usually because the process is about to end; otherwise it is connected to again, and
    /// a process that cannot be spoken to is killed.
    async fn lost(&mut self) -> Result<Control, Option<i32>> {
        self.waiting.clear();
        let limit = if self.said.is_some() {
            END_TIMEOUT
        } else {
            LAST_WORDS
        };
        for _ in 0..RECONNECTS {
            if let Ok(status) = tokio::time::timeout(limit, self.process.ended()).await {
                return Err(status);
            }
            if self.said.is_none()
                && let Ok(control) = Control::connect(&self.run_dir.join(CONTROL_SOCKET))
            {
                tracing::warn!(vm = self.vm, "control socket connected again");
                return Ok(control);
            }
        }
        tracing::error!(vm = self.vm, "crn-vmm cannot be spoken to: killing it");
        if let Err(error) = self.process.kill() {
            tracing::error!(vm = self.vm, %error, "cannot kill crn-vmm");
        }
        Err(self.process.ended().await)
    }

    async fn report(&mut self, report: Report, stream: Option<OwnedFd>) {
        match (report, stream) {
            (Report::Reply(Reply { id, result }), _) => {
                if let Some((request, answer)) = self.waiting.remove(&id) {
                    answer
                        .send(result.map_err(|reason| MachineError::Refused { request, reason }))
                        .ok();
                }
            }
            (Report::Event(Event::Exited { reason, detail }), _) => {
                self.said = Some(End { reason, detail })
            }
            (Report::Event(Event::DiskDetached { serial }), _) => {
                tracing::info!(vm = self.vm, serial, "guest let a disk go");
            }
            (Report::Event(Event::GuestConnect { port: CONTROL_PORT }), Some(stream)) => {
                self.greet(stream)
            }
            (Report::Event(Event::GuestConnect { port }), _) => {
                tracing::debug!(vm = self.vm, port, "guest connects to a port nobody serves");
            }
        }
    }

    /// One conversation at a time: a guest's newer connection replaces the older.
    fn greet(&mut self, stream: OwnedFd) {
        if let Some(older) = self.session.take() {
            older.abort();
        }
        let (config, events) = (Arc::clone(&self.guest), self.events.clone());
        let span = tracing::info_span!("guest", vm = self.vm);
        let serve = async move {
            if let Err(error) = session::serve(stream, config, events).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "guest's control stream"
                );
            }
        };
        self.session = Some(tokio::spawn(serve.instrument(span)));
    }

    /// Carries out one order; `false` when the control socket is lost.
    async fn order(&mut self, order: Order) -> bool {
        match order {
            Order::Ask(request, answer) => self.ask(request, &[], answer).await,
            Order::Launch(launch, answer) => {
                let request = Request::Launch(Box::new(launch.spec.clone()));
                self.ask(request, &launch.descriptors(), answer).await
            }
            Order::Console(stream, answer) => {
                let request = Request::AttachConsole {
                    stream: Descriptor(0),
                };
                self.ask(request, &[stream.as_fd()], answer).await
            }
            Order::Kill(answer) => {
                answer.send(self.process.kill()).ok();
                true
            }
        }
    }

    async fn ask(
        &mut self,
        request: Request,
        descriptors: &[std::os::fd::BorrowedFd<'_>],
        answer: oneshot::Sender<Result<Status, MachineError>>,
    ) -> bool {
        let id = self.next_id;
        self.next_id += 1;
        let name = name(&request);
        // Those whose asker has given up would otherwise stay for ever.
        self.waiting.retain(|_, (_, answer)| !answer.is_closed());
        match self
            .control
            .send(&Command { id, request }, descriptors)
            .await
        {
            Ok(()) => {
                self.waiting.insert(id, (name, answer));
                true
            }
            Err(source) => {
                answer
                    .send(Err(MachineError::Control {
                        request: name,
                        source,
                    }))
                    .ok();
                false
            }
        }
    }
}

/// A request's name for errors.
pub const fn name(request: &Request) -> &'static str {
    match request {
        Request::Launch(_) => "launch",
        Request::Restore(_) => "restore",
        Request::Snapshot(_) => "snapshot",
        Request::Status => "status",
        Request::PowerButton => "power button",
        Request::PowerOff { .. } => "power off",
        Request::Pause => "pause",
        Request::Resume => "resume",
        Request::AttachDisk(_) => "attach a disk",
        Request::DetachDisk { .. } => "detach a disk",
        Request::SetLimits { .. } => "set limits",
        Request::Balloon { .. } => "balloon",
        Request::AttachConsole { .. } => "attach to the console",
        Request::Stop => "stop",
    }
}
