//! What happens by the clock: machines end at the time their owner set, what they use is sampled, and what nobody wants
//! any more goes.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::{Reconciler, gc};
use crate::content::unused::Unused;
use crate::ledger::{LedgerError, now_us};
use crate::metrics::history::{INTERVAL, Sample};

/// The longest sleep: the host's clock may be set.
const LONGEST: Duration = Duration::from_secs(60);
/// Between two looks for what nobody wants any more.
const COLLECT: Duration = Duration::from_secs(600);
/// The wait after an error of the ledger.
const RETRY: Duration = Duration::from_secs(5);

/// Starts them all.
pub(super) fn start(reconciler: &Reconciler) {
    let (expiring, sampling, collecting) =
        (reconciler.clone(), reconciler.clone(), reconciler.clone());
    tokio::spawn(async move { expire_for_ever(&expiring).await });
    tokio::spawn(async move { sample_for_ever(&sampling).await });
    tokio::spawn(async move { collect_for_ever(&collecting).await });
}

async fn expire_for_ever(reconciler: &Reconciler) {
    loop {
        let wait = expire(reconciler).await.unwrap_or_else(|error| {
            tracing::error!("{}", crate::chain(&error));
            RETRY
        });
        // A new time may be sooner; either way the ledger is looked at again.
        let _ = tokio::time::timeout(wait, reconciler.shared.expirations.notified()).await;
    }
}

/// Stops what is to be stopped by now; how long until the next.
async fn expire(reconciler: &Reconciler) -> Result<Duration, LedgerError> {
    let ledger = &reconciler.shared.ledger;
    while let Some((hash, at)) = ledger.next_expiration().await? {
        let left = at.saturating_sub(now_us());
        if left > 0 {
            let left = Duration::from_micros(u64::try_from(left).unwrap_or(0));
            return Ok(left.min(LONGEST));
        }
        tracing::info!(vm = %hash, "its time is up");
        // Stopped first: killed in between, the next agent stops it again.
        reconciler.stop(&hash, true).await?;
        ledger.expire(&hash, None).await?;
    }
    Ok(LONGEST)
}

async fn sample_for_ever(reconciler: &Reconciler) {
    loop {
        if let Err(error) = sample(reconciler).await {
            tracing::error!("{}", crate::chain(&error));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn sample(reconciler: &Reconciler) -> Result<(), LedgerError> {
    let shared = &reconciler.shared;
    let running = shared.ledger.running().await?;
    let counted = join_all(running.iter().map(|hash| {
        let host = Arc::clone(&shared.host);
        async move { (hash, host.counters(hash).await) }
    }))
    .await;
    for (hash, counters) in counted {
        if let Some(counters) = counters {
            let sample = Sample {
                at: now_us(),
                counters,
            };
            shared.history.add(hash, sample);
        }
    }
    let present = shared.ledger.present().await?;
    let present: HashSet<_> = present.into_iter().map(|(hash, _)| hash).collect();
    shared.history.retain(|hash| present.contains(hash));
    Ok(())
}

async fn collect_for_ever(reconciler: &Reconciler) {
    loop {
        match reconciler.collectable().await {
            Ok(decisions) => {
                for decision in decisions.into_iter().filter(|decision| decision.goes) {
                    tracing::info!(vm = %decision.vm, "erasing: {}", decision.reason);
                    if let Err(error) = reconciler.collect(&decision).await {
                        tracing::error!(vm = %decision.vm, "{}", crate::chain(&error));
                    }
                }
            }
            Err(error) => tracing::error!("{}", crate::chain(&error)),
        }
        let shared = &reconciler.shared;
        shared.sweep_files(shared.keep()).await;
        tokio::time::sleep(COLLECT).await;
    }
}

impl Reconciler {
    /// What garbage collection would do now with each machine, and why.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn collectable(&self) -> Result<Vec<gc::Decision>, LedgerError> {
        let shared = &self.shared;
        let records = shared.ledger.all().await?;
        let capacity = shared.capacity().await?;
        Ok(gc::plan(
            &records,
            capacity,
            &shared.config.retention,
            now_us(),
        ))
    }

    /// What becomes of each file of the cache that no machine uses, and why.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn unused_files(&self) -> io::Result<Vec<Unused>> {
        let (intake, keep) = (self.shared.intake.clone(), self.shared.keep());
        tokio::task::spawn_blocking(move || intake.cache().unused(keep)).await?
    }

    /// Takes away those that go.
    pub async fn sweep_files(&self) {
        self.shared.sweep_files(self.shared.keep()).await;
    }

    /// Carries out one decision of [`Reconciler::collectable`], unless the machine is wanted again by now.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn collect(&self, decision: &gc::Decision) -> Result<bool, LedgerError> {
        let erased = self.shared.ledger.erase_unwanted(&decision.vm).await?;
        if erased {
            self.poke(&decision.vm, false);
        }
        Ok(erased)
    }
}
