//! Posts with their amends merged.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::error::ApiError;
use super::params::{Cursor, Params};
use super::render::iso;
use super::{page_number, paged};
use crate::node::Node;
use crate::store::After;
use crate::store::posts::{self, Filter, Merged};
use crate::store::{StoreError, messages};

/// Which shape rows have.
#[derive(Clone, Copy)]
enum Version {
    V0,
    V1,
}

fn row_v1(m: &Merged) -> Value {
    let shown = m.latest.as_ref().unwrap_or(&m.original);
    json!({
        "item_hash": shown.item_hash,
        "content": shown.content,
        "original_item_hash": m.original.item_hash,
        "original_type": m.original.kind,
        "address": m.original.owner,
        "ref": m.original.reference,
        "channel": m.original.channel,
        "created": iso(m.original.created),
        "last_updated": iso(m.original.last_updated),
    })
}

fn row_v0(conn: &rusqlite::Connection, m: &Merged) -> Result<Option<Value>, StoreError> {
    let shown = m.latest.as_ref().unwrap_or(&m.original);
    let (Some(message), Some(original)) = (
        messages::get(conn, &shown.item_hash)?,
        messages::get(conn, &m.original.item_hash)?,
    ) else {
        return Ok(None);
    };
    Ok(Some(json!({
        "chain": message.chain,
        "item_hash": message.item_hash,
        "sender": m.original.owner,
        "type": shown.kind,
        "channel": message.channel,
        "confirmed": false,
        "content": shown.content,
        "item_content": message.item_content,
        "item_type": message.item_type,
        "signature": message.signature,
        "size": message.size,
        "time": message.time,
        "confirmations": [],
        "original_item_hash": m.original.item_hash,
        "original_signature": original.signature,
        "original_type": m.original.kind,
        "hash": m.original.item_hash,
        "ref": shown.reference,
        "address": m.original.owner,
    })))
}

fn filter(params: &Params) -> Result<Filter, ApiError> {
    let nonzero = |value: Option<f64>| value.filter(|v| *v > 0.0);
    Ok(Filter {
        owners: params.list("addresses"),
        hashes: params.list("hashes"),
        refs: params.list("refs"),
        types: params.list("types"),
        tags: params.list("tags"),
        channels: params.list("channels"),
        start: nonzero(params.number("startDate")?),
        end: nonzero(params.number("endDate")?),
    })
}

async fn list(
    node: Node,
    params: Params,
    version: Version,
    number: Option<u64>,
) -> Result<Json<Value>, ApiError> {
    let filter = filter(&params)?;
    let ascending = params.ascending()?;
    let cursor = params.cursor(20)?;
    let by_cursor = cursor.is_some();
    let (page, after) = match cursor {
        Some((page, cursor)) => (
            page,
            cursor.map(|c| After {
                time: c.time,
                hash: c.hash,
            }),
        ),
        None => {
            let mut page = params.page(20, true)?;
            page.page = number.unwrap_or(page.page);
            (page, None)
        }
    };
    let (rows, next, total) = node
        .store
        .read::<_, ApiError, _>(move |conn| {
            let (rows, total) = posts::list(conn, &filter, ascending, page, after.as_ref())?;
            let next = (rows.len() as u64 == page.limit)
                .then(|| rows.last())
                .flatten()
                .map(|m| {
                    Cursor {
                        time: m.original.last_updated,
                        hash: m.original.item_hash.clone(),
                    }
                    .encode()
                });
            let mut items = Vec::with_capacity(rows.len());
            for merged in &rows {
                match version {
                    Version::V0 => items.extend(row_v0(conn, merged)?),
                    Version::V1 => items.push(row_v1(merged)),
                }
            }
            Ok((items, next, total))
        })
        .await?;
    if by_cursor {
        return Ok(Json(json!({
            "posts": rows,
            "pagination_per_page": page.limit,
            "next_cursor": next,
            "pagination_item": "posts",
        })));
    }
    Ok(Json(paged("posts", rows, page, total)))
}

/// `GET /api/v0/posts.json`.
pub async fn list_v0(State(node): State<Node>, params: Params) -> Result<Json<Value>, ApiError> {
    list(node, params, Version::V0, None).await
}

/// `GET /api/v0/posts/page/{page}.json`.
pub async fn list_v0_numbered(
    State(node): State<Node>,
    Path(page): Path<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    list(node, params, Version::V0, Some(page_number(&page)?)).await
}

/// `GET /api/v1/posts.json`.
pub async fn list_v1(State(node): State<Node>, params: Params) -> Result<Json<Value>, ApiError> {
    list(node, params, Version::V1, None).await
}

/// `GET /api/v1/posts/page/{page}.json`.
pub async fn list_v1_numbered(
    State(node): State<Node>,
    Path(page): Path<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    list(node, params, Version::V1, Some(page_number(&page)?)).await
}
