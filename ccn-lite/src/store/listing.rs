//! How a list of messages is found: one index is chosen by what is asked for, and read in the list's order.
//!
//! SQLite would choose by statistics it does not have. The order of preference is by how few messages usually share a
//! value: few refer to the same thing, very many are of the same type. Every other condition is checked against the
//! entries of that index, which hold the columns asked for most, before a message is read.

use std::collections::BTreeSet;

use rusqlite::Connection;
use rusqlite::types::Value;

use super::messages::{COLUMNS, Filter, Message, message};
use super::{After, Conditions, Page, StoreError};

/// Values of the leading column of an index up to which its parts are merged in order; with more, the messages are read by
/// time until there are enough.
const MAX_ARMS: usize = 8;
/// Matches that are counted; what is more is told from the number of messages of the types asked for.
const MAX_COUNTED: u64 = 10_000;

/// The part of an index that is read, in order by itself.
#[derive(Debug, Clone, Copy)]
enum Part<'a> {
    /// Everything asked for.
    Whole,
    /// What has this value in the leading column.
    Value(&'a String),
    /// What this sender signed for itself: found as its owner's.
    Own(&'a String),
    /// What this sender signed for others.
    Delegate(&'a String),
}

/// Where messages are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The index that begins with this column; the column is restricted to a few values.
    Column(&'static str),
    /// The table of tags.
    Tag,
    /// The index of times.
    Time,
}

impl Filter {
    /// What can be narrowed by an index, the most selective first, with the values asked for.
    fn indexed(&self) -> [(&'static str, &[String]); 9] {
        [
            ("item_hash", &self.hashes),
            ("content_item_hash", &self.content_hashes),
            ("content_ref", &self.refs),
            ("content_key", &self.content_keys),
            ("owner", &self.owners),
            ("sender", &self.senders),
            ("channel", &self.channels),
            ("content_type", &self.content_types),
            ("type", &self.types),
        ]
    }

    fn source(&self) -> Source {
        let narrow = |(column, values): &(&'static str, &[String])| {
            let most = match *column {
                // Looked up one by one, and there are only so many.
                "item_hash" | "content_item_hash" => usize::MAX,
                _ => MAX_ARMS,
            };
            (1..=most).contains(&values.len())
        };
        let chosen = self.indexed().into_iter().find(narrow);
        match chosen.map(|(column, _)| column) {
            Some(column @ ("item_hash" | "content_item_hash" | "content_ref")) => {
                Source::Column(column)
            }
            // A message may have several tags, so only one can be read in order.
            _ if self.tags.len() == 1 => Source::Tag,
            Some(column) => Source::Column(column),
            None => Source::Time,
        }
    }

    /// The parts of `source` that are read, each in order.
    fn parts(&self, source: Source) -> Vec<Part<'_>> {
        let Source::Column(column) = source else {
            return vec![Part::Whole];
        };
        match column {
            // Looked up one by one.
            "item_hash" | "content_item_hash" => vec![Part::Whole],
            "sender" => {
                let both = |sender| [Part::Own(sender), Part::Delegate(sender)];
                each(&self.senders).flat_map(both).collect()
            }
            _ => self
                .indexed()
                .into_iter()
                .filter(|(name, _)| *name == column)
                .flat_map(|(_, values)| each(values).map(Part::Value))
                .collect(),
        }
    }

    /// The conditions for reading `part` of `source`.
    fn conditions(&self, source: Source, part: Part<'_>) -> Conditions {
        let mut c = Conditions::default();
        for (column, values) in self.indexed() {
            if source != Source::Column(column) {
                // The plus sign keeps SQLite from reading another index.
                c.any(&format!("+{} IN ({{}})", source.column(column)), values);
                continue;
            }
            match part {
                Part::Whole => c.any(&format!("{column} IN ({{}})"), values),
                Part::Value(value) => c.with(&format!("{column} = ?"), value.clone()),
                Part::Own(sender) => c.with("owner = ? AND delegate IS NULL", sender.clone()),
                Part::Delegate(sender) => c.with("delegate = ?", sender.clone()),
            }
        }
        match (source, self.tags.first()) {
            (Source::Tag, Some(tag)) => c.with("tag = ?", tag.clone()),
            _ => c.any(
                "EXISTS (SELECT 1 FROM json_each(tags) WHERE value IN ({}))",
                &self.tags,
            ),
        }
        if !self.is_of_any_status() {
            c.any("+status IN ({})", &self.statuses);
        }
        c.any(
            &format!("+{} IN ({{}})", source.column("chain")),
            &self.chains,
        );
        c.any("+payment_type IN ({})", &self.payment_types);
        let time = source.time();
        if let Some(start) = self.start {
            c.with(&format!("{time} >= ?"), start);
        }
        if let Some(end) = self.end {
            c.with(&format!("{time} < ?"), end);
        }
        if self.confirmed {
            c.raw("FALSE");
        }
        c
    }
}

/// Each value once, however often it is asked for.
fn each(values: &[String]) -> impl Iterator<Item = &String> {
    let distinct: BTreeSet<&String> = values.iter().collect();
    distinct.into_iter()
}

impl Source {
    /// The column with the time of a message.
    const fn time(self) -> &'static str {
        match self {
            Self::Tag => "at",
            _ => "time",
        }
    }

    /// Where a column of messages is read: what the table of tags repeats is checked there.
    fn column(self, name: &'static str) -> String {
        let repeated = [
            "type",
            "chain",
            "sender",
            "owner",
            "channel",
            "content_type",
        ];
        match self {
            Self::Tag if repeated.contains(&name) => format!("message_tags.{name}"),
            _ => format!("messages.{name}"),
        }
    }

    const fn table(self) -> &'static str {
        match self {
            // The order of the tables is the order of reading.
            Self::Tag => {
                "message_tags CROSS JOIN messages ON messages.item_hash = message_tags.message"
            }
            _ => "messages",
        }
    }
}

