//! Posts with their amends merged: one row of a list is an original with its latest content.
//!
//! A post is a message with a time of its own; an original also says when it was last updated, and by which amend.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::messages::{self, AMEND, COLUMNS, Message};
use super::{After, Conditions, Page, StoreError};

/// Matches that are counted; what is more is told from the number of posts.
const MAX_COUNTED: u64 = 10_000;

/// The original that a post amends; `None` for an original, nothing when there is no such post.
pub fn amended(conn: &Connection, hash: &str) -> Result<Option<Option<String>>, StoreError> {
    Ok(conn
        .prepare_cached(
            "SELECT iif(content_type = ?, content_ref, NULL) FROM messages WHERE item_hash = ? AND type = 'POST'",
        )?
        .query_row([AMEND, hash], |row| row.get(0))
        .optional()?)
}

/// Makes an amend written at `created` (unix seconds) the latest of its original, unless there is a newer one.
pub fn amend(
    conn: &Connection,
    original: &str,
    hash: &str,
    created: f64,
) -> Result<(), StoreError> {
    conn.prepare_cached(
        "UPDATE messages SET amended_by = ?1, updated = ?2 WHERE item_hash = ?3 AND updated < ?2",
    )?
    .execute(params![hash, created, original])?;
    Ok(())
}

/// Item hashes of the amends of `hash`.
pub fn amends(conn: &Connection, hash: &str) -> Result<Vec<String>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT item_hash FROM messages WHERE content_ref = ? AND type = 'POST' AND content_type = ?",
    )?;
    let rows = statement.query_map([hash, AMEND], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Lets the original of an amend that goes fall back to the newest of the others.
pub fn withdraw(conn: &Connection, amend: &str) -> Result<(), StoreError> {
    let Some(Some(original)) = amended(conn, amend)? else {
        return Ok(());
    };
    let latest: Option<(String, f64)> = conn
        .prepare_cached(
            "SELECT item_hash, content_time FROM messages WHERE content_ref = ? AND type = 'POST' \
             AND content_type = ? AND item_hash <> ? ORDER BY content_time DESC LIMIT 1",
        )?
        .query_row([&original, AMEND, amend], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let (hash, time) = latest.unzip();
    conn.prepare_cached(
        "UPDATE messages SET amended_by = ?1, updated = max(content_time, coalesce(?2, content_time)) \
         WHERE item_hash = ?3",
    )?
    .execute(params![hash, time, original])?;
    Ok(())
}

/// Which posts a list holds.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Owners.
    pub owners: Vec<String>,
    /// Original hashes.
    pub hashes: Vec<String>,
    /// Refs.
    pub refs: Vec<String>,
    /// Original types.
    pub types: Vec<String>,
    /// Tags of the latest content, any of.
    pub tags: Vec<String>,
    /// Channels.
    pub channels: Vec<String>,
    /// Updated not before.
    pub start: Option<f64>,
    /// Updated before.
    pub end: Option<f64>,
}

/// A merged post: the original, and the amend whose content it shows.
#[derive(Debug, Clone)]
pub struct Merged {
    /// The original.
    pub original: Message,
    /// When it was written or last amended, unix seconds.
    pub updated: f64,
    /// The latest amend.
    pub latest: Option<Message>,
}

impl Filter {
    fn conditions(&self) -> Conditions {
        let mut c = Conditions::default();
        c.raw("updated IS NOT NULL");
        c.any("owner IN ({})", &self.owners);
        c.any("item_hash IN ({})", &self.hashes);
        c.any("content_ref IN ({})", &self.refs);
        c.any("content_type IN ({})", &self.types);
        c.any("channel IN ({})", &self.channels);
        c.any(
            "EXISTS (SELECT 1 FROM messages latest, json_each(latest.tags) tag \
             WHERE latest.item_hash = coalesce(messages.amended_by, messages.item_hash) AND tag.value IN ({}))",
            &self.tags,
        );
        if let Some(start) = self.start {
            c.with("updated >= ?", start);
        }
        if let Some(end) = self.end {
            c.with("updated < ?", end);
        }
        c
    }
}

/// How many merged posts the filter keeps: exactly up to ten thousand, beyond that no fewer than there are.
pub fn count(conn: &Connection, filter: &Filter) -> Result<u64, StoreError> {
    let c = filter.conditions();
    let counted: i64 = conn
        .prepare_cached(&format!(
            "SELECT count(*) FROM (SELECT 1 FROM messages{} LIMIT {})",
            c.clause(),
            MAX_COUNTED + 1
        ))?
        .query_row(c.params().as_slice(), |row| row.get(0))?;
    let counted = counted.unsigned_abs();
    if counted <= MAX_COUNTED {
        return Ok(counted);
    }
    let posts = messages::Filter {
        types: vec!["POST".to_owned()],
        ..messages::Filter::default()
    };
    messages::count(conn, &posts)
}

fn decode(row: &Row<'_>) -> rusqlite::Result<(Message, f64, Option<String>)> {
    Ok((messages::message(row)?, row.get(21)?, row.get(22)?))
}

/// A page of merged posts, newest first unless `ascending`.
pub fn list(
    conn: &Connection,
    filter: &Filter,
    ascending: bool,
    page: Page,
    after: Option<&After>,
) -> Result<Vec<Merged>, StoreError> {
    let mut c = filter.conditions();
    if let Some(after) = after {
        c.after("updated", ascending, after);
    }
    let direction = if ascending { "ASC" } else { "DESC" };
    let sql = format!(
        "SELECT {COLUMNS}, updated, amended_by FROM messages{} ORDER BY updated {direction}, item_hash{}",
        c.clause(),
        page.clause()
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(c.params().as_slice(), decode)?;
    let mut merged = Vec::new();
    for row in rows {
        let (original, updated, amend) = row?;
        let latest = match amend {
            Some(hash) => messages::get(conn, &hash)?,
            None => None,
        };
        merged.push(Merged {
            original,
            updated,
            latest,
        });
    }
    Ok(merged)
}
