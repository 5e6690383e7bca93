//! What is left of messages that were forgotten.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use super::messages::{Filter, Message, json, set_status};
use super::{Conditions, Page, StoreError};

/// What is left of a forgotten message.
#[derive(Debug, Clone)]
pub struct Forgotten {
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
    /// How it was paid, `hold` when it did not say.
    pub payment_type: String,
    /// Size of its file, for a STORE.
    pub size: Option<i64>,
    /// Unix seconds.
    pub forgotten_at: f64,
    /// FORGET messages.
    pub forgotten_by: Value,
}

fn forgotten_row(row: &Row<'_>) -> rusqlite::Result<Forgotten> {
    Ok(Forgotten {
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
        forgotten_at: row.get(11)?,
        forgotten_by: json(row, 12)?,
    })
}

/// Moves a message to the forgotten: its content is gone.
pub fn insert(
    conn: &Connection,
    m: &Message,
    by: &str,
    at: f64,
    file_size: Option<i64>,
) -> Result<(), StoreError> {
    conn.prepare_cached("INSERT OR REPLACE INTO forgotten VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)")?
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
            at,
            serde_json::json!([by]).to_string(),
        ])?;
    conn.prepare_cached("DELETE FROM messages WHERE item_hash = ?")?
        .execute([&m.item_hash])?;
    conn.prepare_cached("DELETE FROM costs WHERE item_hash = ?")?
        .execute([&m.item_hash])?;
    set_status(conn, &m.item_hash, "forgotten", m.reception_time)
}

/// A forgotten message.
pub fn get(conn: &Connection, hash: &str) -> Result<Option<Forgotten>, StoreError> {
    Ok(conn
        .prepare_cached("SELECT * FROM forgotten WHERE item_hash = ?")?
        .query_row([hash], forgotten_row)
        .optional()?)
}

/// Forgotten messages that the envelope part of `filter` keeps, by the time they were forgotten.
pub fn list(
    conn: &Connection,
    filter: &Filter,
    ascending: bool,
    page: Page,
) -> Result<(Vec<Forgotten>, u64), StoreError> {
    let mut c = Conditions::default();
    c.any("type IN ({})", &filter.types);
    c.any("sender IN ({})", &filter.senders);
    c.any("owner IN ({})", &filter.owners);
    c.any("chain IN ({})", &filter.chains);
    c.any("channel IN ({})", &filter.channels);
    c.any("item_hash IN ({})", &filter.hashes);
    c.any("payment_type IN ({})", &filter.payment_types);
    if let Some(start) = filter.start {
        c.with("forgotten_at >= ?", start);
    }
    if let Some(end) = filter.end {
        c.with("forgotten_at < ?", end);
    }
    let total: i64 = conn.query_row(
        &format!("SELECT count(*) FROM forgotten{}", c.clause()),
        c.params().as_slice(),
        |row| row.get(0),
    )?;
    let direction = if ascending { "ASC" } else { "DESC" };
    let sql = format!(
        "SELECT * FROM forgotten{} ORDER BY forgotten_at {direction}, item_hash{}",
        c.clause(),
        page.clause()
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(c.params().as_slice(), forgotten_row)?;
    Ok((rows.collect::<Result<_, _>>()?, total.unsigned_abs()))
}
