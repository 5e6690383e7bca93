//! How a machine ends: stopped, erased, gone by itself, or failed; and what it gives back then.

use std::time::Duration;

use aleph_message::ItemHash;
use crn_protocol::control::ExitReason;
use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout_at};

use super::super::Shared;
use super::super::host::{GuestEvent, HostError, Place};
use super::super::setback::Setback;
use super::{LEDGER_RETRY, Task, place_of};
use crate::ledger::{Desired, Kind, LedgerError, Record, Source, State};

/// How long an instance has to shut down when asked to.
const INSTANCE_GRACE: Duration = Duration::from_secs(50);
/// How long a program has.
const PROGRAM_GRACE: Duration = Duration::from_secs(5);
/// A machine that ran this long was well: its earlier failures are forgotten.
const WELL: Duration = Duration::from_secs(60);
/// Of the console's end, in bytes, shown in the log when a machine fails.
const CONSOLE_TAIL: u64 = 2048;

impl Task {
    /// Asks the guest to stop and gives it time, unless it is to be erased; then ends the machine.
    pub(super) async fn stop(&mut self, record: &Record) -> Result<(), LedgerError> {
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
            // A guest that stands still hears nothing.
            let awake = match record.state {
                State::Paused => guest.resume().await,
                _ => Ok(()),
            };
            let asked = match awake {
                Ok(()) => guest.ask_to_stop().await,
                refused => refused,
            };
            match asked {
                Ok(()) => self.await_exit(deadline).await?,
                Err(error) => tracing::warn!(vm = %self.hash, "{}", crate::chain(&error)),
            }
        }
        self.kill().await;
        self.leave(record).await?;
        self.enter(State::Stopped).await
    }

    /// Until the machine is gone, the time is up, or it is to be erased.
    pub(super) async fn await_exit(&mut self, deadline: Instant) -> Result<(), LedgerError> {
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

    /// Looks whether the machine has ended, without waiting for it.
    pub(super) async fn heed_end(&mut self, record: &Record) -> Result<(), LedgerError> {
        let said = match &mut self.guest {
            Some(guest) => guest.event().now_or_never(),
            None => None,
        };
        match said {
            Some(GuestEvent::Exited { reason, detail }) => self.gone(record, reason, detail).await,
            _ if self.guest.is_none() => self.gone(record, ExitReason::Failed, String::new()).await,
            _ => Ok(()),
        }
    }

    pub(super) async fn kill(&mut self) {
        if let Some(mut guest) = self.guest.take()
            && let Err(error) = guest.stop().await
        {
            tracing::error!(vm = %self.hash, "{}", crate::chain(&error));
        }
    }

    pub(super) async fn erase(&mut self, record: &Record) -> Result<(), LedgerError> {
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
        self.shared.sweep_files(self.shared.keep()).await;
        self.shared.ledger.release_all(&self.hash).await?;
        // The rules went when it stopped.
        self.enter(State::Erased).await
    }

    /// The machine has ended by itself.
    pub(super) async fn gone(
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
        let desired = self.desired().await?;
        if desired == Desired::Paused {
            self.forget_pause().await?;
        }
        if desired != Desired::Running {
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

    /// What a paused machine had in memory is lost: it is one that its owner stopped.
    pub(super) async fn forget_pause(&self) -> Result<(), LedgerError> {
        let ledger = &self.shared.ledger;
        ledger
            .want(&self.hash, Desired::Stopped, true)
            .await
            .map(drop)
    }

    pub(super) async fn fail_host(
        &mut self,
        record: &Record,
        error: &HostError,
    ) -> Result<(), LedgerError> {
        self.leave(record).await?;
        self.fail(Setback::crash(crate::chain(error))).await
    }

    /// Records a failure. A program that was asked for by a request waits for the next one.
    pub(super) async fn fail(&mut self, setback: Setback) -> Result<(), LedgerError> {
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

    /// Gives back what only a running machine holds.
    pub(super) async fn leave(&mut self, record: &Record) -> Result<(), LedgerError> {
        self.shared.logs.finish(&self.hash).await;
        if let Err(error) = self.shared.host.clean(&self.hash, place_of(record)).await {
            tracing::error!(vm = %self.hash, "{}", crate::chain(&error));
        }
        self.rules_stale = true;
        self.shared.ledger.release_compute(&self.hash).await
    }
}

/// Removes all of a machine from the host: process, TAP device, sockets, disks, logs.
pub(in super::super) async fn take_away(
    shared: &Shared,
    hash: &ItemHash,
    place: Option<Place>,
) -> Result<(), HostError> {
    shared.host.clean(hash, place).await?;
    shared.host.erase(hash).await
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
