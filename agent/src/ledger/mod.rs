//! The only truth: one SQLite file with what is wanted, what is, and what each machine holds.
//!
//! Comes in: decisions of the API and observations of the reconcile tasks. Goes out: [`Record`]s. A write has reached
//! the disk when its future is ready (`synchronous=FULL`).

mod events;
mod leases;
mod orders;
mod reservations;
pub mod state;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use aleph_message::ItemHash;
use crn_protocol::guest::GuestConfig;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tokio::sync::watch;

pub use self::events::Event;
pub use self::leases::{Capacity, Demand, Lease, PortMapping, PortWish, Refusal};
pub use self::orders::{Allocated, Wipe};
pub use self::state::{Desired, Failure, Kind, Source, State};

/// How long the tombstone of an erased machine is kept, in microseconds: a day.
const TOMBSTONE_US: i64 = 24 * 3600 * 1_000_000;

/// The ledger; clones share one connection.
#[derive(Debug, Clone)]
pub struct Ledger {
    connection: Arc<Mutex<Connection>>,
    /// The number of the latest event.
    latest: Arc<watch::Sender<i64>>,
}

/// One machine.
#[derive(Debug, Clone)]
pub struct Record {
    /// The hash of its message.
    pub hash: ItemHash,
    /// Who brought it.
    pub source: Source,
    /// What is wanted.
    pub desired: Desired,
    /// Stopped by its owner: pushes leave it so.
    pub held: bool,
    /// Where it stands.
    pub state: State,
    /// What it is, once its message is known.
    pub kind: Option<Kind>,
    /// Its owner's address, once its message is known.
    pub owner: Option<String>,
    /// How it is paid for: `hold`, `superfluid` or `credit`.
    pub payment: Option<String>,
    /// The verified message as [`crate::intake`] keeps it.
    pub message: Option<String>,
    /// What its guest is told, since its latest start.
    pub guest: Option<GuestConfig>,
    /// When it reached its states.
    pub times: Times,
    /// Connections that its guest begins are not carried, since its latest start.
    pub secluded: bool,
    /// What it holds.
    pub lease: Option<Lease>,
    /// Its forwarded ports.
    pub ports: Vec<PortMapping>,
    /// Disks to be made anew before the next start.
    pub wipe: Option<Wipe>,
    /// When it is to be stopped, Unix microseconds.
    pub expires: Option<i64>,
}

/// Unix microseconds of the states' beginnings, of the latest start only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the states")]
pub struct Times {
    pub defined: i64,
    pub preparing: Option<i64>,
    pub prepared: Option<i64>,
    pub starting: Option<i64>,
    pub started: Option<i64>,
    pub stopping: Option<i64>,
    pub stopped: Option<i64>,
}

