//! Posts with their amends merged: one row of a list is an original with its latest content.
//!
//! A post is a message with a time of its own; an original also says when it was last updated, and by which amend.

use rusqlite::{Connection, OptionalExtension, params};

use super::StoreError;
use super::messages::{AMEND, Message};

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
