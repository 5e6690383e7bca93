//! Aggregates: the shallow merge of their elements in order of creation.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Map, Value};

use super::{Conditions, Page, StoreError};

/// Whose aggregates the network's nodes never merge: its messages are kept, and nobody asks for what they add up to
/// (spec ccn-api §2.7).
const NEVER_MERGED: &str = "0x51A58800b26AA1451aaA803d1746687cB88E0501";

/// An aggregate.
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// Owner.
    pub owner: String,
    /// Key.
    pub key: String,
    /// The merged content.
    pub content: Value,
    /// Unix seconds of the first element.
    pub created: f64,
    /// Unix seconds of the last.
    pub last_updated: f64,
    /// Item hash of the first element.
    pub first_hash: String,
    /// Item hash of the last.
    pub last_hash: String,
}

/// One contribution to an aggregate.
#[derive(Debug, Clone)]
pub struct Element<'a> {
    /// Item hash of its message.
    pub item_hash: &'a str,
    /// Owner.
    pub owner: &'a str,
    /// Key.
    pub key: &'a str,
    /// Keys to set.
    pub content: &'a Map<String, Value>,
    /// Unix seconds, orders the merge.
    pub created: f64,
}

const COLUMNS: &str = "owner, key, content, created, last_updated, first_hash, last_hash";

fn decode(row: &Row<'_>) -> rusqlite::Result<Aggregate> {
    let text: String = row.get(2)?;
    let content = serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, Box::new(error))
    })?;
    Ok(Aggregate {
        owner: row.get(0)?,
        key: row.get(1)?,
        content,
        created: row.get(3)?,
        last_updated: row.get(4)?,
        first_hash: row.get(5)?,
        last_hash: row.get(6)?,
    })
}

/// An aggregate, owner compared exactly.
pub fn get(conn: &Connection, owner: &str, key: &str) -> Result<Option<Aggregate>, StoreError> {
    Ok(conn
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM aggregates WHERE owner = ? AND key = ?"
        ))?
        .query_row([owner, key], decode)
        .optional()?)
}

/// What an aggregate held at `time` (Unix seconds); none when it did not exist yet.
pub fn as_of(
    conn: &Connection,
    owner: &str,
    key: &str,
    time: f64,
) -> Result<Option<Value>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT content FROM aggregate_elements WHERE owner = ? AND key = ? AND created <= ? \
         ORDER BY created, item_hash",
    )?;
    let mut rows = statement.query(params![owner, key, time])?;
    let mut merged: Option<Map<String, Value>> = None;
    while let Some(row) = rows.next()? {
        let element: Map<String, Value> =
            serde_json::from_str(row.get_ref(0)?.as_str().unwrap_or_default())?;
        merged.get_or_insert_default().extend(element);
    }
    Ok(merged.map(Value::Object))
}

/// All aggregates of an owner, of the given keys when there are any.
pub fn of_owner(
    conn: &Connection,
    owner: &str,
    keys: &[String],
) -> Result<Vec<Aggregate>, StoreError> {
    let mut c = Conditions::default();
    c.with("owner = ?", owner.to_owned());
    c.any("key IN ({})", keys);
    let sql = format!(
        "SELECT {COLUMNS} FROM aggregates{} ORDER BY key",
        c.clause()
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(c.params().as_slice(), decode)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Every aggregate named `key`, of any owner.
pub fn with_key(conn: &Connection, key: &str) -> Result<Vec<Aggregate>, StoreError> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM aggregates WHERE key = ? ORDER BY owner"
    ))?;
    let rows = statement.query_map([key], decode)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// How a list of aggregates is ordered.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// By the time of the first element instead of the last.
    pub by_creation: bool,
    /// Oldest first.
    pub ascending: bool,
}

impl Order {
    fn column(self) -> &'static str {
        if self.by_creation {
            "created"
        } else {
            "last_updated"
        }
    }

    /// The time `aggregate` is ordered by.
    pub fn time(self, aggregate: &Aggregate) -> f64 {
        if self.by_creation {
            aggregate.created
        } else {
            aggregate.last_updated
        }
    }
}

/// The last row of a part of a list.
#[derive(Debug, Clone)]
pub struct Place {
    /// The time it is ordered by.
    pub time: f64,
    /// Its owner.
    pub owner: String,
    /// Its key.
    pub key: String,
}

fn conditions(owners: &[String], keys: &[String]) -> Conditions {
    let mut c = Conditions::default();
    c.any("owner IN ({})", owners);
    c.any("key IN ({})", keys);
    c
}

/// How many aggregates there are.
pub fn count(conn: &Connection, owners: &[String], keys: &[String]) -> Result<u64, StoreError> {
    let c = conditions(owners, keys);
    let total: i64 = conn
        .prepare_cached(&format!("SELECT count(*) FROM aggregates{}", c.clause()))?
        .query_row(c.params().as_slice(), |row| row.get(0))?;
    Ok(total.unsigned_abs())
}

