//! How much there is of everything.

use rusqlite::Connection;

use super::StoreError;

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
