//! Posts with their amends merged.

use aleph_message::ItemHash;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::error::ApiError;
use super::filter::ascending;
use super::list::{by_cursor, streamed};
use super::page_number;
use super::params::{Cursor, Params};
use super::render::iso;
use crate::node::Node;
use crate::store::messages::Message;
use crate::store::post_lists;
use crate::store::posts::{Filter, Merged};
use crate::store::{After, Page, StoreError};

/// Which shape rows have.
#[derive(Clone, Copy)]
enum Version {
    V0,
    V1,
}

/// The post's part of a message's content.
fn content(message: &Message) -> &Value {
    &message.content["content"]
}

fn row_v1(m: &Merged) -> Value {
    let shown = m.latest.as_ref().unwrap_or(&m.original);
    json!({
        "item_hash": shown.item_hash,
        "content": content(shown),
        "original_item_hash": m.original.item_hash,
        "original_type": m.original.content_type,
        "address": m.original.owner,
        "ref": m.original.content_ref,
        "channel": m.original.channel,
        "created": m.original.content_time.map(iso),
        "last_updated": iso(m.updated),
    })
}

fn row_v0(m: &Merged) -> Value {
    let shown = m.latest.as_ref().unwrap_or(&m.original);
    json!({
        "chain": shown.chain,
        "item_hash": shown.item_hash,
        "sender": m.original.owner,
        "type": shown.content_type,
        "channel": shown.channel,
        "confirmed": false,
        "content": content(shown),
        "item_content": shown.item_content,
        "item_type": shown.item_type,
        "signature": shown.signature,
        "size": shown.size,
        "time": shown.time,
        "confirmations": [],
        "original_item_hash": m.original.item_hash,
        "original_signature": m.original.signature,
        "original_type": m.original.content_type,
        "hash": m.original.item_hash,
        "ref": shown.content_ref,
        "address": m.original.owner,
    })
}

fn filter(params: &Params) -> Result<Filter, ApiError> {
    let (start, end) = params.period()?;
    Ok(Filter {
        owners: params.list("addresses"),
        hashes: params.words(&["hashes"], |word| word.parse::<ItemHash>().is_ok())?,
        refs: params.list("refs"),
        types: params.list("types"),
        tags: params.list("tags"),
        channels: params.list("channels"),
        start,
        end,
    })
}

/// Where a list goes on after its last row.
fn place(merged: &Merged) -> Cursor {
    Cursor {
        time: merged.updated,
        hash: merged.original.item_hash.clone(),
    }
}

/// Rows as JSON, and the place of the last.
fn rows(
    conn: &Connection,
    filter: &Filter,
    ascending: bool,
    page: Page,
    after: Option<&After>,
    version: Version,
) -> Result<(Vec<Value>, Option<Cursor>), StoreError> {
    let merged = post_lists::list(conn, filter, ascending, page, after)?;
    let row = match version {
        Version::V0 => row_v0,
        Version::V1 => row_v1,
    };
    let items = merged.iter().map(row).collect();
    Ok((items, merged.last().map(place)))
}

async fn list(
    node: Node,
    params: Params,
    version: Version,
    number: Option<u64>,
) -> Result<Response, ApiError> {
    let filter = filter(&params)?;
    let ascending = ascending(&params)?;
    if let Some((page, cursor)) = params.cursor(20)? {
        let (items, last) = node
            .store
            .read::<_, StoreError, _>(move |conn| {
                let after = cursor.map(After::from);
                rows(conn, &filter, ascending, page, after.as_ref(), version)
            })
            .await?;
        return Ok(by_cursor("posts", items, page, last).into_response());
    }
    let mut page = params.any_page(20)?;
    page.page = number.unwrap_or(page.page);
    let counted = filter.clone();
    let total = node
        .store
        .read::<_, StoreError, _>(move |conn| post_lists::count(conn, &counted))
        .await?;
    streamed("posts", page, total, move |page, after| {
        let (store, filter) = (node.store.clone(), filter.clone());
        async move {
            let (items, last) = store
                .read::<_, StoreError, _>(move |conn| {
                    rows(conn, &filter, ascending, page, after.as_ref(), version)
                })
                .await?;
            Ok((items, last.map(After::from)))
        }
    })
    .await
}

/// `GET /api/v0/posts.json`.
pub async fn list_v0(State(node): State<Node>, params: Params) -> Result<Response, ApiError> {
    list(node, params, Version::V0, None).await
}

/// `GET /api/v0/posts/page/{page}.json`.
pub async fn list_v0_numbered(
    State(node): State<Node>,
    Path(page): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    list(node, params, Version::V0, Some(page_number(&page)?)).await
}

/// `GET /api/v1/posts.json`.
pub async fn list_v1(State(node): State<Node>, params: Params) -> Result<Response, ApiError> {
    list(node, params, Version::V1, None).await
}

/// `GET /api/v1/posts/page/{page}.json`.
pub async fn list_v1_numbered(
    State(node): State<Node>,
    Path(page): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    list(node, params, Version::V1, Some(page_number(&page)?)).await
}
