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

/// The status of most messages in force.
const PROCESSED: &str = "processed";
/// The other one; those that have it have an index of their own.
const REMOVING: &str = "removing";
/// The chain of most senders; the others have an index.
const USUAL_CHAIN: &str = "ETH";
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
    /// What has the tag with this number among those asked for, and none before it.
    Tag(usize),
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
    fn indexed(&self) -> [(&'static str, &[String]); 12] {
        [
            ("item_hash", &self.hashes),
            ("content_item_hash", &self.content_hashes),
            ("content_ref", &self.refs),
            ("status", self.asked_statuses()),
            ("content_key", &self.content_keys),
            ("owner", &self.owners),
            ("sender", &self.senders),
            ("channel", &self.channels),
            ("content_type", &self.content_types),
            ("payment_type", &self.payment_types),
            ("chain", &self.chains),
            ("type", &self.types),
        ]
    }

    /// The statuses, unless that are all there are.
    fn asked_statuses(&self) -> &[String] {
        if self.is_of_any_status() {
            &[]
        } else {
            &self.statuses
        }
    }

    fn source(&self) -> Source {
        let narrow = |(column, values): &(&'static str, &[String])| match *column {
            // Looked up one by one, and there are only so many.
            "item_hash" | "content_item_hash" => !values.is_empty(),
            // Their indices leave out what nearly everything has.
            "status" => !values.is_empty() && values.iter().all(|status| status != PROCESSED),
            "chain" => {
                (1..=MAX_ARMS).contains(&values.len())
                    && values.iter().all(|chain| chain != USUAL_CHAIN)
            }
            _ => (1..=MAX_ARMS).contains(&values.len()),
        };
        let chosen = self.indexed().into_iter().find(narrow);
        match chosen.map(|(column, _)| column) {
            Some(column @ ("item_hash" | "content_item_hash" | "content_ref" | "status")) => {
                Source::Column(column)
            }
            _ if (1..=MAX_ARMS).contains(&self.tags.len()) => Source::Tag,
            Some(column) => Source::Column(column),
            None => Source::Time,
        }
    }

    /// The parts of `source` that are read, each in order.
    fn parts(&self, source: Source) -> Vec<Part<'_>> {
        let column = match source {
            Source::Column(column) => column,
            Source::Tag => return (0..self.tags.len()).map(Part::Tag).collect(),
            Source::Time => return vec![Part::Whole],
        };
        match column {
            // Looked up one by one, or all there is.
            "item_hash" | "content_item_hash" | "status" => vec![Part::Whole],
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
                // An index of a part of the table is used for a condition in the same words only.
                Part::Whole if column == "status" => c.raw(format!("status = '{REMOVING}'")),
                Part::Whole | Part::Tag(_) => c.any(&format!("{column} IN ({{}})"), values),
                Part::Value(value) => {
                    c.with(&format!("{column} = ?"), value.clone());
                    if column == "chain" {
                        c.raw(format!("chain <> '{USUAL_CHAIN}'"));
                    }
                }
                Part::Own(sender) => c.with("owner = ? AND delegate IS NULL", sender.clone()),
                Part::Delegate(sender) => c.with("delegate = ?", sender.clone()),
            }
        }
        if let Part::Tag(number) = part {
            let (before, from) = self.tags.split_at(number);
            if let Some(tag) = from.first() {
                c.with("message_tags.tag = ?", tag.clone());
            }
            c.any(
                "NOT EXISTS (SELECT 1 FROM message_tags other WHERE other.tag IN ({}) \
                 AND other.at = message_tags.at AND other.message = message_tags.message)",
                before,
            );
        } else {
            c.any(
                "EXISTS (SELECT 1 FROM json_each(tags) WHERE value IN ({}))",
                &self.tags,
            );
        }
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
            Self::Tag => "message_tags.at",
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
    if filter.is_of_none() {
        return Ok(Vec::new());
    }
    let (sql, params) = selection(filter, ascending, page, after);
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(rusqlite::params_from_iter(params), message)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The query of a list with its parameters.
fn selection(
    filter: &Filter,
    ascending: bool,
    page: Page,
    after: Option<&After>,
) -> (String, Vec<Value>) {
    let source = filter.source();
    let direction = if ascending { "ASC" } else { "DESC" };
    // The table of tags has some columns of the same name.
    let mut columns = format!("messages.{}", COLUMNS.replace(", ", ", messages."));
    if source == Source::Tag {
        // Parts are merged by what stands in the list, and each is in order by its own column.
        columns = columns.replace("messages.time", "message_tags.at AS time");
    }
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
    (sql, params)
}

