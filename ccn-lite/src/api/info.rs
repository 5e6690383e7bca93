//! What the node says about itself and its programs.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::error::ApiError;
use super::params::Params;
use crate::node::Node;
use crate::store::{StoreError, messages};

/// Version of this node.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `GET /version`.
pub async fn version() -> Json<Value> {
    Json(json!({"version": VERSION}))
}

/// `GET /info/public.json`. This node takes part in no peer-to-peer network.
pub async fn public() -> Json<Value> {
    Json(json!({"node_multi_addresses": []}))
}

/// `GET /programs/on/message`: programs that start on messages, with what they subscribe to.
pub async fn on_message(State(node): State<Node>, params: Params) -> Result<Json<Value>, ApiError> {
    let ascending = params.ascending()?;
    let programs = node
        .store
        .read::<_, StoreError, _>(move |conn| messages::subscriptions(conn, ascending))
        .await?;
    let items = programs
        .into_iter()
        .map(|(hash, message)| json!({"item_hash": hash, "content": {"on": {"message": message}}}))
        .collect();
    Ok(Json(Value::Array(items)))
}
