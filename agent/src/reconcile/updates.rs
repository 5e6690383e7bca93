//! What changes machines that are there already: the scheduler's whole list, new disks, a time to stop at, newer files.

use std::collections::BTreeSet;

use aleph_message::ItemHash;

use super::{Reconciler, task};
use crate::intake::workload::Body;
use crate::ledger::{Allocated, LedgerError, Record, State, Wipe};

impl Reconciler {
    /// Makes `wanted` all that the scheduler wants here and sees to it.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn allocate(&self, wanted: BTreeSet<ItemHash>) -> Result<Allocated, LedgerError> {
        let outcome = self.shared.ledger.allocate(wanted).await?;
        for hash in &outcome.changed {
            self.poke(hash, false);
        }
        Ok(outcome)
    }

    /// Records that a machine is to run on new disks: a new root, and with `volumes` new volumes too. False when it is
    /// unknown.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn reinstall(&self, hash: &ItemHash, volumes: bool) -> Result<bool, LedgerError> {
        let known = self
            .shared
            .ledger
            .want_wiped(hash, Wipe { volumes })
            .await?;
        if known {
            self.poke(hash, true);
        }
        Ok(known)
    }

    /// Records that a machine is to be stopped at a time (Unix microseconds), or no longer so.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn expire(&self, hash: &ItemHash, at: Option<i64>) -> Result<(), LedgerError> {
        self.shared.ledger.expire(hash, at).await?;
        self.shared.expirations.notify_one();
        Ok(())
    }

    /// Starts anew the running machines that use the newest amendment of `original`, when that is another file than
    /// the one they run with. The disk an instance began with is its own since then.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn amended(&self, original: &ItemHash) -> Result<(), LedgerError> {
        for record in self.shared.ledger.all().await? {
            if record.state != State::Running || !latest_of(&record).contains(original) {
                continue;
            }
            match self.shared.intake.latest_file(original).await {
                Ok(file) if self.shared.host.uses(&record.hash, &file) => {}
                Ok(file) => {
                    tracing::info!(vm = %record.hash, %original, %file, "a newer file: starting it anew");
                    self.reboot(&record.hash);
                }
                Err(error) => {
                    tracing::warn!(vm = %record.hash, "the amendment is passed over: {}", crate::chain(&error));
                }
            }
        }
        Ok(())
    }

    /// The STORE messages of which some running machine means the newest amendment.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn latest_references(&self) -> Result<BTreeSet<ItemHash>, LedgerError> {
        let records = self.shared.ledger.all().await?;
        let running = records
            .iter()
            .filter(|record| record.state == State::Running);
        Ok(running.flat_map(latest_of).collect())
    }
}

/// The STORE messages of which a machine means the newest amendment, for anything but the disk it began with.
fn latest_of(record: &Record) -> Vec<ItemHash> {
    let Some(workload) = task::kept_workload(record) else {
        return Vec::new();
    };
    let root = match &workload.body {
        Body::Instance { image, .. } => Some(image.hash.clone()),
        Body::Program { .. } => None,
    };
    let references = workload.references().into_iter();
    references
        .filter(|reference| reference.use_latest && root.as_ref() != Some(&reference.hash))
        .map(|reference| reference.hash.clone())
        .collect()
}