/// Why the ledger could not answer.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// SQLite's reason.
    #[error("the ledger failed")]
    Sql(#[from] rusqlite::Error),
    /// The worker thread ended.
    #[error("the ledger's thread ended")]
    Thread(#[source] tokio::task::JoinError),
}

/// Unix microseconds, now.
#[must_use]
pub fn now_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

impl Ledger {
    /// Opens or makes the ledger. Blocks; meant for the start.
    ///
    /// # Errors
    /// [`LedgerError::Sql`].
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        connection.execute_batch(include_str!("schema.sql"))?;
        connection.execute(
            "DELETE FROM vms WHERE state = 'erased' AND stopped_at < ?1
               AND hash NOT IN (SELECT vm FROM leases) AND hash NOT IN (SELECT vm FROM port_mappings)",
            params![now_us() - TOMBSTONE_US],
        )?;
        connection.execute(
            "DELETE FROM events WHERE at < ?1",
            params![now_us() - events::OLDEST_US],
        )?;
        connection.execute(
            "DELETE FROM secluded WHERE vm NOT IN (SELECT hash FROM vms)",
            [],
        )?;
        let latest = events::latest(&connection)?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            latest: Arc::new(watch::Sender::new(latest)),
        })
    }

    /// Runs `work` in a transaction on a thread that may block.
    async fn transaction<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let connection = Arc::clone(&self.connection);
        tokio::task::spawn_blocking(move || {
            // A panic while it was held rolled its transaction back.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection.transaction()?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        })
        .await
        .map_err(LedgerError::Thread)?
    }

    /// All machines, erased ones included, oldest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn all(&self) -> Result<Vec<Record>, LedgerError> {
        self.transaction(|tx| {
            let mut statement = tx.prepare_cached("SELECT * FROM vms ORDER BY defined_at, hash")?;
            let mut records = statement
                .query_map([], record)?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            for record in &mut records {
                leases::complete(tx, record)?;
            }
            Ok(records)
        })
        .await
    }

    /// The machines that are not erased: their messages' hashes, and how many bytes are known of these.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn present(&self) -> Result<Vec<(ItemHash, Option<usize>)>, LedgerError> {
        self.transaction(|tx| {
            tx.prepare_cached(
                "SELECT hash, length(message) FROM vms WHERE state != 'erased' ORDER BY hash",
            )?
            .query_map([], |row| {
                Ok((parsed(row.get::<_, String>(0)?.parse())?, row.get(1)?))
            })?
            .collect()
        })
        .await
    }

    /// The machines that run, paused ones too.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn running(&self) -> Result<Vec<ItemHash>, LedgerError> {
        self.transaction(|tx| {
            tx.prepare_cached("SELECT hash FROM vms WHERE state IN ('running', 'paused')")?
                .query_map([], |row| parsed(row.get::<_, String>(0)?.parse()))?
                .collect()
        })
        .await
    }

    /// One machine.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn get(&self, hash: &ItemHash) -> Result<Option<Record>, LedgerError> {
        let hash = hash.to_string();
        self.transaction(move |tx| get(tx, &hash)).await
    }

    /// Records that `hash` is wanted to run; an unknown or erased machine is defined anew, a stopped one is woken, a
    /// failed one that gave up is tried again when `retry` says so. Returns what stands in the ledger then.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn want_running(
        &self,
        hash: &ItemHash,
        source: Source,
        retry: bool,
    ) -> Result<Record, LedgerError> {
        let key = hash.to_string();
        self.transaction(move |tx| want_running(tx, &key, source, retry))
            .await
    }

    /// Records that a known machine is to stop or to be erased; `held` when its owner says so. False when unknown.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn want(
        &self,
        hash: &ItemHash,
        desired: Desired,
        held: bool,
    ) -> Result<bool, LedgerError> {
        let key = hash.to_string();
        self.transaction(move |tx| {
            let changed = tx.execute(
                "UPDATE vms SET desired = ?2, held = ?3 WHERE hash = ?1 AND desired != 'erased'",
                params![key, desired.word(), held],
            )?;
            Ok(changed > 0)
        })
        .await
    }

    /// Records a state and the time of reaching it.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn enter(&self, hash: &ItemHash, state: &State) -> Result<(), LedgerError> {
        let key = hash.to_string();
        let state = state.clone();
        let event = self.transaction(move |tx| {
            let now = now_us();
            let times = match &state {
                State::Fetching => {
                    "preparing_at = ?2, prepared_at = NULL, starting_at = NULL, started_at = NULL, stopping_at = NULL,
                     stopped_at = NULL"
                }
                State::Prepared => "prepared_at = ?2",
                State::Starting => "starting_at = ?2",
                State::Running => "started_at = coalesce(started_at, ?2), attempts = 0",
                State::Paused => "started_at = coalesce(started_at, ?2)",
                State::Stopping => "stopping_at = coalesce(stopping_at, ?2)",
                State::Stopped | State::Erased | State::Failed(_) => "stopped_at = coalesce(stopped_at, ?2)",
                State::Defined => "defined_at = coalesce(defined_at, ?2)",
            };
            tx.execute(
                &format!("UPDATE vms SET state = ?3, reason = '', retry_at = NULL, {times} WHERE hash = ?1"),
                params![key, now, state.word()],
            )?;
            match &state {
                State::Failed(failure) => {
                    tx.execute(
                        "UPDATE vms SET reason = ?2, attempts = ?3, retry_at = ?4 WHERE hash = ?1",
                        params![key, failure.reason, failure.attempts, failure.retry_at],
                    )?;
                }
                State::Erased => {
                    tx.execute("UPDATE vms SET message = NULL, guest = NULL WHERE hash = ?1", params![key])?;
                }
                _ => {}
            }
            let reason = match &state {
                State::Failed(failure) => failure.reason.as_str(),
                _ => "",
            };
            events::note(tx, &key, state.word(), reason)
        })
        .await?;
        self.latest.send_if_modified(|latest| {
            let newer = event > *latest;
            *latest = event.max(*latest);
            newer
        });
        Ok(())
    }

    /// Records what the verified message says about a machine.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn describe(
        &self,
        hash: &ItemHash,
        kind: Kind,
        owner: String,
        payment: &'static str,
        message: String,
    ) -> Result<(), LedgerError> {
        let key = hash.to_string();
        self.transaction(move |tx| {
            tx.execute(
                "UPDATE vms SET kind = ?2, owner = ?3, payment = ?4, message = ?5 WHERE hash = ?1",
                params![key, kind.word(), owner, payment, message],
            )
            .map(drop)
        })
        .await
    }
}