/// A page of aggregates, after a place when one is given.
pub fn list(
    conn: &Connection,
    owners: &[String],
    keys: &[String],
    order: Order,
    page: Page,
    after: Option<&Place>,
) -> Result<Vec<Aggregate>, StoreError> {
    let mut c = conditions(owners, keys);
    let column = order.column();
    if let Some(after) = after {
        let op = if order.ascending { ">" } else { "<" };
        let names = [after.owner.clone(), after.key.clone()];
        c.with_all(
            &format!("({column} {op} ? OR ({column} = ? AND (owner, key) > (?, ?)))"),
            [after.time, after.time]
                .map(Into::into)
                .into_iter()
                .chain(names.map(Into::into)),
        );
    }
    let direction = if order.ascending { "ASC" } else { "DESC" };
    let sql = format!(
        "SELECT {COLUMNS} FROM aggregates{} ORDER BY {column} {direction}, owner, key{}",
        c.clause(),
        page.clause()
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(c.params().as_slice(), decode)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn put(conn: &Connection, a: &Aggregate) -> Result<(), StoreError> {
    conn.prepare_cached(&format!(
        "INSERT OR REPLACE INTO aggregates ({COLUMNS}) VALUES (?,?,?,?,?,?,?)"
    ))?
    .execute(params![
        a.owner,
        a.key,
        a.content.to_string(),
        a.created,
        a.last_updated,
        a.first_hash,
        a.last_hash
    ])?;
    Ok(())
}

/// Adds an element and brings the aggregate up to date: by merging when it is the newest, else by rebuilding. One owner's
/// are never merged.
pub fn add(conn: &Connection, element: &Element<'_>) -> Result<(), StoreError> {
    conn.prepare_cached("INSERT OR REPLACE INTO aggregate_elements VALUES (?,?,?,?,?)")?
        .execute(params![
            element.item_hash,
            element.owner,
            element.key,
            serde_json::to_string(element.content)?,
            element.created
        ])?;
    if element.owner == NEVER_MERGED {
        return Ok(());
    }
    match get(conn, element.owner, element.key)? {
        Some(mut aggregate) if element.created > aggregate.last_updated => {
            if let Value::Object(content) = &mut aggregate.content {
                content.extend(element.content.clone());
            }
            aggregate.last_updated = element.created;
            aggregate.last_hash = element.item_hash.into();
            put(conn, &aggregate)
        }
        _ => rebuild(conn, element.owner, element.key),
    }
}

/// Merges all elements again; without elements the aggregate disappears.
pub fn rebuild(conn: &Connection, owner: &str, key: &str) -> Result<(), StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT item_hash, content, created FROM aggregate_elements WHERE owner = ? AND key = ? \
         ORDER BY created, item_hash",
    )?;
    let mut rows = statement.query([owner, key])?;
    let mut aggregate: Option<Aggregate> = None;
    let mut merged = Map::new();
    while let Some(row) = rows.next()? {
        let (hash, text, created): (String, String, f64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        merged.extend(serde_json::from_str::<Map<String, Value>>(&text)?);
        let entry = aggregate.get_or_insert_with(|| Aggregate {
            owner: owner.into(),
            key: key.into(),
            content: Value::Null,
            created,
            last_updated: created,
            first_hash: hash.clone(),
            last_hash: hash.clone(),
        });
        entry.last_updated = created;
        entry.last_hash = hash;
    }
    match aggregate {
        Some(mut aggregate) => {
            aggregate.content = Value::Object(merged);
            put(conn, &aggregate)
        }
        None => {
            conn.prepare_cached("DELETE FROM aggregates WHERE owner = ? AND key = ?")?
                .execute([owner, key])?;
            Ok(())
        }
    }
}

/// Takes the element of a message away.
pub fn remove_element(conn: &Connection, item_hash: &str) -> Result<(), StoreError> {
    let found: Option<(String, String)> = conn
        .prepare_cached("DELETE FROM aggregate_elements WHERE item_hash = ? RETURNING owner, key")?
        .query_row([item_hash], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match found {
        Some((owner, key)) if owner != NEVER_MERGED => rebuild(conn, &owner, &key),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;

    #[test]
    fn aggregates_of_one_owner_are_kept_and_never_merged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        drop(Store::open(&path).unwrap());
        let conn = Connection::open(&path).unwrap();
        let content = Map::from_iter([("a".to_owned(), Value::from(1))]);
        for owner in [NEVER_MERGED, "0x51a58800b26aa1451aaa803d1746687cb88e0501"] {
            for (number, created) in [(1, 2.0), (2, 1.0), (3, 3.0)] {
                let element = Element {
                    item_hash: &format!("{owner}{number}"),
                    owner,
                    key: "k",
                    content: &content,
                    created,
                };
                add(&conn, &element).unwrap();
            }
            remove_element(&conn, &format!("{owner}1")).unwrap();
            let merged = of_owner(&conn, owner, &[]).unwrap();
            assert_eq!(merged.is_empty(), owner == NEVER_MERGED, "{owner}");
        }
        let kept: i64 = conn
            .query_row("SELECT count(*) FROM aggregate_elements", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(kept, 4);
    }
}
