//! Messages whose owner can no longer pay, on their way out.

use rusqlite::{Connection, params};

use super::StoreError;

/// Puts a message on its way out: it goes for good at `delete_by` (Unix seconds) unless it is spared before.
pub fn begin(conn: &Connection, hash: &str, delete_by: f64) -> Result<(), StoreError> {
    conn.prepare_cached("INSERT OR IGNORE INTO removing VALUES (?, ?)")?
        .execute(params![hash, delete_by])?;
    set_status(conn, hash, "removing")
}

/// Puts a message that can be paid again back in force.
pub fn spare(conn: &Connection, hash: &str) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM removing WHERE item_hash = ?")?
        .execute([hash])?;
    set_status(conn, hash, "processed")
}

fn set_status(conn: &Connection, hash: &str, status: &str) -> Result<(), StoreError> {
    conn.prepare_cached("UPDATE messages SET status = ? WHERE item_hash = ?")?
        .execute([status, hash])?;
    Ok(())
}

/// Whether anything of this owner is on its way out.
pub fn any_of(conn: &Connection, owner: &str) -> Result<bool, StoreError> {
    Ok(conn
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM removing JOIN messages USING (item_hash) \
             WHERE owner = ? COLLATE NOCASE)",
        )?
        .query_row([owner], |row| row.get(0))?)
}

/// Messages that go for good at `now`.
pub fn due(conn: &Connection, now: f64) -> Result<Vec<String>, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT item_hash FROM removing WHERE delete_by <= ?")?;
    let rows = statement.query_map([now], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
