//! Reading messages: lists, one message, its status and content.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::check_hash;
use super::error::ApiError;
use super::filter::{STATUSES, ascending, content_format, filter};
use super::list::{by_cursor, paged, streamed};
use super::params::{Cursor, Params};
use super::render::{self, iso};
use crate::node::Node;
use crate::store::gone::{self, Departure};
use crate::store::messages::{self, Filter, Message};
use crate::store::{After, StoreError, pending, statuses};

/// `GET /messages.json`.
pub async fn list(State(node): State<Node>, params: Params) -> Result<Response, ApiError> {
    list_page(node, params, None).await
}

/// `GET /messages/page/{page}.json`.
pub async fn list_numbered(
    State(node): State<Node>,
    Path(page): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let page = super::page_number(&page)?;
    list_page(node, params, Some(page)).await
}

/// Where a list goes on after its last row.
fn place(message: &Message) -> Cursor {
    Cursor {
        time: message.time,
        hash: message.item_hash.clone(),
    }
}

async fn list_page(node: Node, params: Params, number: Option<u64>) -> Result<Response, ApiError> {
    let filter = filter(&params)?;
    let format = content_format(&params)?;
    let ascending = ascending(&params)?;
    let gone = |status: &String| status == "forgotten" || status == "removed";
    if filter.statuses.iter().any(gone) {
        return list_gone(node, params, filter, ascending, number).await;
    }
    if let Some((page, cursor)) = params.cursor(20)? {
        let rows = node
            .store
            .read::<_, StoreError, _>(move |conn| {
                let after = cursor.map(After::from);
                messages::list(conn, &filter, ascending, page, after.as_ref())
            })
            .await?;
        let items: Vec<Value> = rows.iter().map(|m| render::list_item(m, format)).collect();
        let next = rows.last().map(place);
        return Ok(by_cursor("messages", items, page, next).into_response());
    }
    let mut page = params.any_page(20)?;
    page.page = number.unwrap_or(page.page);
    let counted = filter.clone();
    let total = node
        .store
        .read::<_, StoreError, _>(move |conn| messages::count(conn, &counted))
        .await?;
    streamed("messages", page, total, move |page, after| {
        let (store, filter) = (node.store.clone(), filter.clone());
        async move {
            let rows = store
                .read::<_, StoreError, _>(move |conn| {
                    messages::list(conn, &filter, ascending, page, after.as_ref())
                })
                .await?;
            let place = rows.last().map(|m| place(m).into());
            let items = rows.iter().map(|m| render::list_item(m, format)).collect();
            Ok((items, place))
        }
    })
    .await
}

async fn list_gone(
    node: Node,
    params: Params,
    filter: Filter,
    ascending: bool,
    number: Option<u64>,
) -> Result<Response, ApiError> {
    if filter.statuses.len() != 1 {
        return Err(ApiError::bad_request(
            "forgotten and removed messages cannot be listed together with others",
        ));
    }
    let unsupported = !filter.refs.is_empty()
        || !filter.content_types.is_empty()
        || !filter.content_hashes.is_empty()
        || !filter.content_keys.is_empty()
        || !filter.tags.is_empty()
        || params.get("startBlock").is_some()
        || params.get("endBlock").is_some()
        || params.has("cursor");
    if unsupported {
        return Err(ApiError::bad_request(
            "filters on content and cursors do not apply to messages without content",
        ));
    }
    let mut page = params.page(20, true)?;
    page.page = number.unwrap_or(page.page);
    let departure = if filter.statuses[0] == "removed" {
        Departure::Removed
    } else {
        Departure::Forgotten
    };
    let (rows, total) = node
        .store
        .read::<_, StoreError, _>(move |conn| gone::list(conn, departure, &filter, ascending, page))
        .await?;
    let items = rows
        .iter()
        .map(|m| render::gone_item(m, departure))
        .collect();
    Ok(Json(paged("messages", items, page, total)).into_response())
}

async fn status_of(node: &Node, hash: &str) -> Result<(String, f64), ApiError> {
    check_hash(hash)?;
    let hash = hash.to_owned();
    node.store
        .read::<_, ApiError, _>(move |conn| Ok(messages::status(conn, &hash)?))
        .await?
        .ok_or_else(|| ApiError::not_found("Message not found"))
}

fn pending_item(p: &pending::Pending) -> Value {
    let e = &p.envelope;
    let content = e["item_content"]
        .as_str()
        .and_then(|text| serde_json::from_str::<Value>(text).ok());
    json!({
        "sender": e["sender"],
        "chain": e["chain"],
        "signature": e["signature"],
        "type": e["type"],
        "item_content": e["item_content"],
        "item_type": e["item_type"],
        "item_hash": p.item_hash,
        "time": iso(e["time"].as_f64().unwrap_or(p.reception_time)),
        "channel": e["channel"],
        "content": content,
        "reception_time": iso(p.reception_time),
    })
}

