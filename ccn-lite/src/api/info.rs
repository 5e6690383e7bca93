//! What the node says about itself.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::node::Node;
use crate::store::{StoreError, messages, pending};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `GET /version`.
pub async fn version() -> Json<Value> {
    Json(json!({"version": VERSION}))
}

/// `GET /info/public.json`. This node takes part in no peer-to-peer network.
pub async fn public() -> Json<Value> {
    Json(json!({"node_multi_addresses": []}))
}

/// `GET /metrics.json`.
pub async fn metrics(State(node): State<Node>) -> Result<Json<Value>, ApiError> {
    let (messages, pending) = node
        .store
        .read::<_, StoreError, _>(|conn| {
            let all = messages::count(conn, &messages::Filter::default())?;
            Ok((all, pending::count(conn)?))
        })
        .await?;
    Ok(Json(json!({
        "pyaleph_build_info": {"version": VERSION},
        "pyaleph_status_peers_total": 0,
        "pyaleph_status_sync_messages_total": messages,
        "pyaleph_status_sync_pending_messages_total": pending,
        "pyaleph_status_sync_pending_txs_total": 0,
    })))
}
