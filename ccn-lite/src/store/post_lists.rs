//! How a list of posts is found: from the index that has the fewest entries to look at, in the list's order.
//!
//! SQLite would choose by statistics it does not have, so a few entries are counted in each index that could be read.
//! Where the index repeats the columns asked for, an entry is checked without reading its post.

use std::collections::BTreeSet;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::messages::{self, COLUMNS, Message};
use super::posts::{Filter, Merged};
use super::{After, Conditions, Page, StoreError};

/// Values of a column up to which its index is read in order for each and merged.
const MAX_ARMS: usize = 8;
/// Entries of an index that are counted to know how many there are.
const FEW: u64 = 2_000;
/// Entries that are looked at sooner than it is found out whether another index has fewer.
const NEXT_TO_NOTHING: u64 = 500;
/// Entries of an index that cost as much as reading one post.
const READING: u64 = 20;
/// Entries of an index that are looked at for a count, when each must be checked.
const MAX_EXAMINED: u64 = 30_000;
/// Matches that are counted; what is more is told from the number of posts.
const MAX_COUNTED: u64 = 10_000;

/// The columns of a post that lists are narrowed by.
const COLUMNS_ASKED: [&str; 5] = [
    "item_hash",
    "content_ref",
    "owner",
    "content_type",
    "channel",
];

/// Where posts are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The index that begins with this column.
    Column(&'static str),
    /// The table of tags.
    Tag,
    /// The index of all posts in order.
    Updated,
}

/// A source with what is known about it.
#[derive(Debug, Clone, Copy)]
struct Choice {
    source: Source,
    /// Whether it is known to have at most [`FEW`] entries.
    is_small: bool,
}

impl Source {
    /// Whether an entry tells the value of this column, of `COLUMNS_ASKED` or `tags`.
    fn tells(self, column: &str) -> bool {
        match self {
            Self::Tag => !matches!(column, "item_hash" | "content_ref"),
            Self::Column("owner") => matches!(column, "owner" | "content_type" | "channel"),
            Self::Column("channel" | "content_type") => {
                matches!(column, "content_type" | "channel")
            }
            Self::Column(_) | Self::Updated => false,
        }
    }

    /// Where a column is read: what the table of tags repeats is checked there.
    fn column(self, name: &str) -> String {
        if self == Self::Tag && self.tells(name) {
            format!("tagged.{name}")
        } else {
            format!("messages.{name}")
        }
    }

    const fn table(self) -> &'static str {
        match self {
            // The order of the tables is the order of reading.
            Self::Tag => {
                "post_tags AS tagged CROSS JOIN messages ON messages.item_hash = tagged.post"
            }
            _ => "messages",
        }
    }

    /// The column with the time by which lists are ordered.
    const fn updated(self) -> &'static str {
        match self {
            Self::Tag => "tagged.updated",
            _ => "messages.updated",
        }
    }

    /// Table and conditions for all its entries with one of `values`.
    fn entries(self, values: &[String]) -> (&'static str, Conditions) {
        let mut c = Conditions::default();
        match self {
            Self::Tag => {
                c.any("tag IN ({})", values);
                return ("post_tags", c);
            }
            Self::Column(column) => c.any(&format!("{column} IN ({{}})"), values),
            Self::Updated => {}
        }
        c.raw("updated IS NOT NULL");
        ("messages", c)
    }
}

/// How many entries `source` has for `values`, counted up to one more than [`FEW`].
fn entries(conn: &Connection, source: Source, values: &[String]) -> Result<u64, StoreError> {
    let (table, c) = source.entries(values);
    let sql = format!(
        "SELECT count(*) FROM (SELECT 1 FROM {table}{} LIMIT {})",
        c.clause(),
        FEW + 1
    );
    let found: i64 = conn
        .prepare_cached(&sql)?
        .query_row(c.params().as_slice(), |row| row.get(0))?;
    Ok(found.unsigned_abs())
}

impl Filter {
    fn asked(&self, column: &str) -> &[String] {
        match column {
            "item_hash" => &self.hashes,
            "content_ref" => &self.refs,
            "owner" => &self.owners,
            "content_type" => &self.types,
            "channel" => &self.channels,
            _ => &self.tags,
        }
    }

    /// Whether entries of `source` tell all that is asked for.
    fn is_told_by(&self, source: Source) -> bool {
        COLUMNS_ASKED
            .into_iter()
            .chain(["tags"])
            .all(|column| self.asked(column).is_empty() || source.tells(column))
    }

