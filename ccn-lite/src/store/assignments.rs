//! What the scheduler places, and where it placed it.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use serde_json::Value;

use super::StoreError;
use super::messages::CONTENT;

/// A machine with what matters for its placement.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Item hash.
    pub item_hash: String,
    /// Owner.
    pub owner: String,
    /// Who signed its message.
    pub sender: String,
    /// `PROGRAM` or `INSTANCE`.
    pub kind: String,
    /// Whether it always runs.
    pub persistent: bool,
    /// How it is paid.
    pub payment_type: String,
    /// Unix seconds.
    pub created: f64,
    /// The message's content.
    pub content: Value,
}

/// Machines in force, oldest first. Replacements are left out: a machine keeps the name of its original.
pub fn candidates(conn: &Connection) -> Result<Vec<Candidate>, StoreError> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT v.item_hash, v.owner, sender, v.type, v.persistent, v.payment_type, v.created, {CONTENT} \
         FROM vms v JOIN messages ON messages.item_hash = v.item_hash \
         WHERE v.replaces IS NULL AND v.type <> 'V-PROGRAM' AND status = 'processed' ORDER BY v.created, v.item_hash",
    ))?;
    let rows = statement.query_map([], |row| {
        let content: String = row.get(7)?;
        let candidate = Candidate {
            item_hash: row.get(0)?,
            owner: row.get(1)?,
            sender: row.get(2)?,
            kind: row.get(3)?,
            persistent: row.get(4)?,
            payment_type: row.get(5)?,
            created: row.get(6)?,
            content: Value::Null,
        };
        Ok((candidate, content))
    })?;
    rows.map(|row| {
        let (candidate, content) = row?;
        Ok(Candidate {
            content: serde_json::from_str(&content)?,
            ..candidate
        })
    })
    .collect()
}

/// All placements: machine to node.
pub fn all(conn: &Connection) -> Result<BTreeMap<String, String>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT vm, node FROM assignments")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Makes `assignments` the placements.
pub fn replace(
    conn: &Connection,
    assignments: &BTreeMap<String, String>,
) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM assignments")?
        .execute([])?;
    let mut insert = conn.prepare_cached("INSERT INTO assignments (vm, node) VALUES (?, ?)")?;
    for (vm, node) in assignments {
        insert.execute(params![vm, node])?;
    }
    Ok(())
}