impl Ledger {
    /// Records what a machine's guest is told, and whether connections that it begins are carried.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn tell_guest(
        &self,
        hash: &ItemHash,
        guest: &GuestConfig,
        internet: bool,
    ) -> Result<(), LedgerError> {
        let key = hash.to_string();
        let guest = parsed(serde_json::to_string(guest))?;
        self.transaction(move |tx| {
            tx.execute(
                "UPDATE vms SET guest = ?2 WHERE hash = ?1",
                params![key, guest],
            )?;
            let note = if internet {
                "DELETE FROM secluded WHERE vm = ?1"
            } else {
                "INSERT OR IGNORE INTO secluded (vm) VALUES (?1)"
            };
            tx.execute(note, params![key]).map(drop)
        })
        .await
    }
}

/// See [`Ledger::want_running`].
fn want_running(
    tx: &Connection,
    key: &str,
    source: Source,
    retry: bool,
) -> rusqlite::Result<Record> {
    match get(tx, key)? {
        Some(record) if record.state != State::Erased => {
            let source = strongest(record.source, source);
            let again = retry && matches!(record.state, State::Failed(_));
            if record.desired != Desired::Running || record.held || record.source != source || again
            {
                tx.execute(
                    "UPDATE vms SET source = ?2, desired = 'running', held = 0 WHERE hash = ?1",
                    params![key, source.word()],
                )?;
            }
            if again {
                tx.execute(
                    "UPDATE vms SET state = 'defined', reason = '', attempts = 0, retry_at = NULL
                     WHERE hash = ?1",
                    params![key],
                )?;
            }
        }
        _ => {
            tx.execute(
                "INSERT OR REPLACE INTO vms (hash, source, desired, state, defined_at)
                 VALUES (?1, ?2, 'running', 'defined', ?3)",
                params![key, source.word(), now_us()],
            )?;
        }
    }
    get(tx, key)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

/// A notification outlasts pushes, and both outlast requests.
const fn strongest(before: Source, now: Source) -> Source {
    match (before, now) {
        (Source::Notify, _) | (_, Source::Notify) => Source::Notify,
        (Source::Scheduler, _) | (_, Source::Scheduler) => Source::Scheduler,
        (Source::Request, Source::Request) => Source::Request,
    }
}

fn get(tx: &Connection, hash: &str) -> rusqlite::Result<Option<Record>> {
    let mut statement = tx.prepare_cached("SELECT * FROM vms WHERE hash = ?1")?;
    let found = statement.query_row(params![hash], record).optional()?;
    found
        .map(|mut record| {
            leases::complete(tx, &mut record)?;
            Ok(record)
        })
        .transpose()
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let failure = Failure {
        reason: row.get("reason")?,
        attempts: row.get("attempts")?,
        retry_at: row.get("retry_at")?,
    };
    let state: String = row.get("state")?;
    let kind: Option<String> = row.get("kind")?;
    let guest: Option<String> = row.get("guest")?;
    Ok(Record {
        hash: parsed(row.get::<_, String>("hash")?.parse())?,
        source: parsed(row.get::<_, String>("source")?.parse())?,
        desired: parsed(row.get::<_, String>("desired")?.parse())?,
        held: row.get("held")?,
        state: parsed(State::from_word(&state, failure))?,
        kind: kind.map(|kind| parsed(kind.parse())).transpose()?,
        owner: row.get("owner")?,
        payment: row.get("payment")?,
        message: row.get("message")?,
        guest: guest
            .map(|guest| parsed(serde_json::from_str(&guest)))
            .transpose()?,
        times: Times {
            defined: row.get("defined_at")?,
            preparing: row.get("preparing_at")?,
            prepared: row.get("prepared_at")?,
            starting: row.get("starting_at")?,
            started: row.get("started_at")?,
            stopping: row.get("stopping_at")?,
            stopped: row.get("stopped_at")?,
        },
        secluded: false,
        lease: None,
        ports: Vec::new(),
        wipe: None,
        expires: None,
    })
}

fn parsed<T, E: std::error::Error + Send + Sync + 'static>(
    result: Result<T, E>,
) -> rusqlite::Result<T> {
    result.map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}

#[cfg(test)]
mod tests;
