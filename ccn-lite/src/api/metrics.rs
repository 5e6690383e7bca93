//! What the node tells about itself: counters under the names that dashboards and scoring know.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::info::VERSION;
use crate::activity::Sockets;
use crate::node::Node;
use crate::store::{StoreError, counters};

/// A counter: its name, what it says, its value.
type Counter = (&'static str, &'static str, i64);

/// The counters.
///
/// This node follows no chain, takes part in no peer-to-peer network and is brought its files by those who publish them,
/// so nothing of that is ever outstanding or fetched.
async fn gather(node: &Node) -> Result<Vec<Counter>, StoreError> {
    let counted = node.store.read(counters::count).await?;
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let (feeds, statuses) = (&node.activity.feeds, &node.activity.statuses);
    Ok(vec![
        (
            "pyaleph_status_peers_total",
            "Peers this node is connected to",
            0,
        ),
        (
            "pyaleph_status_sync_messages_total",
            "Messages in force",
            counted.messages,
        ),
        (
            "pyaleph_status_sync_permanent_files_total",
            "Files held by a message",
            counted.files,
        ),
        (
            "pyaleph_status_sync_pending_messages_total",
            "Messages not decided yet",
            counted.pending,
        ),
        (
            "pyaleph_status_sync_pending_txs_total",
            "Transactions not read yet",
            0,
        ),
        (
            "pyaleph_status_chain_eth_last_committed_height",
            "Newest block read",
            0,
        ),
        (
            "pyaleph_processing_pending_messages_tasks_total",
            "Messages being checked and decided",
            whole(node.activity.deciding.get()),
        ),
        (
            "pyaleph_status_sync_messages_reference_total",
            "Messages of the reference node, which is this one",
            counted.messages,
        ),
        (
            "pyaleph_status_sync_messages_remaining_total",
            "Messages of the reference node that are missing",
            0,
        ),
        (
            "pyaleph_status_chain_eth_height_reference_total",
            "Newest block of the chain that is followed",
            0,
        ),
        (
            "pyaleph_status_chain_eth_height_remaining_total",
            "Blocks not read yet",
            0,
        ),
        (
            "pyaleph_ws_messages_connections_active",
            "Listeners to new messages",
            whole(feeds.open()),
        ),
        (
            "pyaleph_ws_messages_connections_max",
            "Listeners to new messages served at once",
            whole(Sockets::MOST),
        ),
        (
            "pyaleph_ws_status_connections_active",
            "Listeners to these metrics",
            whole(statuses.open()),
        ),
        (
            "pyaleph_ws_status_connections_max",
            "Listeners to these metrics served at once",
            whole(Sockets::MOST),
        ),
        (
            "pyaleph_ws_messages_broadcast_total",
            "New messages sent to listeners",
            whole(node.activity.frames()),
        ),
        (
            "pyaleph_ws_messages_connections_rejected_total",
            "Listeners to new messages there was no place for",
            whole(feeds.refused()),
        ),
        (
            "pyaleph_ws_status_connections_rejected_total",
            "Listeners to these metrics there was no place for",
            whole(statuses.refused()),
        ),
        (
            "pyaleph_ws_broadcaster_consumer_restarts_total",
            "Restarts of a message broker's client, which this node has none of",
            0,
        ),
        (
            "pyaleph_store_fetch_ipfs_total",
            "Files fetched from IPFS",
            0,
        ),
        (
            "pyaleph_store_fetch_ipfs_failed_total",
            "Files that could not be fetched from IPFS",
            0,
        ),
        (
            "pyaleph_store_fetch_ipfs_duration_ms_sum",
            "Milliseconds spent fetching from IPFS",
            0,
        ),
        (
            "pyaleph_store_fetch_storage_total",
            "Files fetched from other nodes",
            0,
        ),
        (
            "pyaleph_store_fetch_storage_failed_total",
            "Files that could not be fetched from other nodes",
            0,
        ),
        (
            "pyaleph_store_fetch_storage_duration_ms_sum",
            "Milliseconds spent fetching from other nodes",
            0,
        ),
    ])
}

/// `/metrics.json` as a value.
pub async fn as_json(node: &Node) -> Result<Value, StoreError> {
    let mut body = Map::new();
    body.insert(
        "pyaleph_build_info".into(),
        json!({"python_version": "none", "version": VERSION}),
    );
    for (name, _, value) in gather(node).await? {
        body.insert(name.into(), value.into());
    }
    Ok(Value::Object(body))
}

/// `GET /metrics.json`.
pub async fn metrics_json(State(node): State<Node>) -> Result<Json<Value>, ApiError> {
    Ok(Json(as_json(&node).await?))
}

/// `GET /metrics`, in the text form of Prometheus.
pub async fn metrics(State(node): State<Node>) -> Result<Response, ApiError> {
    use std::fmt::Write;
    let mut text = format!(
        "# HELP pyaleph_build_info Version of the node\n# TYPE pyaleph_build_info gauge\n\
         pyaleph_build_info{{python_version=\"none\",version=\"{VERSION}\"}} 1\n"
    );
    for (name, help, value) in gather(&node).await? {
        // Writing into a text cannot fail.
        let _ = writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}"
        );
    }
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}
