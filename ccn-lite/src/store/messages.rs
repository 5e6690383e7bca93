//! Messages in force, where every message stands, and the rejected.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use super::{Conditions, StoreError};

pub use super::listing::{count, list};

/// A message in force.
#[derive(Debug, Clone)]
pub struct Message {
    /// Item hash.
    pub item_hash: String,
    /// `processed` or `removing`.
    pub status: String,
    /// Message type, as on the wire.
    pub kind: String,
    /// Chain of the sender.
    pub chain: String,
    /// Who signed.
    pub sender: String,
    /// The signature.
    pub signature: Option<String>,
    /// `inline`, `storage` or `ipfs`.
    pub item_type: String,
    /// Content text of an inline message.
    pub item_content: Option<String>,
    /// The content.
    pub content: Value,
    /// Unix seconds.
    pub time: f64,
    /// Channel.
    pub channel: Option<String>,
    /// Length of the content text.
    pub size: i64,
    /// Unix seconds at which this node got it.
    pub reception_time: f64,
    /// `content.address`.
    pub owner: String,
    /// POST type.
    pub content_type: Option<String>,
    /// POST or STORE ref.
    pub content_ref: Option<String>,
    /// AGGREGATE key.
    pub content_key: Option<String>,
    /// STORE file hash.
    pub content_item_hash: Option<String>,
    /// How it is paid.
    pub payment_type: Option<String>,
    /// Tags.
    pub tags: Option<Value>,
    /// Time of a POST's content, unix seconds.
    pub content_time: Option<f64>,
}

/// POST type of what amends an earlier post.
pub(super) const AMEND: &str = "amend";

pub(super) const COLUMNS: &str = "item_hash, status, type, chain, sender, signature, item_type, item_content, content, time, channel, \
     size, reception_time, owner, content_type, content_ref, content_key, content_item_hash, payment_type, tags, \
     content_time";

/// Text of a message's content, for SQL: what is inline is kept once.
pub(super) const CONTENT: &str = "coalesce(messages.item_content, messages.content)";

fn parsed(text: &str, index: usize) -> rusqlite::Result<Value> {
    serde_json::from_str(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(
            index,
            rusqlite::types::Type::Text,
            Box::new(error),
        )
    })
}

fn json(row: &Row<'_>, index: usize) -> rusqlite::Result<Value> {
    parsed(row.get_ref(index)?.as_str()?, index)
}

pub(super) fn message(row: &Row<'_>) -> rusqlite::Result<Message> {
    let item_content: Option<String> = row.get(7)?;
    let content = match &item_content {
        Some(text) => parsed(text, 7)?,
        None => json(row, 8)?,
    };
    let tags: Option<String> = row.get(19)?;
    Ok(Message {
        item_hash: row.get(0)?,
        status: row.get(1)?,
        kind: row.get(2)?,
        chain: row.get(3)?,
        sender: row.get(4)?,
        signature: row.get(5)?,
        item_type: row.get(6)?,
        item_content,
        content,
        time: row.get(9)?,
        channel: row.get(10)?,
        size: row.get(11)?,
        reception_time: row.get(12)?,
        owner: row.get(13)?,
        content_type: row.get(14)?,
        content_ref: row.get(15)?,
        content_key: row.get(16)?,
        content_item_hash: row.get(17)?,
        payment_type: row.get(18)?,
        tags: tags.and_then(|text| serde_json::from_str(&text).ok()),
        content_time: row.get(20)?,
    })
}

/// Status and reception time of a known message.
pub fn status(conn: &Connection, hash: &str) -> Result<Option<(String, f64)>, StoreError> {
    Ok(conn
        .prepare_cached(
            "SELECT status, reception_time FROM messages WHERE item_hash = ?1 \
             UNION ALL SELECT status, reception_time FROM statuses WHERE item_hash = ?1",
        )?
        .query_row([hash], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?)
}

/// Sets the status of a message that is not in force; the reception time stays the earliest.
pub fn set_status(
    conn: &Connection,
    hash: &str,
    status: &str,
    reception_time: f64,
) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO statuses VALUES (?, ?, ?) ON CONFLICT (item_hash) DO UPDATE SET status = excluded.status, \
         reception_time = min(reception_time, excluded.reception_time)",
    )?
    .execute(params![hash, status, reception_time])?;
    Ok(())
}

