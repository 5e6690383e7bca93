//! What changes machines that are there already: the scheduler's whole list, new disks, a time to stop at, newer files.

use std::collections::{BTreeMap, BTreeSet};

use aleph_message::ItemHash;

use super::{Reconciler, task};
use crate::intake::ccn::{Amending, batches};
use crate::intake::{self, Intake, IntakeError, Verified};
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
        self.amend(Some(original)).await
    }

    /// The same of whatever they use.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn amend_all(&self) -> Result<(), LedgerError> {
        self.amend(None).await
    }

    async fn amend(&self, only: Option<&ItemHash>) -> Result<(), LedgerError> {
        let mut users: BTreeMap<ItemHash, Vec<ItemHash>> = BTreeMap::new();
        for record in self.shared.ledger.all().await? {
            if !has_its_files(&record.state) {
                continue;
            }
            for original in latest_of(&record) {
                if only.is_none_or(|only| *only == original) {
                    users.entry(original).or_default().push(record.hash.clone());
                }
            }
        }
        let originals: Vec<_> = users.keys().cloned().collect();
        for (original, file) in self.shared.intake.latest_files(originals).await {
            for vm in users.get(&original).into_iter().flatten() {
                if !self.shared.host.uses(vm, &file) {
                    tracing::info!(%vm, %original, %file, "a newer file: starting it anew");
                    self.reboot(vm);
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
        // Whatever starts takes the newest.
        if let Some(kept) = record.and_then(|record| versioned(&record)) {
            let newest = self.shared.intake.newest(kept.clone()).await;
            self.take_up_version(kept, newest);
        }
        Ok(())
    }

    /// The same of all machines, with a few questions for all their owners.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn revise_all(&self) -> Result<(), LedgerError> {
        let records = self.shared.ledger.all().await?;
        let mut kinds: BTreeMap<&str, Vec<Verified>> = BTreeMap::new();
        for kept in records.iter().filter_map(versioned) {
            if kept.is_amendable() {
                let kind = kept.envelope.message_type.as_str();
                kinds.entry(kind).or_default().push(kept);
            }
        }
        let intake = &self.shared.intake;
        let owner = |kept: &Verified| (3 * kept.content.address().len(), 0);
        for (kind, machines) in kinds {
            for group in batches(machines, owner) {
                let name = |kept: &Verified| kept.envelope.item_hash.to_string();
                let hashes: Vec<_> = group.iter().map(name).collect();
                let hashes: Vec<_> = hashes.iter().map(String::as_str).collect();
                let owners: BTreeSet<_> = group.iter().map(|k| k.content.address()).collect();
                let owners: Vec<_> = owners.into_iter().collect();
                let of = Amending::Messages {
                    kind,
                    hashes: &hashes,
                    owners: &owners,
                };
                match intake.ccn.amendments(of).await {
                    Ok(listed) if listed.whole => {
                        for kept in group {
                            let newest = intake.newest_among(kept.clone(), &listed.messages).await;
                            self.take_up_version(kept, newest);
                        }
                    }
                    // Too many for one list: those of each owner may not be.
                    Ok(_) => {
                        for kept in group {
                            let newest = intake.newest(kept.clone()).await;
                            self.take_up_version(kept, newest);
                        }
                    }
                    Err(error) => {
                        tracing::warn!("what runs, runs on as it is: {}", crate::chain(&error));
                    }
                }
            }
        }
        Ok(())
    }

    /// Starts a machine anew that runs as `kept`, when its newest version is another one and can run.
    fn take_up_version(&self, kept: Verified, newest: Result<Verified, IntakeError>) {
        let vm = kept.envelope.item_hash.clone();
        let (runs_as, before) = (version_of(&kept), intake::workload(&kept).ok());
        let usable = newest.and_then(|newest| {
            let version = version_of(&newest);
            self.shared.intake.runnable(newest, before.as_ref())?;
            Ok(version)
        });
        match usable {
            Ok(version) if version == runs_as => {}
            Ok(version) => {
                tracing::info!(%vm, ?version, "another version: starting it anew");
                self.reboot(&vm);
            }
            Err(error) => {
                tracing::warn!(%vm, "it runs on as it is: {}", crate::chain(&error));
            }
        }
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
}

/// The version of its message that a machine runs as, or is about to.
fn versioned(record: &Record) -> Option<Verified> {
    if !has_its_version(&record.state) {
        return None;
    }
    Intake::kept(&record.hash, record.message.as_ref()?).ok()
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