/// How many messages the filter keeps: exactly for types, and for owners or senders; with other conditions exactly up to
/// ten thousand, beyond that no fewer than there are.
pub fn count(conn: &Connection, filter: &Filter) -> Result<u64, StoreError> {
    if filter.is_of_none() {
        return Ok(0);
    }
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
        self.asks_for(PROCESSED) && self.asks_for(REMOVING)
    }

    fn asks_for(&self, status: &str) -> bool {
        self.statuses.iter().any(|asked| asked == status)
    }

    /// Whether only such messages are asked for as are not in force.
    fn is_of_none(&self) -> bool {
        !self.statuses.is_empty() && !self.asks_for(PROCESSED) && !self.asks_for(REMOVING)
    }

    fn narrows_beyond_type(&self) -> bool {
        self.narrows_beyond(&["type", "status"])
    }

    /// Whether only types and either owners or senders are asked for.
    fn narrows_by_address_only(&self) -> bool {
        !self.narrows_beyond(&["type", "owner", "sender"])
            && (self.owners.is_empty() || self.senders.is_empty())
    }

    /// Whether anything but these columns is asked about.
    fn narrows_beyond(&self, columns: &[&str]) -> bool {
        let lists = self.indexed();
        lists
            .iter()
            .any(|(column, values)| !columns.contains(column) && !values.is_empty())
            || !self.tags.is_empty()
            || self.start.is_some()
            || self.end.is_some()
            || self.confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;

    #[test]
    fn every_filter_alone_is_read_from_an_index_in_the_order_of_the_list() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        drop(Store::open(&path).unwrap());
        let conn = Connection::open(&path).unwrap();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let in_force = Filter {
            statuses: words(&["processed", "removing"]),
            ..Filter::default()
        };
        let of = |change: &dyn Fn(&mut Filter)| {
            let mut filter = in_force.clone();
            change(&mut filter);
            filter
        };
        let cases = [
            ("messages_time", of(&|_| {})),
            ("messages_time", of(&|f| f.start = Some(1.0))),
            ("messages_time", of(&|f| f.chains = words(&["ETH"]))),
            (
                "messages_type",
                of(&|f| f.types = words(&["POST", "STORE"])),
            ),
            ("messages_owner", of(&|f| f.owners = words(&["a", "b"]))),
            ("messages_delegate", of(&|f| f.senders = words(&["a"]))),
            ("messages_channel", of(&|f| f.channels = words(&["a"]))),
            (
                "messages_content_type",
                of(&|f| f.content_types = words(&["a", "b"])),
            ),
            ("messages_ref", of(&|f| f.refs = words(&["a"]))),
            ("messages_key", of(&|f| f.content_keys = words(&["a"]))),
            (
                "messages_payment",
                of(&|f| f.payment_types = words(&["credit"])),
            ),
            (
                "messages_chain",
                of(&|f| f.chains = words(&["SOL", "AVAX"])),
            ),
            (
                "messages_removing",
                of(&|f| f.statuses = words(&["removing", "pending"])),
            ),
            ("message_tags", of(&|f| f.tags = words(&["a", "b"]))),
        ];
        for (index, filter) in cases {
            for ascending in [true, false] {
                let page = Page { limit: 20, page: 1 };
                let (sql, params) = selection(&filter, ascending, page, None);
                let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
                let rows = statement
                    .query_map(rusqlite::params_from_iter(params), |row| row.get(3))
                    .unwrap();
                let plan: Vec<String> = rows.map(Result::unwrap).collect();
                let text = plan.join("\n");
                assert!(text.contains(index), "{sql}\n{text}");
                assert!(
                    !plan
                        .iter()
                        .any(|step| step == "USE TEMP B-TREE FOR ORDER BY"),
                    "{sql}\n{text}"
                );
            }
        }
    }
}