/// A message in force.
pub fn get(conn: &Connection, hash: &str) -> Result<Option<Message>, StoreError> {
    Ok(conn
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM messages WHERE item_hash = ?"
        ))?
        .query_row([hash], message)
        .optional()?)
}

/// The signature under which a message is in force or gone; nothing when it is neither.
pub fn settled_signature(
    conn: &Connection,
    hash: &str,
) -> Result<Option<Option<String>>, StoreError> {
    Ok(conn
        .prepare_cached(
            "SELECT signature FROM messages WHERE item_hash = ?1 UNION ALL SELECT signature FROM gone WHERE item_hash = ?1",
        )?
        .query_row([hash], |row| row.get(0))
        .optional()?)
}

/// Takes back what is recorded about a message that is not in force, and tells when it came first, Unix seconds.
pub fn forget_status(conn: &Connection, hash: &str) -> Result<Option<f64>, StoreError> {
    Ok(conn
        .prepare_cached("DELETE FROM statuses WHERE item_hash = ? RETURNING reception_time")?
        .query_row([hash], |row| row.get(0))
        .optional()?)
}

/// Adds a message about which nothing else is recorded; it has its status from then on.
pub fn insert(conn: &Connection, m: &Message) -> Result<(), StoreError> {
    let content = match m.item_content {
        Some(_) => String::new(),
        None => m.content.to_string(),
    };
    // An amend is not a post of its own.
    let updated = m
        .content_time
        .filter(|_| m.content_type.as_deref() != Some(AMEND));
    let delegate = Some(m.sender.as_str()).filter(|sender| *sender != m.owner);
    // FAIL: the writer undoes the whole job anyway, so SQLite need not remember every page for undoing this statement.
    conn.prepare_cached(&format!(
        "INSERT OR FAIL INTO messages ({COLUMNS}, updated, delegate) \
         VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
    ))?
    .execute(params![
        m.item_hash,
        m.status,
        m.kind,
        m.chain,
        m.sender,
        m.signature,
        m.item_type,
        m.item_content,
        content,
        m.time,
        m.channel,
        m.size,
        m.reception_time,
        m.owner,
        m.content_type,
        m.content_ref,
        m.content_key,
        m.content_item_hash,
        m.payment_type,
        m.tags.as_ref().map(Value::to_string),
        m.content_time,
        updated,
        delegate,
    ])?;
    let tags = m.tags.as_ref().and_then(Value::as_array);
    for tag in tags.into_iter().flatten().filter_map(Value::as_str) {
        insert_tag(conn, m, tag, updated)?;
    }
    super::counters::add(conn, m, delegate)
}

/// Lets a message be found by one of its tags, and a post, which was `updated` then, as a post, too.
fn insert_tag(
    conn: &Connection,
    m: &Message,
    tag: &str,
    updated: Option<f64>,
) -> Result<(), StoreError> {
    conn.prepare_cached("INSERT OR IGNORE INTO message_tags VALUES (?,?,?,?,?,?,?,?,?)")?
        .execute(params![
            tag,
            m.time,
            m.item_hash,
            m.kind,
            m.chain,
            m.sender,
            m.owner,
            m.channel,
            m.content_type
        ])?;
    if let Some(updated) = updated {
        conn.prepare_cached("INSERT OR IGNORE INTO post_tags VALUES (?,?,?,?,?,?)")?
            .execute(params![
                tag,
                updated,
                m.item_hash,
                m.owner,
                m.content_type,
                m.channel
            ])?;
    }
    Ok(())
}

/// Hands every message in force to `look`, by hash; one that cannot be decoded ends it.
pub fn each(conn: &Connection, mut look: impl FnMut(Message)) -> Result<(), StoreError> {
    let mut statement = conn.prepare(&format!(
        "SELECT {COLUMNS} FROM messages ORDER BY item_hash"
    ))?;
    let rows = statement.query_map([], message)?;
    for row in rows {
        look(row?);
    }
    Ok(())
}

