//! Posts with their amends merged: one row of a list is an original with its latest content.
//!
//! A post is a message with a time of its own; an original also says when it was last updated, and by which amend.

use std::collections::BTreeSet;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::messages::{self, AMEND, COLUMNS, Message};
use super::{After, Conditions, Page, StoreError};

/// Values of a column up to which its index is read in order for each and merged.
const MAX_ARMS: usize = 8;
/// Posts that are looked at one by one and put in order.
const FEW: u64 = 5_000;
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

/// Where posts are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The index that begins with this column.
    Column(&'static str),
    /// The table of tags, when few messages have them.
    Tag,
    /// The index of all posts in order.
    Updated,
}

/// Whether at most [`FEW`] rows of `table` have one of `values`: those can all be looked at and put in order.
fn are_few(
    conn: &Connection,
    table: &str,
    column: &str,
    values: &[String],
) -> Result<bool, StoreError> {
    let mut c = Conditions::default();
    c.any(&format!("{column} IN ({{}})"), values);
    let found: i64 = conn
        .prepare_cached(&format!(
            "SELECT count(*) FROM (SELECT 1 FROM {table}{} LIMIT {})",
            c.clause(),
            FEW + 1
        ))?
        .query_row(c.params().as_slice(), |row| row.get(0))?;
    Ok(found.unsigned_abs() <= FEW)
}

impl Filter {
    fn columns(&self) -> [(&'static str, &[String]); 5] {
        [
            ("item_hash", &self.hashes),
            ("content_ref", &self.refs),
            ("owner", &self.owners),
            ("content_type", &self.types),
            ("channel", &self.channels),
        ]
    }

    fn source(&self, conn: &Connection) -> Result<Source, StoreError> {
        Ok(if !self.hashes.is_empty() {
            Source::Column("item_hash")
        } else if !self.refs.is_empty() {
            Source::Column("content_ref")
        } else if !self.tags.is_empty() && are_few(conn, "message_tags", "tag", &self.tags)? {
            Source::Tag
        } else if !self.owners.is_empty() {
            Source::Column("owner")
        } else if !self.channels.is_empty() && are_few(conn, "messages", "channel", &self.channels)?
        {
            Source::Column("channel")
        } else if !self.types.is_empty() {
            Source::Column("content_type")
        } else {
            Source::Updated
        })
    }

    /// What is read in order by itself: one value each of a column whose index is in the list's order.
    fn parts(&self, source: Source) -> Vec<Option<&String>> {
        let values = match source {
            Source::Column("owner") => &self.owners,
            Source::Column("content_type") => &self.types,
            _ => return vec![None],
        };
        let distinct: BTreeSet<&String> = values.iter().collect();
        if distinct.len() > MAX_ARMS {
            return vec![None];
        }
        distinct.into_iter().map(Some).collect()
    }

    /// What is read, and the conditions for it.
    fn conditions(&self, source: Source, part: Option<&String>) -> (&'static str, Conditions) {
        let mut c = Conditions::default();
        let table = match (source, &self.tags[..]) {
            (Source::Tag, [_]) => {
                c.any("tag IN ({})", &self.tags);
                "message_tags AS tagged CROSS JOIN messages"
            }
            (Source::Tag, tags) => {
                // One that has several of them is one post.
                c.any("tagged.tag IN ({})", tags);
                c.any(
                    "NOT EXISTS (SELECT 1 FROM message_tags other WHERE other.tag IN ({}) AND other.tag < tagged.tag \
                     AND other.at = tagged.at AND other.message = tagged.message)",
                    tags,
                );
                "message_tags AS tagged CROSS JOIN messages"
            }
            _ => "messages",
        };
        if source == Source::Tag {
            c.raw(
                "messages.item_hash = iif(tagged.content_type = 'amend', \
                 (SELECT content_ref FROM messages amend WHERE amend.item_hash = tagged.message), tagged.message) \
                 AND coalesce(messages.amended_by, messages.item_hash) = tagged.message",
            );
        } else {
            c.any(
                "EXISTS (SELECT 1 FROM messages latest, json_each(latest.tags) tag \
                 WHERE latest.item_hash = coalesce(messages.amended_by, messages.item_hash) AND tag.value IN ({}))",
                &self.tags,
            );
        }
        c.raw("messages.updated IS NOT NULL");
        for (column, values) in self.columns() {
            match part {
                Some(value) if source == Source::Column(column) => {
                    c.with(&format!("messages.{column} = ?"), value.clone());
                }
                _ if source == Source::Column(column) => {
                    c.any(&format!("messages.{column} IN ({{}})"), values);
                }
                // The plus sign keeps SQLite from reading another index.
                _ => c.any(&format!("+messages.{column} IN ({{}})"), values),
            }
        }
        if let Some(start) = self.start {
            c.with("messages.updated >= ?", start);
        }
        if let Some(end) = self.end {
            c.with("messages.updated < ?", end);
        }
        (table, c)
    }

    /// The same without what could only be checked by reading very many posts.
    fn counted(&self, source: Source) -> Self {
        let mut counted = self.clone();
        if matches!(
            source,
            Source::Column("owner" | "content_type") | Source::Updated
        ) {
            counted.tags.clear();
        }
        counted
    }
}

/// How many merged posts the filter keeps: exactly up to ten thousand, beyond that no fewer than there are; no fewer, too,
/// when tags or channels are asked for that very many posts have.
pub fn count(conn: &Connection, filter: &Filter) -> Result<u64, StoreError> {
    let source = filter.source(conn)?;
    let filter = filter.counted(source);
    let mut params: Vec<Value> = Vec::new();
    let mut selects = Vec::new();
    if source == Source::Updated && !filter.channels.is_empty() {
        // The index of channels tells which messages are originals, but not when they were last updated.
        let mut c = Conditions::default();
        c.any("channel IN ({})", &filter.channels);
        c.raw(format!("type = 'POST' AND content_type <> '{AMEND}'"));
        selects.push(format!(
            "SELECT 1 FROM messages INDEXED BY messages_channel{}",
            c.clause()
        ));
        params.extend(c.values().iter().cloned());
    } else {
        for part in filter.parts(source) {
            let (table, c) = filter.conditions(source, part);
            selects.push(format!("SELECT 1 FROM {table}{}", c.clause()));
            params.extend(c.values().iter().cloned());
        }
    }
    let counted: i64 = conn
        .prepare_cached(&format!(
            "SELECT count(*) FROM ({} LIMIT {})",
            selects.join(" UNION ALL "),
            MAX_COUNTED + 1
        ))?
        .query_row(params_from_iter(params), |row| row.get(0))?;
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
    let source = filter.source(conn)?;
    let direction = if ascending { "ASC" } else { "DESC" };
    let columns = format!("messages.{}", COLUMNS.replace(", ", ", messages."));
    let mut params: Vec<Value> = Vec::new();
    let mut selects = Vec::new();
    for part in filter.parts(source) {
        let (table, mut c) = filter.conditions(source, part);
        if let Some(after) = after {
            c.after("messages.updated", ascending, after);
        }
        selects.push(format!(
            "SELECT {columns}, messages.updated, messages.amended_by FROM {table}{}",
            c.clause()
        ));
        params.extend(c.values().iter().cloned());
    }
    let sql = format!(
        "{} ORDER BY updated {direction}, item_hash{}",
        selects.join(" UNION ALL "),
        page.clause()
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(params), decode)?;
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

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;

    /// More than are looked at one by one.
    const POSTS: u64 = FEW + 1_500;

    /// Posts of three owners and four types; nearly all in one channel, all with one tag.
    fn fill(conn: &Connection) {
        conn.execute_batch(&format!(
            "BEGIN;
             WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < {POSTS})
             INSERT INTO messages ({COLUMNS}, updated)
             SELECT printf('%064x', n), 'processed', 'POST', 'ETH', 'o' || (n % 3), '', 'inline', '{{}}', '', n,
                 iif(n % 100 = 0, 'small', 'big'), 2, n, 'o' || (n % 3), 't' || (n % 4), NULL, NULL, NULL, NULL,
                 iif(n % 50 = 0, '[\"wide\", \"rare\"]', '[\"wide\"]'), n, n
             FROM n;
             COMMIT;"
        ))
        .unwrap();
    }

