//! One machine's task: the step that [`next_step`] names, written down, again and again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aleph_message::ItemHash;
use crn_protocol::control::ExitReason;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::host::{Guest, GuestEvent, HostError, Place};
use super::setback::Setback;
use super::{Activity, Endpoint, Orders, Shared, View, ports};
use crate::intake::workload::{Body, Resolved, Workload};
use crate::intake::{self, Intake, IntakeError};
use crate::ledger::state::{Step, next_step};
use crate::ledger::{Desired, Kind, LedgerError, Record, Source, State, Wipe, now_us};

/// How long an instance has to shut down when asked to.
const INSTANCE_GRACE: Duration = Duration::from_secs(50);
/// How long a program has.
const PROGRAM_GRACE: Duration = Duration::from_secs(5);
/// A machine that ran this long was well: its earlier failures are forgotten.
const WELL: Duration = Duration::from_secs(60);
/// Between two attempts to reach a ledger that fails.
const LEDGER_RETRY: Duration = Duration::from_secs(1);
/// Of the console's end, in bytes, shown in the log when a machine fails.
const CONSOLE_TAIL: u64 = 2048;

pub(super) struct Task {
    shared: Arc<Shared>,
    hash: ItemHash,
    orders: watch::Receiver<Orders>,
    view: watch::Sender<View>,
    activity: Arc<Activity>,
    guest: Option<Box<dyn Guest>>,
    resolved: Option<Resolved>,
    endpoint: Option<Endpoint>,
    /// Since when the guest is ready.
    ready: Option<Instant>,
    /// What the guest said before it went.
    last_words: Option<String>,
    /// Failures in a row.
    attempts: u32,
    /// Demands to start anew that were met.
    reboots: u64,
    /// The firewall still has rules for a machine that is gone.
    rules_stale: bool,
    end: bool,
}

impl Task {
    pub(super) fn new(
        shared: Arc<Shared>,
        hash: ItemHash,
        orders: watch::Receiver<Orders>,
        view: watch::Sender<View>,
        activity: Arc<Activity>,
    ) -> Self {
        activity.last_us.store(now_us(), Ordering::Relaxed);
        Self {
            shared,
            hash,
            orders,
            view,
            activity,
            guest: None,
            resolved: None,
            endpoint: None,
            ready: None,
            last_words: None,
            attempts: 0,
            reboots: 0,
            rules_stale: false,
            end: false,
        }
    }

    pub(super) async fn run(mut self) {
        while let Err(error) = self.take_up().await {
            self.complain(&error).await;
        }
        while !self.end {
            if let Err(error) = self.turn().await {
                self.complain(&error).await;
            }
        }
    }

    async fn complain(&self, error: &LedgerError) {
        tracing::error!(vm = %self.hash, "{}", crate::chain(error));
        tokio::time::sleep(LEDGER_RETRY).await;
    }

    /// Finds the machine again that the ledger says may run.
    async fn take_up(&mut self) -> Result<(), LedgerError> {
        let Some(record) = self.record().await? else {
            return Ok(());
        };
        if let State::Failed(failure) = &record.state {
            self.attempts = failure.attempts;
        }
        if !record.state.may_have_process() || self.guest.is_some() {
            return Ok(());
        }
        self.endpoint = kept_workload(&record).and_then(|workload| self.endpoint_of(&workload));
        let found = match record.guest.clone() {
            Some(guest) => self.shared.host.adopt(&self.hash, guest).await,
            None => Ok(None),
        };
        match found {
            Ok(Some(guest)) => {
                tracing::info!(vm = %self.hash, state = record.state.word(), "found running");
                self.guest = Some(guest);
                self.follow_console().await;
                if record.state == State::Running {
                    self.ready = Some(Instant::now());
                }
                Ok(())
            }
            other => {
                if let Err(error) = other {
                    tracing::warn!(vm = %self.hash, "{}", crate::chain(&error));
                }
                tracing::info!(vm = %self.hash, state = record.state.word(), "does not run any more");
                if record.source == Source::Request && record.desired == Desired::Running {
                    // The request it ran for is gone too.
                    self.shared
                        .ledger
                        .want(&self.hash, Desired::Stopped, false)
                        .await?;
                }
                self.leave(&record).await?;
                self.enter(State::Stopped).await
            }
        }
    }