/// Hands every message in force to `look` in the order in which they came, which is one in which they can be taken again.
pub fn each_as_received<E: From<StoreError>>(
    conn: &Connection,
    mut look: impl FnMut(Message) -> Result<(), E>,
) -> Result<(), E> {
    let mut statement = conn
        .prepare(&format!(
            "SELECT {COLUMNS} FROM messages ORDER BY reception_time, item_hash"
        ))
        .map_err(StoreError::from)?;
    let rows = statement.query_map([], message).map_err(StoreError::from)?;
    for row in rows {
        look(row.map_err(StoreError::from)?)?;
    }
    Ok(())
}

/// Messages that stand somewhere else than they are kept.
pub fn with_wrong_status(conn: &Connection) -> Result<Vec<String>, StoreError> {
    let mut statement = conn.prepare(
        "SELECT s.item_hash FROM statuses s WHERE NOT CASE s.status \
           WHEN 'pending' THEN EXISTS (SELECT 1 FROM pending p WHERE p.item_hash = s.item_hash) \
           WHEN 'rejected' THEN EXISTS (SELECT 1 FROM rejected r WHERE r.item_hash = s.item_hash) \
           ELSE EXISTS (SELECT 1 FROM gone g WHERE g.item_hash = s.item_hash AND g.status = s.status) END \
         UNION SELECT item_hash FROM statuses JOIN messages USING (item_hash) \
         UNION SELECT item_hash FROM (SELECT item_hash FROM pending UNION ALL SELECT item_hash FROM rejected \
           UNION ALL SELECT item_hash FROM gone) WHERE item_hash NOT IN (SELECT item_hash FROM statuses)",
    )?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Which messages a list holds.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Types.
    pub types: Vec<String>,
    /// Statuses, of `processed` and `removing`.
    pub statuses: Vec<String>,
    /// Senders.
    pub senders: Vec<String>,
    /// Owners (`content.address`).
    pub owners: Vec<String>,
    /// `content.ref`.
    pub refs: Vec<String>,
    /// STORE file hashes.
    pub content_hashes: Vec<String>,
    /// AGGREGATE keys.
    pub content_keys: Vec<String>,
    /// POST types.
    pub content_types: Vec<String>,
    /// Chains.
    pub chains: Vec<String>,
    /// Channels.
    pub channels: Vec<String>,
    /// Tags, any of.
    pub tags: Vec<String>,
    /// Item hashes.
    pub hashes: Vec<String>,
    /// Payment types.
    pub payment_types: Vec<String>,
    /// Not before, unix seconds.
    pub start: Option<f64>,
    /// Before, unix seconds.
    pub end: Option<f64>,
    /// Only messages confirmed on a chain. None is: this node follows no chain.
    pub confirmed: bool,
}

impl Filter {
    /// Whether a message that just arrived belongs to the list.
    pub fn matches(&self, m: &Message) -> bool {
        fn has(list: &[String], value: Option<&str>) -> bool {
            list.is_empty() || value.is_some_and(|v| list.iter().any(|l| l == v))
        }
        !self.confirmed
            && has(&self.types, Some(&m.kind))
            && has(&self.statuses, Some(&m.status))
            && has(&self.senders, Some(&m.sender))
            && has(&self.owners, Some(&m.owner))
            && has(&self.refs, m.content_ref.as_deref())
            && has(&self.content_hashes, m.content_item_hash.as_deref())
            && has(&self.content_keys, m.content_key.as_deref())
            && has(&self.content_types, m.content_type.as_deref())
            && has(&self.chains, Some(&m.chain))
            && has(&self.channels, m.channel.as_deref())
            && has(&self.hashes, Some(&m.item_hash))
            && has(&self.payment_types, m.payment_type.as_deref())
            && (self.tags.is_empty()
                || m.tags
                    .as_ref()
                    .and_then(Value::as_array)
                    .is_some_and(|tags| {
                        tags.iter()
                            .filter_map(Value::as_str)
                            .any(|tag| self.tags.iter().any(|t| t == tag))
                    }))
            && self.start.is_none_or(|start| m.time >= start)
            && self.end.is_none_or(|end| m.time < end)
    }
}