/// `GET /messages/{hash}`.
pub async fn one(
    State(node): State<Node>,
    Path(hash): Path<String>,
) -> Result<Json<Value>, ApiError> {
    check_hash(&hash)?;
    let body = node
        .store
        .read::<_, ApiError, _>(move |conn| {
            let Some((status, received)) = messages::status(conn, &hash)? else {
                return Ok(None);
            };
            let mut body = json!({
                "status": status,
                "item_hash": hash,
                "reception_time": iso(received),
            });
            match status.as_str() {
                "processed" | "removing" => {
                    let Some(m) = messages::get(conn, &hash)? else {
                        return Ok(None);
                    };
                    body["message"] = render::message(&m);
                    if status == "removing" {
                        body["reason"] = render::reason(m.payment_type.as_deref());
                    }
                }
                "pending" => {
                    let waiting = pending::get(conn, &hash)?;
                    body["messages"] = waiting.iter().map(pending_item).collect();
                }
                "rejected" => {
                    if let Some(r) = messages::rejected(conn, &hash)? {
                        body["message"] = r.envelope;
                        body["error_code"] = json!(r.error_code);
                        body["details"] = json!(r.details);
                    }
                }
                gone_as => {
                    if let Some(m) = gone::get(conn, &hash)? {
                        body["message"] = render::gone(&m);
                        if gone_as == "removed" {
                            body["reason"] = render::reason(Some(&m.payment_type));
                            body["removed_at"] = json!(m.at);
                            body["size"] = json!(m.size);
                        } else {
                            // Clients read this time as text, and as a number anywhere else.
                            body["message"]["time"] = json!(iso(m.time));
                            body["message"]["forgotten_at"] = json!(m.at);
                            body["forgotten_by"] = json!(m.forgotten_by);
                        }
                    }
                }
            }
            Ok(Some(body))
        })
        .await?;
    body.map(Json)
        .ok_or_else(|| ApiError::not_found("Message not found"))
}

/// `GET /messages/{hash}/status`.
pub async fn status(
    State(node): State<Node>,
    Path(hash): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (status, received) = status_of(&node, &hash).await?;
    Ok(Json(json!({
        "status": status,
        "item_hash": hash,
        "reception_time": iso(received),
    })))
}

/// `GET /messages/{hash}/content`.
pub async fn content(
    State(node): State<Node>,
    Path(hash): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (status, _) = status_of(&node, &hash).await?;
    let message = node
        .store
        .read::<_, ApiError, _>(move |conn| Ok(messages::get(conn, &hash)?))
        .await?
        .filter(|m| m.status == "processed")
        .ok_or_else(|| {
            ApiError::unprocessable(format!("Message is {status}, it has no content to show"))
        })?;
    let mut content = message.content;
    if message.kind == "POST" {
        content = content["content"].take();
    }
    Ok(Json(content))
}

/// `GET /messages/{hash}/consumed_credits`: what expenses took for the message.
pub async fn consumed_credits(
    State(node): State<Node>,
    Path(hash): Path<String>,
) -> Result<Json<Value>, ApiError> {
    status_of(&node, &hash).await?;
    let resource = hash.clone();
    let consumed = node
        .store
        .read::<_, StoreError, _>(move |conn| crate::store::credits::consumed(conn, &resource))
        .await?;
    Ok(Json(
        json!({"item_hash": hash, "consumed_credits": consumed}),
    ))
}

/// `GET /messages/hashes`: what this node knows, by when it got it.
pub async fn hashes(State(node): State<Node>, params: Params) -> Result<Json<Value>, ApiError> {
    let (start, end) = params.period()?;
    let filter = statuses::Filter {
        statuses: params.words(&["status"], |word| STATUSES.contains(&word))?,
        start,
        end,
    };
    let ascending = params.ascending()?;
    let page = params.page(20, true)?;
    let hash_only = params.get("hashOnly").is_none() || params.flag("hashOnly");
    let (rows, total) = node
        .store
        .read::<_, StoreError, _>(move |conn| statuses::list(conn, &filter, ascending, page))
        .await?;
    let items = rows
        .into_iter()
        .map(|row| {
            if hash_only {
                return json!(row.item_hash);
            }
            json!({
                "status": row.status,
                "item_hash": row.item_hash,
                "reception_time": iso(row.reception_time),
            })
        })
        .collect();
    Ok(Json(paged("hashes", items, page, total)))
}
