//! Messages whose owner can no longer pay, on their way out.

use rusqlite::{Connection, params};

use super::{StoreError, messages};

/// Puts a message on its way out: it goes for good at `delete_by` (Unix seconds) unless it is spared before.
pub fn begin(conn: &Connection, hash: &str, now: f64, delete_by: f64) -> Result<(), StoreError> {
    conn.prepare_cached("INSERT OR IGNORE INTO removing VALUES (?, ?)")?
        .execute(params![hash, delete_by])?;
    set_status(conn, hash, "removing", now)
}

/// Puts a message that can be paid again back in force.
pub fn spare(conn: &Connection, hash: &str, now: f64) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM removing WHERE item_hash = ?")?
        .execute([hash])?;
    set_status(conn, hash, "processed", now)
}

fn set_status(conn: &Connection, hash: &str, status: &str, now: f64) -> Result<(), StoreError> {
    conn.prepare_cached("UPDATE messages SET status = ? WHERE item_hash = ?")?
        .execute([status, hash])?;
    messages::set_status(conn, hash, status, now)
}

/// Messages that go for good at `now`.
pub fn due(conn: &Connection, now: f64) -> Result<Vec<String>, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT item_hash FROM removing WHERE delete_by <= ?")?;
    let rows = statement.query_map([now], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
