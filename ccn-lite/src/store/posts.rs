//! Posts with their amends merged: one row of a list is an original with its latest content.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use super::{After, Conditions, Page, StoreError};

/// A post or an amend of one.
#[derive(Debug, Clone)]
pub struct Post {
    /// Item hash.
    pub item_hash: String,
    /// Owner.
    pub owner: String,
    /// POST type.
    pub kind: Option<String>,
    /// What it refers to.
    pub reference: Option<String>,
    /// The original it amends.
    pub amends: Option<String>,
    /// Channel.
    pub channel: Option<String>,
    /// Content.
    pub content: Value,
    /// Unix seconds.
    pub created: f64,
    /// The newest amend of an original.
    pub latest_amend: Option<String>,
    /// Unix seconds of the newest amend.
    pub last_updated: f64,
}

const COLUMNS: &str =
    "item_hash, owner, type, ref, amends, channel, content, created, latest_amend, last_updated";

fn decode(row: &Row<'_>) -> rusqlite::Result<Post> {
    let text: String = row.get(6)?;
    let content = serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(6, rusqlite::types::Type::Text, Box::new(error))
    })?;
    Ok(Post {
        item_hash: row.get(0)?,
        owner: row.get(1)?,
        kind: row.get(2)?,
        reference: row.get(3)?,
        amends: row.get(4)?,
        channel: row.get(5)?,
        content,
        created: row.get(7)?,
        latest_amend: row.get(8)?,
        last_updated: row.get(9)?,
    })
}

/// A post or amend.
pub fn get(conn: &Connection, hash: &str) -> Result<Option<Post>, StoreError> {
    Ok(conn
        .prepare_cached(&format!("SELECT {COLUMNS} FROM posts WHERE item_hash = ?"))?
        .query_row([hash], decode)
        .optional()?)
}

/// Adds a post; an amend newer than what its original shows becomes the latest.
pub fn insert(conn: &Connection, p: &Post) -> Result<(), StoreError> {
    conn.prepare_cached(&format!(
        "INSERT INTO posts ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)"
    ))?
    .execute(params![
        p.item_hash,
        p.owner,
        p.kind,
        p.reference,
        p.amends,
        p.channel,
        p.content.to_string(),
        p.created,
        p.latest_amend,
        p.last_updated
    ])?;
    if let Some(original) = &p.amends {
        conn.prepare_cached(
            "UPDATE posts SET latest_amend = ?1, last_updated = ?2 WHERE item_hash = ?3 AND last_updated < ?2",
        )?
        .execute(params![p.item_hash, p.created, original])?;
    }
    Ok(())
}

/// Item hashes of the amends of `hash`.
pub fn amends(conn: &Connection, hash: &str) -> Result<Vec<String>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT item_hash FROM posts WHERE amends = ?")?;
    let rows = statement.query_map([hash], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Removes a post; its original falls back to the newest amend left.
pub fn remove(conn: &Connection, hash: &str) -> Result<(), StoreError> {
    let original: Option<Option<String>> = conn
        .prepare_cached("DELETE FROM posts WHERE item_hash = ? RETURNING amends")?
        .query_row([hash], |row| row.get(0))
        .optional()?;
    if let Some(Some(original)) = original {
        conn.prepare_cached(
            "UPDATE posts SET \
             latest_amend = (SELECT a.item_hash FROM posts a WHERE a.amends = ?1 ORDER BY a.created DESC LIMIT 1), \
             last_updated = max(created, coalesce((SELECT max(a.created) FROM posts a WHERE a.amends = ?1), created)) \
             WHERE item_hash = ?1",
        )?
        .execute([&original])?;
    }
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
    pub original: Post,
    /// The latest amend.
    pub latest: Option<Post>,
}

impl Filter {
    fn conditions(&self) -> Conditions {
        let mut c = Conditions::default();
        c.raw("amends IS NULL");
        c.any("owner IN ({})", &self.owners);
        c.any("item_hash IN ({})", &self.hashes);
        c.any("ref IN ({})", &self.refs);
        c.any("type IN ({})", &self.types);
        c.any("channel IN ({})", &self.channels);
        c.any(
            "EXISTS (SELECT 1 FROM posts latest, json_each(latest.content, '$.tags') tag \
             WHERE latest.item_hash = coalesce(posts.latest_amend, posts.item_hash) AND tag.value IN ({}))",
            &self.tags,
        );
        if let Some(start) = self.start {
            c.with("last_updated >= ?", start);
        }
        if let Some(end) = self.end {
            c.with("last_updated < ?", end);
        }
        c
    }
}

/// How many merged posts the filter keeps.
pub fn count(conn: &Connection, filter: &Filter) -> Result<u64, StoreError> {
    let c = filter.conditions();
    let count: i64 = conn
        .prepare_cached(&format!("SELECT count(*) FROM posts{}", c.clause()))?
        .query_row(c.params().as_slice(), |row| row.get(0))?;
    Ok(count.unsigned_abs())
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
        c.after("last_updated", ascending, after);
    }
    let direction = if ascending { "ASC" } else { "DESC" };
    let sql = format!(
        "SELECT {COLUMNS} FROM posts{} ORDER BY last_updated {direction}, item_hash{}",
        c.clause(),
        page.clause()
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let originals: Vec<Post> = statement
        .query_map(c.params().as_slice(), decode)?
        .collect::<Result<_, _>>()?;
    let mut merged = Vec::with_capacity(originals.len());
    for original in originals {
        let latest = match &original.latest_amend {
            Some(hash) => get(conn, hash)?,
            None => None,
        };
        merged.push(Merged { original, latest });
    }
    Ok(merged)
}