/// A list, newest first unless `ascending`.
pub fn list(
    conn: &Connection,
    filter: &Filter,
    ascending: bool,
    page: Page,
    after: Option<&After>,
) -> Result<Vec<Message>, StoreError> {
    let source = filter.source();
    let direction = if ascending { "ASC" } else { "DESC" };
    // The table of tags has some columns of the same name.
    let columns = format!("messages.{}", COLUMNS.replace(", ", ", messages."));
    let mut params: Vec<Value> = Vec::new();
    let mut selects = Vec::new();
    // Parts that are each in order are merged; a single one is what it is.
    for part in filter.parts(source) {
        let mut c = filter.conditions(source, part);
        if let Some(after) = after {
            c.after(source.time(), ascending, after);
        }
        selects.push(format!(
            "SELECT {columns} FROM {}{}",
            source.table(),
            c.clause()
        ));
        params.extend(c.values().iter().cloned());
    }
    let time = if selects.len() == 1 {
        source.time()
    } else {
        "time"
    };
    let sql = format!(
        "{} ORDER BY {time} {direction}, item_hash ASC{}",
        selects.join(" UNION ALL "),
        page.clause()
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(rusqlite::params_from_iter(params), message)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// How many messages the filter keeps: exactly for types, and for owners or senders; with other conditions exactly up to
/// ten thousand, beyond that no fewer than there are.
pub fn count(conn: &Connection, filter: &Filter) -> Result<u64, StoreError> {
    if !filter.narrows_beyond_type() {
        return count_of_types(conn, filter);
    }
    let of_addresses = count_of_addresses(conn, filter)?;
    if let Some(count) = of_addresses
        && filter.narrows_by_address_only()
    {
        return Ok(count);
    }
    let source = filter.source();
    let table = if source == Source::Tag && filter.is_told_by_tags() {
        "message_tags"
    } else {
        source.table()
    };
    let mut params: Vec<Value> = Vec::new();
    let mut selects = Vec::new();
    for part in filter.parts(source) {
        let c = filter.conditions(source, part);
        selects.push(format!("SELECT 1 FROM {table}{}", c.clause()));
        params.extend(c.values().iter().cloned());
    }
    let sql = format!(
        "SELECT count(*) FROM ({} LIMIT {})",
        selects.join(" UNION ALL "),
        MAX_COUNTED + 1
    );
    let counted: i64 = conn
        .prepare_cached(&sql)?
        .query_row(rusqlite::params_from_iter(params), |row| row.get(0))?;
    let counted = counted.unsigned_abs();
    if counted <= MAX_COUNTED {
        return Ok(counted);
    }
    match of_addresses {
        Some(count) => Ok(count),
        None => count_of_types(conn, filter),
    }
}

/// Messages of the types and the owners asked for, or else of the senders, as counted when they came and went.
fn count_of_addresses(conn: &Connection, filter: &Filter) -> Result<Option<u64>, StoreError> {
    let parts: &[(&str, &[String])] = match (&filter.owners[..], &filter.senders[..]) {
        ([], []) => return Ok(None),
        ([], senders) => &[
            ("delegate = '' AND owner IN ({})", senders),
            ("delegate IN ({})", senders),
        ],
        (owners, _) => &[("owner IN ({})", owners)],
    };
    let mut total = 0;
    for (condition, addresses) in parts {
        let mut c = Conditions::default();
        c.any(condition, addresses);
        c.any("type IN ({})", &filter.types);
        let sql = format!(
            "SELECT coalesce(sum(messages), 0) FROM address_counts{}",
            c.clause()
        );
        let count: i64 = conn
            .prepare_cached(&sql)?
            .query_row(c.params().as_slice(), |row| row.get(0))?;
        total += count.unsigned_abs();
    }
    Ok(Some(total))
}

/// Messages of the types and statuses asked for, as counted when they came and went.
fn count_of_types(conn: &Connection, filter: &Filter) -> Result<u64, StoreError> {
    let mut c = Conditions::default();
    c.any("type IN ({})", &filter.types);
    c.any("status IN ({})", &filter.statuses);
    let sql = format!(
        "SELECT coalesce(sum(messages), 0) FROM message_counts{}",
        c.clause()
    );
    let count: i64 = conn
        .prepare_cached(&sql)?
        .query_row(c.params().as_slice(), |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

impl Filter {
    /// Whether the table of tags holds all that a message with one of them is chosen by.
    fn is_told_by_tags(&self) -> bool {
        let elsewhere = [
            &self.hashes,
            &self.content_hashes,
            &self.refs,
            &self.content_keys,
            &self.payment_types,
        ];
        elsewhere.iter().all(|values| values.is_empty()) && self.is_of_any_status()
    }

    /// Every message in force has one of two statuses.
    fn is_of_any_status(&self) -> bool {
        ["processed", "removing"]
            .iter()
            .all(|status| self.statuses.iter().any(|s| s == status))
    }

    fn narrows_beyond_type(&self) -> bool {
        self.narrows_beyond(&["type"])
    }

    /// Whether only types and either owners or senders are asked for.
    fn narrows_by_address_only(&self) -> bool {
        !self.narrows_beyond(&["type", "owner", "sender"])
            && self.is_of_any_status()
            && (self.owners.is_empty() || self.senders.is_empty())
    }

    /// Whether anything but these columns is asked about.
    fn narrows_beyond(&self, columns: &[&str]) -> bool {
        let lists = self.indexed();
        lists
            .iter()
            .any(|(column, values)| !columns.contains(column) && !values.is_empty())
            || !self.tags.is_empty()
            || !self.chains.is_empty()
            || !self.payment_types.is_empty()
            || self.start.is_some()
            || self.end.is_some()
            || self.confirmed
    }
}
