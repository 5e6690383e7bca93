//! Messages that wait for something, and for what.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use super::StoreError;

/// A message that is not decided yet.
#[derive(Debug, Clone)]
pub struct Pending {
    /// Item hash.
    pub item_hash: String,
    /// The envelope as it came.
    pub envelope: Value,
    /// Unix seconds.
    pub reception_time: f64,
    /// Attempts that failed.
    pub retries: u32,
    /// Unix seconds of the next attempt.
    pub next_attempt: f64,
}

fn pending(row: &Row<'_>) -> rusqlite::Result<(String, String, f64, u32, f64)> {
    Ok((
        row.get(0)?,
        row.get(1)?,
        row.get(2)?,
        row.get(3)?,
        row.get(4)?,
    ))
}

fn decode(row: (String, String, f64, u32, f64)) -> Result<Pending, StoreError> {
    Ok(Pending {
        item_hash: row.0,
        envelope: serde_json::from_str(&row.1)?,
        reception_time: row.2,
        retries: row.3,
        next_attempt: row.4,
    })
}

const COLUMNS: &str = "item_hash, envelope, reception_time, retries, next_attempt";

/// Queues a message for processing at `at`.
pub fn insert(
    conn: &Connection,
    hash: &str,
    envelope: &Value,
    reception_time: f64,
    at: f64,
) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT OR IGNORE INTO pending (item_hash, envelope, reception_time, next_attempt) VALUES (?, ?, ?, ?)",
    )?
    .execute(params![hash, envelope.to_string(), reception_time, at])?;
    super::messages::set_status(conn, hash, "pending", reception_time)
}

/// The pending message `hash`.
pub fn get(conn: &Connection, hash: &str) -> Result<Option<Pending>, StoreError> {
    conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM pending WHERE item_hash = ?"
    ))?
    .query_row([hash], pending)
    .optional()?
    .map(decode)
    .transpose()
}

/// Removes a message from the queue.
pub fn remove(conn: &Connection, hash: &str) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM pending WHERE item_hash = ?")?
        .execute([hash])?;
    Ok(())
}

/// Messages due at `now`, oldest attempt first.
pub fn due(conn: &Connection, now: f64, limit: u32) -> Result<Vec<Pending>, StoreError> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM pending WHERE next_attempt <= ? ORDER BY next_attempt, reception_time LIMIT ?"
    ))?;
    let rows = statement.query_map(params![now, limit], pending)?;
    rows.map(|row| decode(row?)).collect()
}

/// When the next message is due.
pub fn next_due(conn: &Connection) -> Result<Option<f64>, StoreError> {
    Ok(conn
        .prepare_cached("SELECT min(next_attempt) FROM pending")?
        .query_row([], |row| row.get(0))?)
}

/// How many wait.
pub fn count(conn: &Connection) -> Result<i64, StoreError> {
    Ok(conn
        .prepare_cached("SELECT count(*) FROM pending")?
        .query_row([], |row| row.get(0))?)
}

/// Why a message waits: its hash, the code and the details of its last attempt; neither before the first.
pub type Reason = (String, Option<i32>, Option<Value>);

/// Hands every message that waits to `look`, by hash.
pub fn each<E: From<StoreError>>(
    conn: &Connection,
    mut look: impl FnMut(Reason) -> Result<(), E>,
) -> Result<(), E> {
    let mut statement = conn
        .prepare("SELECT item_hash, error_code, details FROM pending ORDER BY item_hash")
        .map_err(StoreError::from)?;
    let rows = statement
        .query_map([], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get::<_, Option<String>>(2)?))
        })
        .map_err(StoreError::from)?;
    for row in rows {
        let (hash, code, details) = row.map_err(StoreError::from)?;
        let details = details
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(StoreError::from)?;
        look((hash, code, details))?;
    }
    Ok(())
}

/// Records a failed attempt and what the message waits for.
pub fn postpone(
    conn: &Connection,
    hash: &str,
    next_attempt: f64,
    error_code: i64,
    details: Option<&Value>,
    dependencies: &[String],
) -> Result<(), StoreError> {
    conn.prepare_cached(
        "UPDATE pending SET retries = retries + 1, next_attempt = ?, error_code = ?, details = ? WHERE item_hash = ?",
    )?
    .execute(params![
        next_attempt,
        error_code,
        details.map(Value::to_string),
        hash
    ])?;
    conn.prepare_cached("DELETE FROM pending_dependencies WHERE item_hash = ?")?
        .execute([hash])?;
    for dependency in dependencies {
        conn.prepare_cached("INSERT OR IGNORE INTO pending_dependencies VALUES (?, ?)")?
            .execute([dependency.as_str(), hash])?;
    }
    Ok(())
}

/// Makes whatever waits for `dependency` due now; tells whether there was anything.
pub fn wake(conn: &Connection, dependency: &str, now: f64) -> Result<bool, StoreError> {
    // Nearly always nobody waits, and a subquery in the update would be a table built to find that.
    let mut statement =
        conn.prepare_cached("SELECT item_hash FROM pending_dependencies WHERE dependency = ?")?;
    let waiting: Vec<String> = statement
        .query_map([dependency], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for hash in &waiting {
        conn.prepare_cached(
            "UPDATE pending SET next_attempt = min(next_attempt, ?) WHERE item_hash = ?",
        )?
        .execute(params![now, hash])?;
    }
    Ok(!waiting.is_empty())
}
