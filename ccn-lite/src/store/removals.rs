//! Messages whose owner can no longer pay: on their way out, and what is left of them afterwards.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::messages::{self, Filter, Message};
use super::{Conditions, Page, StoreError};

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

/// What is left of a removed message.
#[derive(Debug, Clone)]
pub struct Removed {
    /// Item hash.
    pub item_hash: String,
    /// Type.
    pub kind: String,
    /// Chain.
    pub chain: String,
    /// Sender.
    pub sender: String,
    /// Signature.
    pub signature: Option<String>,
    /// Item type.
    pub item_type: String,
    /// Unix seconds.
    pub time: f64,
    /// Channel.
    pub channel: Option<String>,
    /// Owner.
    pub owner: String,
    /// How it was paid.
    pub payment_type: String,
    /// Size of its file, for a STORE.
    pub size: Option<i64>,
    /// Unix seconds.
    pub removed_at: f64,
}

const COLUMNS: &str = "item_hash, type, chain, sender, signature, item_type, time, channel, owner, payment_type, size, removed_at";

fn removed(row: &Row<'_>) -> rusqlite::Result<Removed> {
    Ok(Removed {
        item_hash: row.get(0)?,
        kind: row.get(1)?,
        chain: row.get(2)?,
        sender: row.get(3)?,
        signature: row.get(4)?,
        item_type: row.get(5)?,
        time: row.get(6)?,
        channel: row.get(7)?,
        owner: row.get(8)?,
        payment_type: row.get(9)?,
        size: row.get(10)?,
        removed_at: row.get(11)?,
    })
}

/// Leaves the skeleton of a message; its content and costs are gone.
pub fn finish(
    conn: &Connection,
    m: &Message,
    now: f64,
    file_size: Option<i64>,
) -> Result<(), StoreError> {
    conn.prepare_cached(&format!(
        "INSERT OR REPLACE INTO removed ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
    ))?
    .execute(params![
        m.item_hash,
        m.kind,
        m.chain,
        m.sender,
        m.signature,
        m.item_type,
        m.time,
        m.channel,
        m.owner,
        m.payment_type.as_deref().unwrap_or("hold"),
        file_size,
        now,
    ])?;
    conn.prepare_cached("DELETE FROM messages WHERE item_hash = ?")?
        .execute([&m.item_hash])?;
    conn.prepare_cached("DELETE FROM costs WHERE item_hash = ?")?
        .execute([&m.item_hash])?;
    messages::set_status(conn, &m.item_hash, "removed", m.reception_time)
}

/// A removed message.
pub fn get(conn: &Connection, hash: &str) -> Result<Option<Removed>, StoreError> {
    Ok(conn
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM removed WHERE item_hash = ?"
        ))?
        .query_row([hash], removed)
        .optional()?)
}

/// Removed messages that the envelope part of `filter` keeps, by the time they were removed, and how many there are.
pub fn list(
    conn: &Connection,
    filter: &Filter,
    ascending: bool,
    page: Page,
) -> Result<(Vec<Removed>, u64), StoreError> {
    let mut c = Conditions::default();
    c.any("type IN ({})", &filter.types);
    c.any("sender IN ({})", &filter.senders);
    c.any("owner IN ({})", &filter.owners);
    c.any("chain IN ({})", &filter.chains);
    c.any("channel IN ({})", &filter.channels);
    c.any("item_hash IN ({})", &filter.hashes);
    c.any("payment_type IN ({})", &filter.payment_types);
    if let Some(start) = filter.start {
        c.with("removed_at >= ?", start);
    }
    if let Some(end) = filter.end {
        c.with("removed_at < ?", end);
    }
    let total: i64 = conn.query_row(
        &format!("SELECT count(*) FROM removed{}", c.clause()),
        c.params().as_slice(),
        |row| row.get(0),
    )?;
    let direction = if ascending { "ASC" } else { "DESC" };
    let sql = format!(
        "SELECT {COLUMNS} FROM removed{} ORDER BY removed_at {direction}, item_hash{}",
        c.clause(),
        page.clause()
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(c.params().as_slice(), removed)?;
    Ok((rows.collect::<Result<_, _>>()?, total.unsigned_abs()))
}
