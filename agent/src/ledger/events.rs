//! What happened to machines, in order, so that whoever looked away can catch up.

use aleph_message::ItemHash;
use rusqlite::{Connection, params};
use tokio::sync::watch;

use super::{Ledger, LedgerError, now_us, parsed};

/// Events kept for each machine.
const KEPT: i64 = 200;
/// Events older than this go at the next start, in microseconds: thirty days.
pub(super) const OLDEST_US: i64 = 30 * 24 * 3600 * 1_000_000;

/// A machine has reached a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Grows by one an event.
    pub id: i64,
    /// Unix microseconds.
    pub at: i64,
    /// The machine.
    pub vm: ItemHash,
    /// The state's word.
    pub state: String,
    /// Why, of a failure; else empty.
    pub reason: String,
}

impl Ledger {
    /// Events after the one numbered `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn events(
        &self,
        vm: Option<&ItemHash>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Event>, LedgerError> {
        let vm = vm.map(ToString::to_string);
        self.transaction(move |tx| {
            tx.prepare_cached(
                "SELECT id, at, vm, state, reason FROM events
                 WHERE id > ?1 AND (?2 IS NULL OR vm = ?2) ORDER BY id LIMIT ?3",
            )?
            .query_map(params![after, vm, limit], |row| {
                Ok(Event {
                    id: row.get(0)?,
                    at: row.get(1)?,
                    vm: parsed(row.get::<_, String>(2)?.parse())?,
                    state: row.get(3)?,
                    reason: row.get(4)?,
                })
            })?
            .collect()
        })
        .await
    }

    /// The number of the latest event; it changes with each.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<i64> {
        self.latest.subscribe()
    }
}

/// Writes an event down; the number it has.
pub(super) fn note(tx: &Connection, vm: &str, state: &str, reason: &str) -> rusqlite::Result<i64> {
    tx.prepare_cached("INSERT INTO events (at, vm, state, reason) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![now_us(), vm, state, reason])?;
    let id = tx.last_insert_rowid();
    tx.prepare_cached(
        "DELETE FROM events WHERE vm = ?1 AND id <=
           (SELECT id FROM events WHERE vm = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute(params![vm, KEPT])?;
    Ok(id)
}

/// The number of the latest event.
pub(super) fn latest(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT coalesce(max(id), 0) FROM events", [], |row| {
        row.get(0)
    })
}