    async fn turn(&mut self) -> Result<(), LedgerError> {
        let orders = *self.orders.borrow_and_update();
        let Some(record) = self.record().await? else {
            self.end = self.shared.retire(&self.hash, &self.orders);
            return Ok(());
        };
        if record.state == State::Defined {
            // Begun anew: earlier failures do not count.
            self.attempts = 0;
        }
        if let Some(wipe) = record.wipe
            && record.desired != Desired::Erased
            && !record.state.may_have_process()
        {
            return self.wipe(wipe).await;
        }
        let anew = orders.reboot > self.reboots || record.wipe.is_some();
        let step = if anew && record.state == State::Running {
            Step::Stop
        } else {
            next_step(record.desired, &record.state, now_us())
        };
        self.reboots = orders.reboot;
        let waits = matches!(step, Step::Wait | Step::WaitUntil(_));
        let endpoint = self.endpoint.clone();
        self.view.send_modify(|view| {
            // A state that is about to be left is not yet the answer to the poke.
            if waits {
                view.seen = orders.poke;
            }
            view.state = record.state.clone();
            view.endpoint = endpoint;
        });
        match step {
            Step::Prepare => self.prepare(&record).await,
            Step::Start => self.start(&record).await,
            Step::Stop => self.stop(&record).await,
            Step::Erase => self.erase(&record).await,
            Step::Wait => match record.state {
                State::Running => self.attend(&record).await,
                State::Starting => self.await_ready(&record).await,
                State::Erased => {
                    self.end = self.shared.retire(&self.hash, &self.orders);
                    Ok(())
                }
                _ => {
                    self.end = self.orders.changed().await.is_err();
                    Ok(())
                }
            },
            Step::WaitUntil(at) => {
                let wait = Duration::from_micros(u64::try_from(at - now_us()).unwrap_or(0));
                // Either way the ledger is looked at again.
                let _ = tokio::time::timeout(wait, self.orders.changed()).await;
                Ok(())
            }
        }
    }

    async fn record(&self) -> Result<Option<Record>, LedgerError> {
        self.shared.ledger.get(&self.hash).await
    }

    async fn desired(&self) -> Result<Desired, LedgerError> {
        Ok(self
            .record()
            .await?
            .map_or(Desired::Erased, |record| record.desired))
    }

    async fn enter(&mut self, state: State) -> Result<(), LedgerError> {
        self.shared.ledger.enter(&self.hash, &state).await?;
        // The rules follow the states in the ledger.
        if self.rules_stale && !state.may_have_process() {
            self.rules_stale = false;
            self.publish().await;
        }
        if let State::Failed(failure) = &state {
            tracing::warn!(
                vm = %self.hash,
                attempts = failure.attempts,
                again = failure.retry_at.is_some(),
                "failed: {}",
                failure.reason
            );
        } else {
            tracing::info!(vm = %self.hash, state = state.word(), "state");
        }
        Ok(())
    }