    fn keeps(filter: &Filter, n: u64) -> bool {
        let has = |list: &[String], value: String| list.is_empty() || list.contains(&value);
        let channel = if n.is_multiple_of(100) {
            "small"
        } else {
            "big"
        };
        has(&filter.owners, format!("o{}", n % 3))
            && has(&filter.types, format!("t{}", n % 4))
            && has(&filter.channels, channel.to_owned())
            && (has(&filter.tags, "wide".to_owned())
                || (n.is_multiple_of(50) && has(&filter.tags, "rare".to_owned())))
            && filter.start.is_none_or(|start| n as f64 >= start)
    }

    #[test]
    fn whatever_is_asked_for_a_list_holds_what_a_plain_search_finds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        drop(Store::open(&path).unwrap());
        let conn = Connection::open(&path).unwrap();
        fill(&conn);
        let some = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let (owners, types): ([Vec<String>; 3], [Vec<String>; 3]) = (
            [vec![], some(&["o1"]), some(&["o0", "o2"])],
            [vec![], some(&["t3"]), some(&["t1", "t2"])],
        );
        let channels: [Vec<String>; 4] =
            [vec![], some(&["big"]), some(&["small"]), some(&["none"])];
        let tags: [Vec<String>; 4] = [
            vec![],
            some(&["wide"]),
            some(&["rare"]),
            some(&["rare", "other"]),
        ];
        let page = Page { limit: 20, page: 2 };
        for case in 0..3 * 3 * 4 * 4 * 2 {
            let filter = Filter {
                owners: owners[case % 3].clone(),
                types: types[case / 3 % 3].clone(),
                channels: channels[case / 9 % 4].clone(),
                tags: tags[case / 36 % 4].clone(),
                start: (case / 144 == 1).then_some(4_000.0),
                ..Filter::default()
            };
            let expected: Vec<u64> = (0..POSTS).rev().filter(|n| keeps(&filter, *n)).collect();
            let found = list(&conn, &filter, false, page, None).unwrap();
            let found: Vec<f64> = found.iter().map(|merged| merged.updated).collect();
            let shown: Vec<f64> = expected
                .iter()
                .skip(20)
                .take(20)
                .map(|n| *n as f64)
                .collect();
            assert_eq!(found, shown, "{filter:?}");
            let counted = count(&conn, &filter).unwrap();
            let all = expected.len() as u64;
            let is_told = filter.tags != ["wide"] && filter.channels != ["big"];
            assert!(
                counted >= all && (counted == all || !is_told),
                "{filter:?}: {counted}"
            );
        }
    }
}
