//! What is asked of machines beside running: a whole list of them at once, disks anew, an end at a time; and that no
//! signed request is carried out twice.

use std::collections::BTreeSet;

use aleph_message::ItemHash;
use rusqlite::{OptionalExtension as _, params};

use super::{Desired, Ledger, LedgerError, Source, State, get, parsed, want_running};

/// Disks that are to be made anew before the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wipe {
    /// The persistent volumes too, not only the root.
    pub volumes: bool,
}

/// What a whole list of wanted machines changed.
#[derive(Debug, Default)]
pub struct Allocated {
    /// Each wanted machine, and why it failed if it has.
    pub standing: Vec<(ItemHash, Option<String>)>,
    /// Those that are to stop because the list does not name them.
    pub stopped: Vec<ItemHash>,
    /// Those of which something else is wanted than before.
    pub changed: Vec<ItemHash>,
}

impl Ledger {
    /// Makes `wanted` all that the scheduler wants here, in one transaction: what it wanted before and does not name
    /// any more is to stop. What its owner stopped stays so.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn allocate(&self, wanted: BTreeSet<ItemHash>) -> Result<Allocated, LedgerError> {
        self.transaction(move |tx| {
            let mut outcome = Allocated::default();
            let scheduled = tx
                .prepare_cached("SELECT hash FROM vms WHERE source = 'scheduler'")?
                .query_map([], |row| parsed(row.get::<_, String>(0)?.parse()))?
                .collect::<rusqlite::Result<Vec<ItemHash>>>()?;
            for hash in scheduled {
                if wanted.contains(&hash) {
                    continue;
                }
                let key = hash.to_string();
                // The next list that names it starts it, whoever stopped it.
                tx.prepare_cached("UPDATE vms SET held = 0 WHERE hash = ?1 AND held")?
                    .execute(params![key])?;
                let changed = tx
                    .prepare_cached(
                        "UPDATE vms SET desired = 'stopped' WHERE hash = ?1 AND desired IN ('running', 'paused')",
                    )?
                    .execute(params![key])?;
                if changed > 0 {
                    outcome.stopped.push(hash.clone());
                    outcome.changed.push(hash);
                }
            }
            for hash in wanted {
                let key = hash.to_string();
                let before = get(tx, &key)?;
                if before.as_ref().is_some_and(|record| record.held) {
                    outcome.standing.push((hash, None));
                    continue;
                }
                let after = want_running(tx, &key, Source::Scheduler, false)?;
                let unchanged = before.is_some_and(|before| {
                    before.state == after.state
                        && before.desired == after.desired
                        && before.source == after.source
                });
                if !unchanged {
                    outcome.changed.push(hash.clone());
                }
                let failure = match after.state {
                    State::Failed(failure) => Some(failure.reason),
                    _ => None,
                };
                outcome.standing.push((hash, failure));
            }
            Ok(outcome)
        })
        .await
    }

    /// Records that a machine's disks are to be made anew, and that it is wanted to run with them. False when unknown.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn want_wiped(&self, hash: &ItemHash, wipe: Wipe) -> Result<bool, LedgerError> {
        let key = hash.to_string();
        self.transaction(move |tx| {
            let known = get(tx, &key)?.filter(|record| record.desired != Desired::Erased);
            let Some(record) = known else {
                return Ok(false);
            };
            tx.execute(
                "INSERT INTO wipes (vm, volumes) VALUES (?1, ?2)
                 ON CONFLICT (vm) DO UPDATE SET volumes = max(volumes, excluded.volumes)",
                params![key, wipe.volumes],
            )?;
            want_running(tx, &key, record.source, true)?;
            Ok(true)
        })
        .await
    }

    /// Records that what [`Ledger::want_wiped`] asked for is done.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn wiped(&self, hash: &ItemHash) -> Result<(), LedgerError> {
        let key = hash.to_string();
        self.transaction(move |tx| {
            tx.execute("DELETE FROM wipes WHERE vm = ?1", params![key])
                .map(drop)
        })
        .await
    }

    /// Records that a machine that runs is to stand still, as its owner says; false when it does not run.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn want_paused(&self, hash: &ItemHash) -> Result<bool, LedgerError> {
        let key = hash.to_string();
        self.transaction(move |tx| {
            let changed = tx.execute(
                "UPDATE vms SET desired = 'paused', held = 1
                 WHERE hash = ?1 AND desired IN ('running', 'paused') AND state IN ('running', 'paused')",
                params![key],
            )?;
            Ok(changed > 0)
        })
        .await
    }

    /// Records that nothing is to be left of a machine, unless it is wanted again by now.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn erase_unwanted(&self, hash: &ItemHash) -> Result<bool, LedgerError> {
        let key = hash.to_string();
        self.transaction(move |tx| {
            let changed = tx.execute(
                "UPDATE vms SET desired = 'erased' WHERE hash = ?1 AND desired = 'stopped'",
                params![key],
            )?;
            Ok(changed > 0)
        })
        .await
    }

    /// Records when a machine is to be stopped, or that it is not.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn expire(&self, hash: &ItemHash, at: Option<i64>) -> Result<(), LedgerError> {
        let key = hash.to_string();
        self.transaction(move |tx| {
            match at {
                Some(at) => tx.execute(
                    "INSERT OR REPLACE INTO expirations (vm, at) VALUES (?1, ?2)",
                    params![key, at],
                ),
                None => tx.execute("DELETE FROM expirations WHERE vm = ?1", params![key]),
            }
            .map(drop)
        })
        .await
    }

    /// The machine that is to be stopped next, and when (Unix microseconds).
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn next_expiration(&self) -> Result<Option<(ItemHash, i64)>, LedgerError> {
        self.transaction(|tx| {
            tx.prepare_cached("SELECT vm, at FROM expirations ORDER BY at LIMIT 1")?
                .query_row([], |row| {
                    Ok((parsed(row.get::<_, String>(0)?.parse())?, row.get(1)?))
                })
                .optional()
        })
        .await
    }

    /// Marks a signed request as carried out; false when it was before. `until` and `now` are Unix seconds.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn use_once(
        &self,
        digest: [u8; 32],
        until: i64,
        now: i64,
    ) -> Result<bool, LedgerError> {
        self.transaction(move |tx| {
            tx.prepare_cached("DELETE FROM used_signatures WHERE until < ?1")?
                .execute(params![now])?;
            let added = tx
                .prepare_cached(
                    "INSERT OR IGNORE INTO used_signatures (digest, until) VALUES (?1, ?2)",
                )?
                .execute(params![digest, until])?;
            Ok(added > 0)
        })
        .await
    }
}
