//! The status of every message this node has ever recorded.

use rusqlite::{Connection, Row, params_from_iter};

use super::{Conditions, Page, StoreError};

/// Matches of a period that are counted; what is more is told from how many there are at any time.
const MAX_COUNTED: u64 = 10_000;
/// Statuses of messages in force: those stand with the messages themselves.
const IN_FORCE: [&str; 2] = ["processed", "removing"];
/// All others.
const OTHERS: [&str; 4] = ["pending", "rejected", "forgotten", "removed"];

/// Where a message stands.
#[derive(Debug, Clone)]
pub struct Status {
    /// Item hash.
    pub item_hash: String,
    /// The status, as on the wire.
    pub status: String,
    /// Unix seconds at which this node got it.
    pub reception_time: f64,
}

fn decode(row: &Row<'_>) -> rusqlite::Result<Status> {
    Ok(Status {
        item_hash: row.get(0)?,
        status: row.get(1)?,
        reception_time: row.get(2)?,
    })
}

/// Which statuses a list holds.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// With one of these; all when empty.
    pub statuses: Vec<String>,
    /// Received not before, unix seconds.
    pub start: Option<f64>,
    /// Received before, unix seconds.
    pub end: Option<f64>,
}

/// What an index has in order of reception.
struct Part {
    table: &'static str,
    conditions: Conditions,
    /// Where it is written how many there are at any time.
    counts: &'static str,
    statuses: Vec<&'static str>,
}

impl Filter {
    fn part(
        &self,
        table: &'static str,
        counts: &'static str,
        statuses: Vec<&'static str>,
        is_every: bool,
    ) -> Part {
        let mut conditions = Conditions::default();
        match statuses[..] {
            // In these words it is the condition of an index.
            [status] if !is_every => conditions.raw(format!("status = '{status}'")),
            _ => {}
        }
        if let Some(start) = self.start {
            conditions.with("reception_time >= ?", start);
        }
        if let Some(end) = self.end {
            conditions.with("reception_time < ?", end);
        }
        Part {
            table,
            conditions,
            counts,
            statuses,
        }
    }

    fn parts(&self) -> Vec<Part> {
        let asked = |status: &&str| {
            self.statuses.is_empty() || self.statuses.iter().any(|asked| asked == status)
        };
        let in_force: Vec<&str> = IN_FORCE.into_iter().filter(asked).collect();
        let mut parts = Vec::new();
        if !in_force.is_empty() {
            let table = if in_force == ["removing"] {
                "messages INDEXED BY messages_removing"
            } else {
                "messages INDEXED BY messages_reception"
            };
            let is_every = in_force.len() == IN_FORCE.len();
            parts.push(self.part(table, "message_counts", in_force, is_every));
        }
        for status in OTHERS.into_iter().filter(asked) {
            parts.push(self.part("statuses", "status_counts", vec![status], false));
        }
        parts
    }
}

impl Part {
    /// How many there are: exactly without a period, else exactly up to ten thousand, and then no fewer than there are.
    fn count(&self, conn: &Connection, filter: &Filter) -> Result<u64, StoreError> {
        if filter.start.is_some() || filter.end.is_some() {
            let sql = format!(
                "SELECT count(*) FROM (SELECT 1 FROM {}{} LIMIT {})",
                self.table,
                self.conditions.clause(),
                MAX_COUNTED + 1
            );
            let counted: i64 = conn
                .prepare_cached(&sql)?
                .query_row(self.conditions.params().as_slice(), |row| row.get(0))?;
            let counted = counted.unsigned_abs();
            if counted <= MAX_COUNTED {
                return Ok(counted);
            }
        }
        let mut c = Conditions::default();
        let statuses: Vec<String> = self.statuses.iter().map(|s| (*s).to_owned()).collect();
        c.any("status IN ({})", &statuses);
        let sql = format!(
            "SELECT coalesce(sum(messages), 0) FROM {}{}",
            self.counts,
            c.clause()
        );
        let count: i64 = conn
            .prepare_cached(&sql)?
            .query_row(c.params().as_slice(), |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }
}

/// A page by reception time, and how many there are: exactly without a period, else exactly up to ten thousand of each
/// status, and then no fewer than there are.
pub fn list(
    conn: &Connection,
    filter: &Filter,
    ascending: bool,
    page: Page,
) -> Result<(Vec<Status>, u64), StoreError> {
    let parts = filter.parts();
    let mut total = 0;
    let mut selects = Vec::new();
    let mut params = Vec::new();
    for part in &parts {
        total += part.count(conn, filter)?;
        selects.push(format!(
            "SELECT item_hash, status, reception_time FROM {}{}",
            part.table,
            part.conditions.clause()
        ));
        params.extend(part.conditions.values().iter().cloned());
    }
    let direction = if ascending { "ASC" } else { "DESC" };
    // Each is in order by itself, so they are merged.
    let mut statement = conn.prepare_cached(&format!(
        "{} ORDER BY reception_time {direction}, item_hash{}",
        selects.join(" UNION ALL "),
        page.clause()
    ))?;
    let rows = statement.query_map(params_from_iter(params), decode)?;
    Ok((rows.collect::<Result<_, _>>()?, total))
}