    /// The source with the least to look at.
    fn choose(&self, conn: &Connection) -> Result<Choice, StoreError> {
        if !self.hashes.is_empty() {
            return Ok(Choice {
                source: Source::Column("item_hash"),
                is_small: true,
            });
        }
        // By how few posts usually share a value: when all are large, the first that tells everything is read.
        let candidates = [
            (Source::Column("content_ref"), &self.refs),
            (Source::Tag, &self.tags),
            (Source::Column("owner"), &self.owners),
            (Source::Column("channel"), &self.channels),
            (Source::Column("content_type"), &self.types),
        ];
        let mut best: Option<(u64, Choice)> = None;
        for (source, values) in candidates {
            if values.is_empty() {
                continue;
            }
            let found = entries(conn, source, values)?;
            let is_small = found <= FEW;
            let each = if self.is_told_by(source) { 1 } else { READING };
            let cost = if is_small {
                found * each
            } else {
                found * each * READING
            };
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, Choice { source, is_small }));
            }
            if cost <= NEXT_TO_NOTHING {
                break;
            }
        }
        Ok(best.map_or(
            Choice {
                source: Source::Updated,
                is_small: false,
            },
            |(_, choice)| choice,
        ))
    }

    /// What is read in order by itself: one value each of what the source begins with.
    fn parts(&self, source: Source) -> Vec<Option<&String>> {
        let values = match source {
            Source::Column(column @ ("owner" | "content_type" | "channel")) => self.asked(column),
            Source::Tag => &self.tags,
            _ => return vec![None],
        };
        let distinct: BTreeSet<&String> = values.iter().collect();
        if distinct.len() > MAX_ARMS {
            return vec![None];
        }
        distinct.into_iter().map(Some).collect()
    }

    /// The conditions under which `part` of `source` is read, and those that every entry is checked for.
    fn conditions(&self, source: Source, part: Option<&String>) -> (Conditions, Conditions) {
        let (mut read, mut checked) = (Conditions::default(), Conditions::default());
        if source == Source::Tag {
            match part {
                Some(tag) => read.with("tagged.tag = ?", tag.clone()),
                None => read.any("tagged.tag IN ({})", &self.tags),
            }
            if self.tags.len() > 1 {
                // One that has several of them is one post.
                checked.any(
                    "NOT EXISTS (SELECT 1 FROM post_tags other WHERE other.tag IN ({}) AND other.tag < tagged.tag \
                     AND other.updated = tagged.updated AND other.post = tagged.post)",
                    &self.tags,
                );
            }
        } else {
            read.raw("messages.updated IS NOT NULL");
            checked.any(
                "EXISTS (SELECT 1 FROM post_tags WHERE tag IN ({}) AND post_tags.updated = messages.updated \
                 AND post = messages.item_hash)",
                &self.tags,
            );
        }
        for column in COLUMNS_ASKED {
            let values = self.asked(column);
            let place = source.column(column);
            match part {
                // The plus sign keeps SQLite from reading another index.
                _ if source != Source::Column(column) => {
                    checked.any(&format!("+{place} IN ({{}})"), values);
                }
                Some(value) => read.with(&format!("{place} = ?"), value.clone()),
                None => read.any(&format!("{place} IN ({{}})"), values),
            }
        }
        let updated = source.updated();
        if let Some(start) = self.start {
            read.with(&format!("{updated} >= ?"), start);
        }
        if let Some(end) = self.end {
            read.with(&format!("{updated} < ?"), end);
        }
        (read, checked)
    }

    /// The same without what could only be checked by reading very many posts.
    fn counted(&self, choice: Choice) -> Self {
        let mut counted = self.clone();
        if choice.is_small {
            return counted;
        }
        let lists = [
            ("tags", &mut counted.tags),
            ("owner", &mut counted.owners),
            ("channel", &mut counted.channels),
            ("content_type", &mut counted.types),
            ("content_ref", &mut counted.refs),
        ];
        for (column, values) in lists {
            if choice.source != Source::Column(column) && !choice.source.tells(column) {
                values.clear();
            }
        }
        counted
    }
}

/// How many merged posts the filter keeps: exactly when an index with few entries is read, or one that tells everything
/// asked for and is not very long; otherwise no fewer than there are.
pub fn count(conn: &Connection, filter: &Filter) -> Result<u64, StoreError> {
    let choice = filter.choose(conn)?;
    let source = choice.source;
    let filter = filter.counted(choice);
    let table = if source == Source::Tag && filter.is_told_by(source) {
        "post_tags AS tagged"
    } else {
        source.table()
    };
    let mut params: Vec<Value> = Vec::new();
    let mut selects = Vec::new();
    let mut is_checked = false;
    for part in filter.parts(source) {
        let (read, checked) = filter.conditions(source, part);
        is_checked |= !checked.values().is_empty();
        selects.push(format!(
            "SELECT {} AS kept FROM {table}{}",
            checked.expression(),
            read.clause()
        ));
        params.extend(checked.values().iter().chain(read.values()).cloned());
    }
    let most = if is_checked {
        MAX_EXAMINED
    } else {
        MAX_COUNTED
    };
    let (examined, kept): (i64, i64) = conn
        .prepare_cached(&format!(
            "SELECT count(*), coalesce(sum(kept), 0) FROM ({} LIMIT {})",
            selects.join(" UNION ALL "),
            most + 1
        ))?
        .query_row(params_from_iter(params), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    if examined.unsigned_abs() <= most {
        return Ok(kept.unsigned_abs());
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
    let source = filter.choose(conn)?.source;
    let (sql, params) = selection(filter, source, ascending, page, after);
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

/// The query of a list with its parameters.
fn selection(
    filter: &Filter,
    source: Source,
    ascending: bool,
    page: Page,
    after: Option<&After>,
) -> (String, Vec<Value>) {
    let direction = if ascending { "ASC" } else { "DESC" };
    let columns = format!("messages.{}", COLUMNS.replace(", ", ", messages."));
    // What a list is ordered by is read where it is in order.
    let (updated, hash) = match source {
        Source::Tag => ("tagged.updated", "tagged.post"),
        _ => ("messages.updated", "messages.item_hash"),
    };
    let mut params: Vec<Value> = Vec::new();
    let mut selects = Vec::new();
    for part in filter.parts(source) {
        let (mut c, checked) = filter.conditions(source, part);
        if let Some(after) = after {
            c.after(updated, ascending, after);
        }
        c.and(checked);
        selects.push(format!(
            "SELECT {columns}, {updated} AS at, messages.amended_by, {hash} AS post FROM {}{}",
            source.table(),
            c.clause()
        ));
        params.extend(c.values().iter().cloned());
    }
    let sql = format!(
        "{} ORDER BY at {direction}, post{}",
        selects.join(" UNION ALL "),
        page.clause()
    );
    (sql, params)
}

#[cfg(test)]
mod tests;
