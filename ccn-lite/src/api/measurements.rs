//! What the network's scoring measured at nodes, by column.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::params::Params;
use crate::node::Node;
use crate::store::StoreError;
use crate::store::measurements::{self, Kind};

/// `GET /core/{node}/metrics`.
pub async fn core(
    State(node): State<Node>,
    Path(measured): Path<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    answer(node, Kind::Core, measured, &params).await
}

/// `GET /compute/{node}/metrics`.
pub async fn compute(
    State(node): State<Node>,
    Path(measured): Path<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    answer(node, Kind::Compute, measured, &params).await
}

async fn answer(
    node: Node,
    kind: Kind,
    measured: String,
    params: &Params,
) -> Result<Json<Value>, ApiError> {
    let period = params.period()?;
    let descending = params.one_of("sort", &["1", "-1", "ASC", "DESC"])?;
    let descending = matches!(descending, Some("-1" | "DESC"));
    let rows = node
        .store
        .read::<_, StoreError, _>(move |conn| {
            measurements::of_node(conn, kind, &measured, period, descending)
        })
        .await?;
    if rows.is_empty() {
        return Err(ApiError::not_found("Nothing was measured at this node"));
    }
    let mut columns = Map::new();
    columns.insert(
        "item_hash".into(),
        rows.iter().map(|row| json!(row.message)).collect(),
    );
    columns.insert(
        "measured_at".into(),
        rows.iter().map(|row| json!(row.at)).collect(),
    );
    for column in kind.columns() {
        let values = rows.iter().map(|row| json!(row.measured.get(*column)));
        columns.insert((*column).into(), values.collect());
    }
    Ok(Json(json!({"metrics": columns})))
}
