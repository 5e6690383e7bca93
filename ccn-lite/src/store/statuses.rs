//! The status of every message this node has ever recorded.

use rusqlite::{Connection, Row, params_from_iter};

use super::{Conditions, Page, StoreError};

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

/// A page by reception time, and how many there are.
pub fn list(
    conn: &Connection,
    filter: &Filter,
    ascending: bool,
    page: Page,
) -> Result<(Vec<Status>, u64), StoreError> {
    let mut c = Conditions::default();
    c.any("status IN ({})", &filter.statuses);
    if let Some(start) = filter.start {
        c.with("reception_time >= ?", start);
    }
    if let Some(end) = filter.end {
        c.with("reception_time < ?", end);
    }
    let clause = c.clause();
    let params = || c.values().iter().chain(c.values());
    let total: i64 = conn
        .prepare_cached(&format!(
            "SELECT (SELECT count(*) FROM messages{clause}) + (SELECT count(*) FROM statuses{clause})"
        ))?
        .query_row(params_from_iter(params()), |row| row.get(0))?;
    let direction = if ascending { "ASC" } else { "DESC" };
    // What is in force and what is not, each in order, merged.
    let mut statement = conn.prepare_cached(&format!(
        "SELECT item_hash, status, reception_time FROM messages{clause} UNION ALL \
         SELECT item_hash, status, reception_time FROM statuses{clause} \
         ORDER BY reception_time {direction}, item_hash{}",
        page.clause()
    ))?;
    let rows = statement.query_map(params_from_iter(params()), decode)?;
    Ok((rows.collect::<Result<_, _>>()?, total.unsigned_abs()))
}
