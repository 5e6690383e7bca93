//! What changes machines that are there already: the scheduler's whole list, new disks, a time to stop at, newer files.

use std::collections::BTreeSet;

use aleph_message::ItemHash;

use super::{Reconciler, task};
use crate::intake::{self, Intake, Verified};
use crate::ledger::{Allocated, Desired, LedgerError, Record, State, Wipe};

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

    /// Records that a running machine is to stand still, as its owner says; false when it does not run.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn pause(&self, hash: &ItemHash) -> Result<bool, LedgerError> {
        let runs = self.shared.ledger.want_paused(hash).await?;
        if runs {
            self.poke(hash, false);
        }
        Ok(runs)
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

    /// Starts anew the machines that run or are about to and use the newest amendment of `original`, when that is another
    /// file than the one they run with. What a disk began as is the machine's own since then.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn amended(&self, original: &ItemHash) -> Result<(), LedgerError> {
        for record in self.shared.ledger.all().await? {
            if !has_its_files(&record.state) || !latest_of(&record).contains(original) {
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

    /// Starts a machine anew, which runs or is about to, when its message has another newest version than the one it runs
    /// as.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn revised(&self, hash: &ItemHash) -> Result<(), LedgerError> {
        let record = self.shared.ledger.get(hash).await?;
        let Some(record) = record.filter(|record| has_its_version(&record.state)) else {
            // Whatever starts takes the newest.
            return Ok(());
        };
        let Some(Ok(kept)) = record.message.map(|text| Intake::kept(hash, &text)) else {
            return Ok(());
        };
        let runs_as = version_of(&kept);
        let before = intake::workload(&kept).ok();
        let newest = self.shared.intake.newest(kept).await;
        let usable = newest.and_then(|newest| {
            intake::successor(&newest, before.as_ref())?;
            Ok(version_of(&newest))
        });
        match usable {
            Ok(version) if version == runs_as => {}
            Ok(version) => {
                tracing::info!(vm = %hash, ?version, "another version: starting it anew");
                self.reboot(hash);
            }
            Err(error) => {
                tracing::warn!(vm = %hash, "it runs on as it is: {}", crate::chain(&error));
            }
        }
        Ok(())
    }

    /// Tries a machine again that was given up, when `version` is what its owner has made of its message since.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn retry_as(&self, hash: &ItemHash, version: &ItemHash) -> Result<(), LedgerError> {
        let given_up = |record: &Record| {
            record.desired == Desired::Running
                && matches!(&record.state, State::Failed(failure) if failure.retry_at.is_none())
        };
        let record = self.shared.ledger.get(hash).await?;
        let Some(record) = record.filter(given_up) else {
            return Ok(());
        };
        let intake = &self.shared.intake;
        let known = match &record.message {
            Some(text) => Intake::kept(hash, text),
            None => intake.message(hash).await,
        };
        let newest = match known {
            Ok(known) => intake.newest(known).await,
            Err(error) => Err(error),
        };
        match newest {
            Ok(newest) if version_of(&newest).as_ref() == Some(version) => {
                tracing::info!(vm = %hash, %version, "another version: trying it again");
                self.run(hash, record.source, true).await?;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(vm = %hash, "it is not tried again: {}", crate::chain(&error));
            }
        }
        Ok(())
    }

    /// Takes the machines that run as one of these versions, which are forgotten, back to what is left.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn withdrawn(&self, versions: &[ItemHash]) -> Result<(), LedgerError> {
        for record in self.shared.ledger.all().await? {
            let text = record.message.as_deref();
            let kept = text.filter(|text| versions.iter().any(|v| text.contains(v.as_str())));
            let kept = kept.and_then(|text| Intake::kept(&record.hash, text).ok());
            let version = kept.as_ref().and_then(version_of);
            if version.is_some_and(|version| versions.contains(&version)) {
                self.revised(&record.hash).await?;
            }
        }
        Ok(())
    }

    /// The STORE messages of which some machine that runs, or is about to, means the newest amendment.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn latest_references(&self) -> Result<BTreeSet<ItemHash>, LedgerError> {
        let records = self.shared.ledger.all().await?;
        let running = records.iter().filter(|record| has_its_files(&record.state));
        Ok(running.flat_map(latest_of).collect())
    }
}

/// Whether a machine in this state has taken up one version of its message. One that is paused is left alone until it goes
/// on.
const fn has_its_version(state: &State) -> bool {
    matches!(state, State::Fetching) || has_its_files(state)
}

/// Whether it has taken up its files too.
const fn has_its_files(state: &State) -> bool {
    matches!(state, State::Prepared | State::Starting | State::Running)
}

/// The amendment whose content counts.
fn version_of(message: &Verified) -> Option<ItemHash> {
    let amendment = message.amendment.as_ref();
    amendment.map(|amendment| amendment.envelope.item_hash.clone())
}

/// The STORE messages of which a machine means the newest amendment, for anything but what its disks began as.
fn latest_of(record: &Record) -> Vec<ItemHash> {
    let Some(workload) = task::kept_workload(record) else {
        return Vec::new();
    };
    let own: Vec<_> = workload.disk_images().into_iter().cloned().collect();
    let references = workload.references().into_iter();
    references
        .filter(|reference| reference.use_latest && !own.contains(reference))
        .map(|reference| reference.hash.clone())
        .collect()
}