/// Programs in force that start on messages, with what they subscribe to.
pub fn subscriptions(
    conn: &Connection,
    ascending: bool,
) -> Result<Vec<(String, Value)>, StoreError> {
    let direction = if ascending { "ASC" } else { "DESC" };
    let mut statement = conn.prepare_cached(&format!(
        "SELECT item_hash, {CONTENT} -> '$.on.message' FROM messages WHERE type = 'PROGRAM' \
         AND json_type({CONTENT}, '$.on.message') = 'array' ORDER BY time {direction}, item_hash"
    ))?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, json(row, 1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Distinct channels, of one owner when given.
pub fn channels(conn: &Connection, owner: Option<&str>) -> Result<Vec<String>, StoreError> {
    let channels = |row: &Row<'_>| row.get(0);
    let Some(owner) = owner else {
        // From one channel to the next through the index, past all messages in between.
        let mut statement = conn.prepare_cached(
            "WITH RECURSIVE each (channel) AS (SELECT min(channel) FROM messages WHERE channel IS NOT NULL UNION ALL \
             SELECT (SELECT min(m.channel) FROM messages m WHERE m.channel > each.channel) FROM each \
             WHERE each.channel IS NOT NULL) SELECT channel FROM each WHERE channel IS NOT NULL",
        )?;
        let rows = statement.query_map([], channels)?;
        return Ok(rows.collect::<Result<_, _>>()?);
    };
    let mut statement = conn.prepare_cached(
        "SELECT DISTINCT channel FROM messages WHERE owner = ? AND channel IS NOT NULL ORDER BY channel",
    )?;
    let rows = statement.query_map([owner], channels)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Distinct POST types of one owner.
pub fn post_types(conn: &Connection, owner: &str) -> Result<Vec<String>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT DISTINCT content_type FROM messages WHERE owner = ? AND type = 'POST' AND content_type IS NOT NULL \
         ORDER BY content_type",
    )?;
    let rows = statement.query_map([owner], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Messages of each owner by lower-case type, as counted when they came and went; all owners when `addresses` is empty.
pub fn stats(
    conn: &Connection,
    addresses: &[String],
) -> Result<Vec<(String, String, i64)>, StoreError> {
    let mut c = Conditions::default();
    c.any("owner IN ({})", addresses);
    let sql = format!(
        "SELECT owner, lower(type), sum(messages) FROM address_counts{} GROUP BY owner, type ORDER BY owner",
        c.clause()
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(c.params().as_slice(), |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Messages in force of types that cost something, oldest first.
pub fn all_that_cost(conn: &Connection) -> Result<Vec<String>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT item_hash FROM messages WHERE type IN ('STORE', 'PROGRAM', 'INSTANCE', 'V-PROGRAM') \
         ORDER BY time, item_hash",
    )?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A rejected message.
#[derive(Debug, Clone)]
pub struct Rejected {
    /// The envelope as it came.
    pub envelope: Value,
    /// Why.
    pub error_code: i64,
    /// More about it.
    pub details: Option<Value>,
}

/// Records a rejection in place of whatever was pending.
pub fn reject(
    conn: &Connection,
    hash: &str,
    envelope: &Value,
    error_code: i64,
    details: Option<&Value>,
    reception_time: f64,
) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM pending WHERE item_hash = ?")?
        .execute([hash])?;
    conn.prepare_cached("INSERT OR REPLACE INTO rejected VALUES (?, ?, ?, ?)")?
        .execute(params![
            hash,
            envelope.to_string(),
            error_code,
            details.map(Value::to_string)
        ])?;
    set_status(conn, hash, "rejected", reception_time)
}

/// The rejection of `hash`.
pub fn rejected(conn: &Connection, hash: &str) -> Result<Option<Rejected>, StoreError> {
    let row: Option<(String, i64, Option<String>)> = conn
        .prepare_cached("SELECT envelope, error_code, details FROM rejected WHERE item_hash = ?")?
        .query_row([hash], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    row.map(|(envelope, error_code, details)| {
        Ok(Rejected {
            envelope: serde_json::from_str(&envelope)?,
            error_code,
            details: details.map(|d| serde_json::from_str(&d)).transpose()?,
        })
    })
    .transpose()
}

/// Lifts a rejection, before another attempt.
pub fn clear_rejection(conn: &Connection, hash: &str) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM rejected WHERE item_hash = ?")?
        .execute([hash])?;
    Ok(())
}
