//! How much there is of everything.

use rusqlite::Connection;

use super::StoreError;
use super::messages::Message;

/// Counts over the whole database.
#[derive(Debug, Clone, Copy)]
pub struct Counters {
    /// Messages in force.
    pub messages: i64,
    /// Messages not decided yet.
    pub pending: i64,
    /// Files held by a message.
    pub files: i64,
}

/// Counts.
pub fn count(conn: &Connection) -> Result<Counters, StoreError> {
    let number = |sql: &str| -> Result<i64, StoreError> {
        Ok(conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    };
    Ok(Counters {
        messages: number("SELECT coalesce(sum(messages), 0) FROM message_counts")?,
        pending: super::pending::count(conn)?,
        files: number("SELECT count(DISTINCT file_hash) FROM file_pins WHERE kind <> 'grace'")?,
    })
}

/// Counts a message that comes into force.
pub fn add(conn: &Connection, m: &Message, delegate: Option<&str>) -> Result<(), StoreError> {
    let delegate = delegate.unwrap_or_default();
    let counted = conn
        .prepare_cached(
            "UPDATE message_counts SET messages = messages + 1 WHERE type = ? AND status = ?",
        )?
        .execute([&m.kind, &m.status])?;
    if counted == 0 {
        conn.prepare_cached("INSERT INTO message_counts VALUES (?, ?, 1)")?
            .execute([&m.kind, &m.status])?;
    }
    let counted = conn
        .prepare_cached(
            "UPDATE address_counts SET messages = messages + 1 WHERE owner = ? AND type = ? AND delegate = ?",
        )?
        .execute([&m.owner, &m.kind, delegate])?;
    if counted == 0 {
        conn.prepare_cached("INSERT INTO address_counts VALUES (?, ?, ?, 1)")?
            .execute([&m.owner, &m.kind, delegate])?;
    }
    Ok(())
}
