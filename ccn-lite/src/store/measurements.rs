//! What the network's scoring measured at nodes, kept for two weeks.

use rusqlite::{Connection, params};
use serde_json::{Map, Value};

use super::{Conditions, StoreError};

/// How long measurements are kept, seconds.
const KEPT: f64 = 14.0 * 86_400.0;
/// Measurements told at once at most: one every ten minutes for two weeks.
const MAX_TOLD: usize = 2016;

/// The kind of node measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A core channel node.
    Core,
    /// A compute resource node.
    Compute,
}

impl Kind {
    /// Under which name a post lists nodes of this kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Core => "ccn",
            Self::Compute => "crn",
        }
    }

    /// What is measured: seconds, or numbers.
    pub const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Core => &[
                "base_latency",
                "base_latency_ipv4",
                "metrics_latency",
                "aggregate_latency",
                "file_download_latency",
                "pending_messages",
                "eth_height_remaining",
            ],
            Self::Compute => &[
                "base_latency",
                "base_latency_ipv4",
                "full_check_latency",
                "diagnostic_vm_latency",
            ],
        }
    }
}

/// One measurement of one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// The message that told of it.
    pub message: String,
    /// Unix seconds.
    pub at: f64,
    /// By column; what is absent could not be measured.
    pub measured: Map<String, Value>,
}

/// Keeps what a post says about nodes (`metrics.ccn` and `metrics.crn` of its content) and lets go of what is too old.
/// Entries without a node or a time say nothing.
pub fn record(
    conn: &Connection,
    message: &str,
    content: &Value,
    now: f64,
) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM measurements WHERE measured_at < ?")?
        .execute([now - KEPT])?;
    for kind in [Kind::Core, Kind::Compute] {
        let entries = content["metrics"][kind.as_str()].as_array();
        for entry in entries.into_iter().flatten() {
            let (Some(node), Some(at)) = (entry["node_id"].as_str(), entry["measured_at"].as_f64())
            else {
                continue;
            };
            if at < now - KEPT {
                continue;
            }
            let measured: Map<String, Value> = kind
                .columns()
                .iter()
                .filter(|column| entry[**column].is_number())
                .map(|column| ((*column).to_owned(), entry[*column].clone()))
                .collect();
            conn.prepare_cached("INSERT OR IGNORE INTO measurements VALUES (?, ?, ?, ?, ?)")?
                .execute(params![
                    node,
                    kind.as_str(),
                    at,
                    message,
                    Value::Object(measured).to_string()
                ])?;
        }
    }
    Ok(())
}

/// What was measured at a node from `start` to `end` (Unix seconds), oldest first unless `descending`.
pub fn of_node(
    conn: &Connection,
    kind: Kind,
    node: &str,
    (start, end): (Option<f64>, Option<f64>),
    descending: bool,
) -> Result<Vec<Measurement>, StoreError> {
    let mut c = Conditions::default();
    c.with("node = ?", node.to_owned());
    c.with("kind = ?", kind.as_str().to_owned());
    if let Some(start) = start {
        c.with("measured_at >= ?", start);
    }
    if let Some(end) = end {
        c.with("measured_at <= ?", end);
    }
    let direction = if descending { "DESC" } else { "ASC" };
    let mut statement = conn.prepare_cached(&format!(
        "SELECT message, measured_at, measured FROM measurements{} ORDER BY measured_at {direction}, message \
         LIMIT {MAX_TOLD}",
        c.clause()
    ))?;
    let mut rows = statement.query(c.params().as_slice())?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(Measurement {
            message: row.get(0)?,
            at: row.get(1)?,
            measured: serde_json::from_str(row.get_ref(2)?.as_str().unwrap_or_default())?,
        });
    }
    Ok(all)
}