    /// Fetches, admits and makes disks, unless it is no longer wanted before that is done.
    async fn prepare(&mut self, record: &Record) -> Result<(), LedgerError> {
        self.enter(State::Fetching).await?;
        let shared = Arc::clone(&self.shared);
        let work = gather(&shared, record);
        tokio::pin!(work);
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome?,
                changed = self.orders.changed() => {
                    if changed.is_err() || self.desired().await? != Desired::Running {
                        self.shared.ledger.release_compute(&self.hash).await?;
                        return self.enter(State::Stopped).await;
                    }
                }
            }
        };
        match outcome {
            Ok(resolved) => {
                self.endpoint = self.endpoint_of(&resolved.workload);
                self.resolved = Some(resolved);
                self.enter(State::Prepared).await
            }
            Err(setback) => {
                if record.lease.is_none() {
                    // It never had a disk: nothing of it is to stay.
                    if let Err(error) = self.shared.host.erase(&self.hash).await {
                        tracing::error!(vm = %self.hash, "{}", crate::chain(&error));
                    }
                    self.shared.ledger.release_all(&self.hash).await?;
                } else {
                    self.shared.ledger.release_compute(&self.hash).await?;
                }
                self.fail(setback).await
            }
        }
    }

    async fn start(&mut self, record: &Record) -> Result<(), LedgerError> {
        let (Some(resolved), Some(place)) = (self.resolved.clone(), place_of(record)) else {
            return self.enter(State::Defined).await;
        };
        self.last_words = None;
        self.ready = None;
        let told = match self.shared.host.guest_config(&resolved, place) {
            Ok(guest) => guest,
            Err(error) => return self.fail_host(record, &error).await,
        };
        self.shared.ledger.tell_guest(&self.hash, &told).await?;
        self.enter(State::Starting).await?;
        if told.network.is_some()
            && let Err(error) = self.shared.firewall.publish().await
        {
            self.leave(record).await?;
            return self.fail(Setback::transient(error.to_string())).await;
        }
        match self.shared.host.start(&resolved, place).await {
            Ok(guest) => self.guest = Some(guest),
            Err(error) => return self.fail_host(record, &error).await,
        }
        self.follow_console().await;
        self.await_ready(record).await
    }

    /// Waits for the guest's first word, for a change of mind, or for the time to be up.
    async fn await_ready(&mut self, record: &Record) -> Result<(), LedgerError> {
        let limit = self.shared.config.program.start_timeout;
        let deadline = Instant::now() + limit;
        loop {
            let Some(guest) = &mut self.guest else {
                return self.gone(record, ExitReason::Failed, String::new()).await;
            };
            tokio::select! {
                event = guest.event() => match event {
                    GuestEvent::Ready => {
                        self.ready = Some(Instant::now());
                        self.activity.last_us.store(now_us(), Ordering::Relaxed);
                        return self.enter(State::Running).await;
                    }
                    GuestEvent::Failed { reason } => self.last_words = Some(reason),
                    GuestEvent::Exited { reason, detail } => return self.gone(record, reason, detail).await,
                },
                changed = self.orders.changed() => {
                    if changed.is_err() || self.desired().await? != Desired::Running {
                        return Ok(());
                    }
                }
                () = sleep_until(deadline) => {
                    self.kill().await;
                    let said = self.last_words.take().unwrap_or_else(|| format!("the guest was not ready within {limit:?}"));
                    self.leave(record).await?;
                    return self.fail(Setback::crash(said)).await;
                }
            }
        }
    }

    /// Stays with a running guest until something happens.
    async fn attend(&mut self, record: &Record) -> Result<(), LedgerError> {
        let Some(guest) = &mut self.guest else {
            return self.gone(record, ExitReason::Failed, String::new()).await;
        };
        let idles = record.source == Source::Request;
        let idle_at = idles.then(|| idle_at(&self.activity, self.shared.config.program.idle));
        tokio::select! {
            event = guest.event() => match event {
                GuestEvent::Ready => Ok(()),
                GuestEvent::Failed { reason } => {
                    self.last_words = Some(reason);
                    Ok(())
                }
                GuestEvent::Exited { reason, detail } => self.gone(record, reason, detail).await,
            },
            changed = self.orders.changed() => {
                self.end = changed.is_err();
                Ok(())
            }
            () = sleep_until(idle_at.unwrap_or_else(far_away)), if idles => {
                if self.activity.users.load(Ordering::Acquire) == 0
                    && idle_at.is_some_and(|_| idle_at_passed(&self.activity, self.shared.config.program.idle))
                {
                    tracing::info!(vm = %self.hash, "idle");
                    self.shared.ledger.want(&self.hash, Desired::Stopped, false).await?;
                }
                Ok(())
            }
        }
    }

    /// Takes away the disks that are to be made anew; the machine does not run.
    async fn wipe(&mut self, wipe: Wipe) -> Result<(), LedgerError> {
        if let Err(error) = self.shared.host.wipe(&self.hash, wipe.volumes).await {
            tracing::error!(vm = %self.hash, "{}", crate::chain(&error));
            tokio::time::sleep(LEDGER_RETRY).await;
            return Ok(());
        }
        tracing::info!(vm = %self.hash, volumes = wipe.volumes, "disks are made anew");
        self.shared.ledger.wiped(&self.hash).await?;
        // Whatever was prepared was so with the old disks.
        self.enter(State::Defined).await
    }

    /// Asks the guest to stop and gives it time, unless it is to be erased; then ends the machine.
    async fn stop(&mut self, record: &Record) -> Result<(), LedgerError> {
        self.enter(State::Stopping).await?;
        self.view.send_modify(|view| view.state = State::Stopping);
        let grace = if record.kind == Some(Kind::Instance) {
            INSTANCE_GRACE
        } else {
            PROGRAM_GRACE
        };
        let deadline = Instant::now() + grace;
        if record.desired != Desired::Erased
            && let Some(guest) = &mut self.guest
        {
            match guest.ask_to_stop().await {
                Ok(()) => self.await_exit(deadline).await?,
                Err(error) => tracing::warn!(vm = %self.hash, "{}", crate::chain(&error)),
            }
        }
        self.kill().await;
        self.leave(record).await?;
        self.enter(State::Stopped).await
    }

    /// Until the machine is gone, the time is up, or it is to be erased.
    async fn await_exit(&mut self, deadline: Instant) -> Result<(), LedgerError> {
        while let Some(guest) = &mut self.guest {
            tokio::select! {
                event = timeout_at(deadline, guest.event()) => match event {
                    Ok(GuestEvent::Exited { .. }) => self.guest = None,
                    Ok(_) => {}
                    Err(_) => {
                        tracing::warn!(vm = %self.hash, "did not shut down when asked to");
                        return Ok(());
                    }
                },
                changed = self.orders.changed() => {
                    if changed.is_err() || self.desired().await? == Desired::Erased {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    async fn kill(&mut self) {
        if let Some(mut guest) = self.guest.take()
            && let Err(error) = guest.stop().await
        {
            tracing::error!(vm = %self.hash, "{}", crate::chain(&error));
        }
    }

    async fn erase(&mut self, record: &Record) -> Result<(), LedgerError> {
        self.kill().await;
        self.shared.logs.finish(&self.hash).await;
        if let Err(error) = take_away(&self.shared, &self.hash, place_of(record)).await {
            tracing::error!(vm = %self.hash, "{}", crate::chain(&error));
            tokio::time::sleep(LEDGER_RETRY).await;
            return Ok(());
        }
        self.resolved = None;
        self.endpoint = None;
        if !self.shared.host.is_gone(&self.hash).await {
            tracing::error!(vm = %self.hash, "something of it is left: erasing it again");
            tokio::time::sleep(LEDGER_RETRY).await;
            return Ok(());
        }
        self.shared.sweep_files().await;
        self.shared.ledger.release_all(&self.hash).await?;
        self.rules_stale = true;
        self.enter(State::Erased).await
    }

    /// The machine has ended by itself.
    async fn gone(
        &mut self,
        record: &Record,
        reason: ExitReason,
        detail: String,
    ) -> Result<(), LedgerError> {
        self.guest = None;
        let lasted = self.ready.take().map(|since| since.elapsed());
        if lasted.is_some_and(|lasted| lasted >= WELL) {
            self.attempts = 0;
        }
        tracing::info!(vm = %self.hash, ?reason, detail, "the machine ended");
        self.leave(record).await?;
        if self.desired().await? != Desired::Running {
            return self.enter(State::Stopped).await;
        }
        let instance = record.kind == Some(Kind::Instance);
        let said = self
            .last_words
            .take()
            .or((!detail.is_empty()).then_some(detail));
        match reason {
            ExitReason::PowerOff if instance && said.is_none() => {
                self.shared
                    .ledger
                    .want(&self.hash, Desired::Stopped, true)
                    .await?;
                self.enter(State::Stopped).await
            }
            ExitReason::Reset if instance && lasted.is_some() => self.enter(State::Stopped).await,
            ExitReason::Stopped => self.enter(State::Stopped).await,
            ExitReason::PowerOff => {
                self.fail(Setback::crash(
                    said.unwrap_or_else(|| "the program ended".to_owned()),
                ))
                .await
            }
            ExitReason::Reset => {
                self.fail(Setback::crash(
                    said.unwrap_or_else(|| "the guest reset itself".to_owned()),
                ))
                .await
            }
            ExitReason::Failed => {
                self.fail(Setback::crash(
                    said.unwrap_or_else(|| "the machine crashed".to_owned()),
                ))
                .await
            }
        }
    }

    async fn fail_host(&mut self, record: &Record, error: &HostError) -> Result<(), LedgerError> {
        self.leave(record).await?;
        self.fail(Setback::crash(crate::chain(error))).await
    }

    /// Records a failure. A program that was asked for by a request waits for the next one.
    async fn fail(&mut self, setback: Setback) -> Result<(), LedgerError> {
        self.attempts = self.attempts.saturating_add(1);
        let crashes = self.shared.config.limits.crashes;
        for line in console_tail(&self.shared, &self.hash).await {
            tracing::warn!(vm = %self.hash, "console: {line}");
        }
        // First what is wanted, then the state: who waits for the state acts on what is wanted.
        let record = self.record().await?;
        if record.is_some_and(|record| {
            record.source == Source::Request && record.desired == Desired::Running
        }) {
            self.shared
                .ledger
                .want(&self.hash, Desired::Stopped, false)
                .await?;
        }
        self.enter(State::Failed(setback.after(self.attempts, crashes)))
            .await
    }

    async fn follow_console(&self) {
        let console = self.shared.host.console(&self.hash);
        self.shared.logs.follow(&self.hash, &console).await;
    }

    /// Gives back what only a running machine holds.
    async fn leave(&mut self, record: &Record) -> Result<(), LedgerError> {
        self.shared.logs.finish(&self.hash).await;
        if let Err(error) = self.shared.host.clean(&self.hash, place_of(record)).await {
            tracing::error!(vm = %self.hash, "{}", crate::chain(&error));
        }
        self.rules_stale = true;
        self.shared.ledger.release_compute(&self.hash).await
    }

    async fn publish(&self) {
        if let Err(error) = self.shared.firewall.publish().await {
            tracing::error!(vm = %self.hash, "{error}");
        }
    }

    /// Where a program answers; an instance answers on its network.
    fn endpoint_of(&self, workload: &Workload) -> Option<Endpoint> {
        (workload.kind != Kind::Instance).then(|| Endpoint {
            vsock: self.shared.host.vsock(&self.hash),
            seconds: workload.seconds,
        })
    }
}

/// Everything a machine needs before it can start, or why it cannot have it.
async fn gather(
    shared: &Shared,
    record: &Record,
) -> Result<Result<Resolved, Setback>, LedgerError> {
    let hash = &record.hash;
    let refuse = |error: &IntakeError| Setback {
        reason: crate::chain(error),
        transient: error.is_transient(),
        crash: false,
    };
    let verified = match &record.message {
        Some(text) => Intake::kept(hash, text),
        None => shared.intake.message(hash).await,
    };
    let (verified, workload) =
        match verified.and_then(|v| intake::workload(&v).map(|workload| (v, workload))) {
            Ok(both) => both,
            Err(error) => return Ok(Err(refuse(&error))),
        };
    let method = workload.payment.method;
    shared
        .ledger
        .describe(
            hash,
            workload.kind,
            workload.owner.clone(),
            method,
            verified.text,
        )
        .await?;
    let capacity = shared.capacity().await?;
    let lease = match shared
        .ledger
        .admit(hash, workload.demand(), capacity)
        .await?
    {
        Ok(lease) => lease,
        Err(refusal) => return Ok(Err(Setback::transient(refusal.to_string()))),
    };
    let place = Place {
        slot: lease.slot,
        kind: workload.kind,
    };
    if let Err(error) = shared.host.addresses(hash, place) {
        return Ok(Err(Setback {
            reason: crate::chain(&error),
            transient: false,
            crash: false,
        }));
    }
    let (kind, owner) = (workload.kind, workload.owner.clone());
    let resolved = match shared.intake.resolve(workload).await {
        Ok(resolved) => resolved,
        Err(error) => return Ok(Err(refuse(&error))),
    };
    if let Body::Instance { image, size_mib } = &resolved.workload.body
        && resolved
            .files
            .get(&image.hash)
            .is_some_and(|file| file.bytes > size_mib * 1024 * 1024)
    {
        let reason = format!("the disk of {size_mib} MiB is smaller than its image");
        return Ok(Err(Setback {
            reason,
            transient: false,
            crash: false,
        }));
    }
    ports::refresh(shared, hash, kind, &owner).await?;
    match shared.host.make_disks(&resolved, place).await {
        Ok(()) => Ok(Ok(resolved)),
        Err(error) => Ok(Err(Setback::transient(crate::chain(&error)))),
    }
}

/// Removes all of a machine from the host: process, TAP device, sockets, disks, logs.
pub(super) async fn take_away(
    shared: &Shared,
    hash: &ItemHash,
    place: Option<Place>,
) -> Result<(), HostError> {
    shared.host.clean(hash, place).await?;
    shared.host.erase(hash).await
}

fn place_of(record: &Record) -> Option<Place> {
    Some(Place {
        slot: record.lease?.slot,
        kind: record.kind?,
    })
}

/// What a machine's verified message asks for.
pub(super) fn kept_workload(record: &Record) -> Option<Workload> {
    let verified = Intake::kept(&record.hash, record.message.as_ref()?).ok()?;
    intake::workload(&verified).ok()
}

/// When a program that is not used until then counts as idle.
fn idle_at(activity: &Activity, idle: Duration) -> Instant {
    let since = now_us().saturating_sub(activity.last_us.load(Ordering::Relaxed));
    let since = Duration::from_micros(u64::try_from(since).unwrap_or(0));
    if activity.users.load(Ordering::Acquire) > 0 {
        return Instant::now() + idle;
    }
    Instant::now() + idle.saturating_sub(since)
}

fn idle_at_passed(activity: &Activity, idle: Duration) -> bool {
    idle_at(activity, idle) <= Instant::now()
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(86400)
}

/// The last lines of the guest's console.
async fn console_tail(shared: &Shared, hash: &ItemHash) -> Vec<String> {
    use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
    let Ok(mut file) = tokio::fs::File::open(shared.host.console(hash)).await else {
        return Vec::new();
    };
    let length = file.metadata().await.map_or(0, |metadata| metadata.len());
    let mut bytes = Vec::new();
    if file
        .seek(std::io::SeekFrom::Start(
            length.saturating_sub(CONSOLE_TAIL),
        ))
        .await
        .is_err()
        || file
            .take(CONSOLE_TAIL)
            .read_to_end(&mut bytes)
            .await
            .is_err()
    {
        return Vec::new();
    }
    String::from_utf8_lossy(&bytes)
        .lines()
        .map(|line| line.chars().filter(|c| !c.is_control()).collect())
        .collect()
}
