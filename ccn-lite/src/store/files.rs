//! Known files, why they are kept (pins) and the names that point to them (tags).

use rusqlite::{Connection, OptionalExtension, params};

use super::{Page, StoreError};

/// A STORE message's claim on a file.
#[derive(Debug, Clone)]
pub struct Pin {
    /// The file.
    pub file_hash: String,
    /// The STORE message.
    pub item_hash: String,
    /// Owner.
    pub owner: String,
    /// What it updates, or a user-defined name.
    pub reference: Option<String>,
    /// Unix seconds.
    pub created: f64,
}

/// A row of an owner's file list.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The pin.
    pub pin: Pin,
    /// Bytes.
    pub size: i64,
    /// `file` or `directory`.
    pub kind: String,
}

/// A name that follows the newest version of a file.
#[derive(Debug, Clone)]
pub struct Tag {
    /// Who may move it.
    pub owner: String,
    /// The file.
    pub file_hash: String,
    /// Unix seconds.
    pub last_updated: f64,
}

/// Size and type of a known file.
pub fn get(conn: &Connection, hash: &str) -> Result<Option<(i64, String)>, StoreError> {
    Ok(conn
        .prepare_cached("SELECT size, type FROM files WHERE hash = ?")?
        .query_row([hash], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?)
}

/// Every known file: hash, bytes, type.
pub fn all(conn: &Connection) -> Result<Vec<(String, u64, String)>, StoreError> {
    let mut statement = conn.prepare("SELECT hash, size, type FROM files ORDER BY hash")?;
    let rows = statement.query_map([], |row| {
        let size: i64 = row.get(1)?;
        Ok((row.get(0)?, size.unsigned_abs(), row.get(2)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Makes a `file` or `directory` known.
pub fn insert(
    conn: &Connection,
    hash: &str,
    size: u64,
    kind: &str,
    now: f64,
) -> Result<(), StoreError> {
    conn.prepare_cached("INSERT OR IGNORE INTO files VALUES (?, ?, ?, ?)")?
        .execute(params![
            hash,
            i64::try_from(size).unwrap_or(i64::MAX),
            kind,
            now
        ])?;
    Ok(())
}

/// Keeps a file until `delete_by` whatever happens to its other pins.
pub fn pin_grace(
    conn: &Connection,
    hash: &str,
    now: f64,
    delete_by: f64,
) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO file_pins (file_hash, kind, created, delete_by) VALUES (?, 'grace', ?, ?)",
    )?
    .execute(params![hash, now, delete_by])?;
    Ok(())
}

/// Keeps the file that holds a message's content.
pub fn pin_content(conn: &Connection, hash: &str, owner: &str, now: f64) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT OR IGNORE INTO file_pins (file_hash, kind, item_hash, owner, created) VALUES (?1, 'content', ?1, ?2, ?3)",
    )?
    .execute(params![hash, owner, now])?;
    Ok(())
}

/// Keeps a file for a STORE message.
pub fn pin_store(conn: &Connection, pin: &Pin) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT OR IGNORE INTO file_pins (file_hash, kind, item_hash, owner, ref, created) \
         VALUES (?, 'store', ?, ?, ?, ?)",
    )?
    .execute(params![
        pin.file_hash,
        pin.item_hash,
        pin.owner,
        pin.reference,
        pin.created
    ])?;
    Ok(())
}

/// The pin of a STORE message.
pub fn store_pin(conn: &Connection, item_hash: &str) -> Result<Option<Pin>, StoreError> {
    Ok(conn
        .prepare_cached(
            "SELECT file_hash, item_hash, owner, ref, created FROM file_pins WHERE item_hash = ? AND kind = 'store'",
        )?
        .query_row([item_hash], |row| {
            Ok(Pin {
                file_hash: row.get(0)?,
                item_hash: row.get(1)?,
                owner: row.get(2)?,
                reference: row.get(3)?,
                created: row.get(4)?,
            })
        })
        .optional()?)
}

/// Drops the pins a message holds; a file nothing holds any more is kept until `delete_by`.
pub fn unpin(
    conn: &Connection,
    item_hash: &str,
    now: f64,
    delete_by: f64,
) -> Result<(), StoreError> {
    let mut statement =
        conn.prepare_cached("DELETE FROM file_pins WHERE item_hash = ? RETURNING file_hash")?;
    let files: Vec<String> = statement
        .query_map([item_hash], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for file in files {
        let held: bool = conn
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM file_pins WHERE file_hash = ?)")?
            .query_row([&file], |row| row.get(0))?;
        if !held {
            pin_grace(conn, &file, now, delete_by)?;
        }
    }
    Ok(())
}

