//! One machine's task: the step that [`next_step`] names, written down, again and again. What it needs to start is in
//! [`gather`], how it ends in [`end`].

mod end;
mod gather;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aleph_message::ItemHash;
use crn_protocol::control::ExitReason;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

pub(super) use self::end::take_away;
use self::gather::gather;
use super::host::{Guest, GuestEvent, Place};
use super::setback::Setback;
use super::{Activity, Endpoint, Orders, Shared, View};
use crate::intake::workload::{Body, Resolved, Workload};
use crate::intake::{self, Intake};
use crate::ledger::state::{Step, next_step};
use crate::ledger::{Desired, LedgerError, Record, Source, State, Wipe, now_us};

/// Between two attempts to reach a ledger that fails.
const LEDGER_RETRY: Duration = Duration::from_secs(1);

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
                if matches!(record.state, State::Running | State::Paused) {
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
                if record.desired == Desired::Paused {
                    self.forget_pause().await?;
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
        self.reboots = orders.reboot;
        let prepares = matches!(record.state, State::Fetching | State::Prepared);
        if prepares && (anew || record.desired != Desired::Running) {
            // What it was prepared with is not what counts, or for nothing.
            self.shared.ledger.release_compute(&self.hash).await?;
            return self
                .enter(match record.desired {
                    Desired::Running => State::Defined,
                    _ => State::Stopped,
                })
                .await;
        }
        let runs = matches!(
            record.state,
            State::Starting | State::Running | State::Paused
        );
        let step = if anew && runs {
            Step::Stop
        } else {
            next_step(record.desired, &record.state, now_us())
        };
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
            Step::Pause => self.pause(true).await,
            Step::Resume => self.pause(false).await,
            Step::Stop => self.stop(&record).await,
            Step::Erase => self.erase(&record).await,
            Step::Wait => match record.state {
                State::Running | State::Paused => self.attend(&record).await,
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

    /// Whether a start anew was demanded since the last turn.
    fn is_to_begin_anew(&self) -> bool {
        self.orders.borrow().reboot > self.reboots
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
                    if self.is_to_begin_anew() {
                        return Ok(());
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
        let internet = resolved.workload.internet;
        self.shared
            .ledger
            .tell_guest(&self.hash, &told, internet)
            .await?;
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
                    if changed.is_err()
                        || self.desired().await? != Desired::Running
                        || self.is_to_begin_anew()
                    {
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

    /// Holds a guest still, or lets it go on. Repeated after a crash in between, neither changes anything.
    async fn pause(&mut self, hold: bool) -> Result<(), LedgerError> {
        let done = match &mut self.guest {
            Some(guest) if hold => guest.pause().await,
            Some(guest) => guest.resume().await,
            // It has just gone: the wait for its events says how.
            None => Ok(()),
        };
        if let Err(error) = done {
            tracing::warn!(vm = %self.hash, "{}", crate::chain(&error));
            tokio::time::sleep(LEDGER_RETRY).await;
            // If it has ended, its last event is there by now.
            return match self.record().await? {
                Some(record) => self.heed_end(&record).await,
                None => Ok(()),
            };
        }
        // A paused program is not an idle one.
        self.activity.last_us.store(now_us(), Ordering::Relaxed);
        self.enter(if hold { State::Paused } else { State::Running })
            .await
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

    async fn follow_console(&self) {
        let console = self.shared.host.console(&self.hash);
        self.shared.logs.follow(&self.hash, &console).await;
    }

    async fn publish(&self) {
        if let Err(error) = self.shared.firewall.publish().await {
            tracing::error!(vm = %self.hash, "{error}");
        }
    }

    /// Where a program answers; an instance answers on its network.
    fn endpoint_of(&self, workload: &Workload) -> Option<Endpoint> {
        let Body::Program { code, http, .. } = &workload.body else {
            return None;
        };
        Some(Endpoint {
            vsock: self.shared.host.vsock(&self.hash),
            seconds: workload.seconds,
            code: code.hash.clone(),
            http: *http,
        })
    }
}

fn place_of(record: &Record) -> Option<Place> {
    Some(Place {
        slot: record.lease?.slot,
        kind: record.kind?,
    })
}

/// What a machine's verified message asks for.
pub(crate) fn kept_workload(record: &Record) -> Option<Workload> {
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
