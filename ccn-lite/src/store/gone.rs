//! What is left of messages that were forgotten, or removed because nobody paid for them any more.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use super::messages::{Filter, Message, set_status};
use super::{Conditions, Page, StoreError};

/// How a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// By a FORGET.
    Forgotten,
    /// Not paid any more.
    Removed,
}

impl Departure {
    /// The status of such a message, as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forgotten => "forgotten",
            Self::Removed => "removed",
        }
    }
}

/// The skeleton of a message; its content is gone.
#[derive(Debug, Clone)]
pub struct Gone {
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
    /// When it went, Unix seconds.
    pub at: f64,
    /// FORGET messages, a list of hashes; none for what was removed.
    pub forgotten_by: Option<Value>,
}

const COLUMNS: &str = "item_hash, type, chain, sender, signature, item_type, time, channel, owner, payment_type, size, \
     gone_at, forgotten_by";

fn decode(row: &Row<'_>) -> rusqlite::Result<Gone> {
    let forgotten_by: Option<String> = row.get(12)?;
    Ok(Gone {
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
        at: row.get(11)?,
        forgotten_by: forgotten_by.and_then(|text| serde_json::from_str(&text).ok()),
    })
}

/// Leaves the skeleton of a message that went at `at`, by the FORGET `by` or, without one, because it was not paid; its
/// content and costs are gone.
pub fn insert(
    conn: &Connection,
    m: &Message,
    by: Option<&str>,
    at: f64,
    file_size: Option<i64>,
) -> Result<(), StoreError> {
    let departure = if by.is_some() {
        Departure::Forgotten
    } else {
        Departure::Removed
    };
    conn.prepare_cached(&format!(
        "INSERT OR REPLACE INTO gone ({COLUMNS}, status) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
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
        at,
        by.map(|by| serde_json::json!([by]).to_string()),
        departure.as_str(),
    ])?;
    conn.prepare_cached("DELETE FROM messages WHERE item_hash = ?")?
        .execute([&m.item_hash])?;
    super::accounts::remove_costs(conn, &m.item_hash)?;
    set_status(conn, &m.item_hash, departure.as_str(), m.reception_time)
}

/// What is left of a message that is gone.
pub fn get(conn: &Connection, hash: &str) -> Result<Option<Gone>, StoreError> {
    Ok(conn
        .prepare_cached(&format!("SELECT {COLUMNS} FROM gone WHERE item_hash = ?"))?
        .query_row([hash], decode)
        .optional()?)
}

/// Hands what is left of every forgotten message to `look`, in the order in which they went.
pub fn each_forgotten<E: From<StoreError>>(
    conn: &Connection,
    mut look: impl FnMut(Gone) -> Result<(), E>,
) -> Result<(), E> {
    let mut statement = conn
        .prepare(&format!(
            "SELECT {COLUMNS} FROM gone WHERE status = ? ORDER BY gone_at, item_hash"
        ))
        .map_err(StoreError::from)?;
    let rows = statement
        .query_map([Departure::Forgotten.as_str()], decode)
        .map_err(StoreError::from)?;
    for row in rows {
        look(row.map_err(StoreError::from)?)?;
    }
    Ok(())
}

/// Messages that went in one way and that the envelope part of `filter` keeps, by the time they went; and how many there
/// are.
pub fn list(
    conn: &Connection,
    departure: Departure,
    filter: &Filter,
    ascending: bool,
    page: Page,
) -> Result<(Vec<Gone>, u64), StoreError> {
    let mut c = Conditions::default();
    c.with("status = ?", departure.as_str().to_owned());
    c.any("type IN ({})", &filter.types);
    c.any("sender IN ({})", &filter.senders);
    c.any("owner IN ({})", &filter.owners);
    c.any("chain IN ({})", &filter.chains);
    c.any("channel IN ({})", &filter.channels);
    c.any("item_hash IN ({})", &filter.hashes);
    c.any("payment_type IN ({})", &filter.payment_types);
    if let Some(start) = filter.start {
        c.with("gone_at >= ?", start);
    }
    if let Some(end) = filter.end {
        c.with("gone_at < ?", end);
    }
    let total: i64 = conn.query_row(
        &format!("SELECT count(*) FROM gone{}", c.clause()),
        c.params().as_slice(),
        |row| row.get(0),
    )?;
    let direction = if ascending { "ASC" } else { "DESC" };
    let sql = format!(
        "SELECT {COLUMNS} FROM gone{} ORDER BY gone_at {direction}, item_hash{}",
        c.clause(),
        page.clause()
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(c.params().as_slice(), decode)?;
    Ok((rows.collect::<Result<_, _>>()?, total.unsigned_abs()))
}