/// Lets the claims of a message on files end at `at` (Unix seconds), or never.
pub fn expire_pin(conn: &Connection, item_hash: &str, at: Option<f64>) -> Result<(), StoreError> {
    conn.prepare_cached("UPDATE file_pins SET delete_by = ? WHERE item_hash = ?")?
        .execute(params![at, item_hash])?;
    Ok(())
}

/// The tag named `tag`.
pub fn tag(conn: &Connection, tag: &str) -> Result<Option<Tag>, StoreError> {
    Ok(conn
        .prepare_cached("SELECT owner, file_hash, last_updated FROM file_tags WHERE tag = ?")?
        .query_row([tag], |row| {
            Ok(Tag {
                owner: row.get(0)?,
                file_hash: row.get(1)?,
                last_updated: row.get(2)?,
            })
        })
        .optional()?)
}

/// Points `tag` to a file unless it already points to something newer.
pub fn set_tag(
    conn: &Connection,
    tag: &str,
    owner: &str,
    file: &str,
    time: f64,
) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO file_tags VALUES (?, ?, ?, ?) ON CONFLICT (tag) DO UPDATE SET file_hash = excluded.file_hash, \
         last_updated = excluded.last_updated WHERE excluded.last_updated > last_updated",
    )?
    .execute(params![tag, owner, file, time])?;
    Ok(())
}

/// Recomputes `tag` from the pins left: of the STORE `origin` itself, or with one of `references` by `owner`.
pub fn refresh_tag(
    conn: &Connection,
    tag: &str,
    owner: &str,
    reference: &str,
) -> Result<(), StoreError> {
    let newest: Option<(String, f64)> = conn
        .prepare_cached(
            "SELECT file_hash, created FROM file_pins WHERE kind = 'store' AND \
             (item_hash = ?1 OR (ref = ?1 AND owner = ?2)) ORDER BY created DESC LIMIT 1",
        )?
        .query_row([reference, owner], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match newest {
        Some((file, created)) => conn
            .prepare_cached("UPDATE file_tags SET file_hash = ?, last_updated = ? WHERE tag = ?")?
            .execute(params![file, created, tag])?,
        None => conn
            .prepare_cached("DELETE FROM file_tags WHERE tag = ?")?
            .execute([tag])?,
    };
    Ok(())
}

/// How many pins hold a file.
pub fn pin_count(conn: &Connection, hash: &str) -> Result<i64, StoreError> {
    Ok(conn
        .prepare_cached("SELECT count(*) FROM file_pins WHERE file_hash = ?")?
        .query_row([hash], |row| row.get(0))?)
}

/// A page of an owner's files with their number and total size.
pub fn of_owner(
    conn: &Connection,
    owner: &str,
    file_hash: Option<&str>,
    ascending: bool,
    page: Page,
) -> Result<(Vec<Listed>, u64, i64), StoreError> {
    let mut c = super::Conditions::default();
    c.raw("kind = 'store'");
    c.with("owner = ?", owner.to_owned());
    if let Some(hash) = file_hash {
        c.with("file_hash = ?", hash.to_owned());
    }
    let from = format!("file_pins JOIN files ON hash = file_hash{}", c.clause());
    let (total, bytes): (i64, i64) = conn.query_row(
        &format!("SELECT count(*), coalesce(sum(size), 0) FROM {from}"),
        c.params().as_slice(),
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let direction = if ascending { "ASC" } else { "DESC" };
    let sql = format!(
        "SELECT file_hash, item_hash, owner, ref, file_pins.created, size, type FROM {from} \
         ORDER BY file_pins.created {direction}, item_hash{}",
        page.clause()
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(c.params().as_slice(), |row| {
        Ok(Listed {
            pin: Pin {
                file_hash: row.get(0)?,
                item_hash: row.get(1)?,
                owner: row.get(2)?,
                reference: row.get(3)?,
                created: row.get(4)?,
            },
            size: row.get(5)?,
            kind: row.get(6)?,
        })
    })?;
    Ok((rows.collect::<Result<_, _>>()?, total.unsigned_abs(), bytes))
}

/// Forgets files whose grace is over and that nothing else holds; returns their hashes, to be removed from disk.
pub fn collect(conn: &Connection, now: f64) -> Result<Vec<String>, StoreError> {
    conn.prepare_cached("DELETE FROM file_pins WHERE delete_by <= ?")?
        .execute([now])?;
    let mut statement = conn.prepare_cached(
        "DELETE FROM files WHERE NOT EXISTS (SELECT 1 FROM file_pins WHERE file_hash = hash) RETURNING hash",
    )?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
