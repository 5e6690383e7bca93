//! Reading messages: lists, one message, its status and content.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::error::ApiError;
use super::params::{Cursor, Params};
use super::render::{self, ContentFormat, iso};
use super::{check_hash, paged};
use crate::node::Node;
use crate::store::After;
use crate::store::messages::{self, Filter};
use crate::store::{StoreError, pending, removals};

/// Reads the filters a list and a WebSocket have in common.
pub fn filter(params: &Params) -> Result<Filter, ApiError> {
    let statuses = params.first_list(&["msgStatuses", "msgStatus", "messageStatuses"]);
    let seconds = |name: &str| -> Result<Option<f64>, ApiError> {
        let value: Option<f64> = params.number(name)?;
        match value {
            Some(v) if !v.is_finite() || v < 0.0 => Err(ApiError::unprocessable(format!(
                "{name}: must be a time in seconds"
            ))),
            Some(0.0) | None => Ok(None),
            value => Ok(value),
        }
    };
    let filter = Filter {
        types: params.first_list(&["msgTypes", "msgType", "messageType", "messageTypes"]),
        statuses: if statuses.is_empty() {
            vec!["processed".into(), "removing".into()]
        } else {
            statuses
        },
        senders: params.list("addresses"),
        owners: params.list("owners"),
        refs: params.list("refs"),
        content_hashes: params.list("contentHashes"),
        content_keys: params.list("contentKeys"),
        content_types: params.list("contentTypes"),
        chains: params.list("chains"),
        channels: params.list("channels"),
        tags: params.list("tags"),
        hashes: params.list("hashes"),
        payment_types: params.list("paymentTypes"),
        start: seconds("startDate")?,
        end: seconds("endDate")?,
    };
    if let (Some(start), Some(end)) = (filter.start, filter.end)
        && end < start
    {
        return Err(ApiError::unprocessable("endDate is before startDate"));
    }
    Ok(filter)
}

/// `contentFormat` and its older spelling `excludeContent`.
pub fn content_format(params: &Params) -> Result<ContentFormat, ApiError> {
    match params.get("contentFormat") {
        None if params.flag("excludeContent") => Ok(ContentFormat::None),
        None | Some("full") => Ok(ContentFormat::Full),
        Some("headers") => Ok(ContentFormat::Headers),
        Some("none") => Ok(ContentFormat::None),
        Some(other) => Err(ApiError::unprocessable(format!(
            "contentFormat: unknown value {other:?}"
        ))),
    }
}

/// `GET /messages.json`.
pub async fn list(State(node): State<Node>, params: Params) -> Result<Json<Value>, ApiError> {
    list_page(node, params, None).await
}

/// `GET /messages/page/{page}.json`.
pub async fn list_numbered(
    State(node): State<Node>,
    Path(page): Path<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let page = super::page_number(&page)?;
    list_page(node, params, Some(page)).await
}

async fn list_page(
    node: Node,
    params: Params,
    number: Option<u64>,
) -> Result<Json<Value>, ApiError> {
    let filter = filter(&params)?;
    let format = content_format(&params)?;
    let ascending = params.ascending()?;
    if filter
        .statuses
        .iter()
        .any(|s| s == "forgotten" || s == "removed")
    {
        return list_gone(node, params, filter, ascending, number).await;
    }
    if let Some((page, cursor)) = params.cursor(20)? {
        let after = cursor.map(|c| After {
            time: c.time,
            hash: c.hash,
        });
        let rows = node
            .store
            .read::<_, ApiError, _>(move |conn| {
                Ok(messages::list(
                    conn,
                    &filter,
                    ascending,
                    page,
                    after.as_ref(),
                )?)
            })
            .await?;
        let next = (rows.len() as u64 == page.limit)
            .then(|| rows.last())
            .flatten()
            .map(|m| {
                Cursor {
                    time: m.time,
                    hash: m.item_hash.clone(),
                }
                .encode()
            });
        let items: Vec<Value> = rows.iter().map(|m| render::list_item(m, format)).collect();
        return Ok(Json(json!({
            "messages": items,
            "pagination_per_page": page.limit,
            "next_cursor": next,
            "pagination_item": "messages",
        })));
    }
    let mut page = params.page(20, true)?;
    page.page = number.unwrap_or(page.page);
    let (rows, total) = node
        .store
        .read::<_, ApiError, _>(move |conn| {
            let rows = messages::list(conn, &filter, ascending, page, None)?;
            Ok((rows, messages::count(conn, &filter)?))
        })
        .await?;
    let items = rows.iter().map(|m| render::list_item(m, format)).collect();
    Ok(Json(paged("messages", items, page, total)))
}

async fn list_gone(
    node: Node,
    params: Params,
    filter: Filter,
    ascending: bool,
    number: Option<u64>,
) -> Result<Json<Value>, ApiError> {
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
        || params.has("cursor");
    if unsupported {
        return Err(ApiError::bad_request(
            "filters on content and cursors do not apply to messages without content",
        ));
    }
    let mut page = params.page(20, true)?;
    page.page = number.unwrap_or(page.page);
    if filter.statuses[0] == "removed" {
        let (rows, total) = node
            .store
            .read::<_, ApiError, _>(move |conn| Ok(removals::list(conn, &filter, ascending, page)?))
            .await?;
        let items = rows.iter().map(|removed| {
            let mut item = render::removed(removed);
            item["status"] = json!("removed");
            item["removed_at"] = json!(removed.removed_at);
            item
        });
        return Ok(Json(paged("messages", items.collect(), page, total)));
    }
    let (rows, total) = node
        .store
        .read::<_, ApiError, _>(move |conn| {
            Ok(messages::list_forgotten(conn, &filter, ascending, page)?)
        })
        .await?;
    let items = rows
        .iter()
        .map(|f| {
            let mut item = render::forgotten(f, false);
            item["status"] = json!("forgotten");
            item["forgotten_by"] = f.forgotten_by.clone();
            item
        })
        .collect();
    Ok(Json(paged("messages", items, page, total)))
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
                "removed" => {
                    if let Some(removed) = removals::get(conn, &hash)? {
                        body["message"] = render::removed(&removed);
                        body["reason"] = render::reason(Some(&removed.payment_type));
                        body["removed_at"] = json!(removed.removed_at);
                        body["size"] = json!(removed.size);
                    }
                }
                _ => {
                    if let Some(f) = messages::forgotten(conn, &hash)? {
                        body["message"] = render::forgotten(&f, true);
                        body["forgotten_by"] = f.forgotten_by;
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

/// `GET /messages/hashes`.
pub async fn hashes(State(node): State<Node>, params: Params) -> Result<Json<Value>, ApiError> {
    let filter = filter(&params)?;
    let ascending = params.ascending()?;
    let page = params.page(20, true)?;
    let (hashes, total) = node
        .store
        .read::<_, StoreError, _>(move |conn| {
            let rows = messages::list(conn, &filter, ascending, page, None)?;
            let hashes: Vec<Value> = rows.into_iter().map(|m| json!(m.item_hash)).collect();
            Ok((hashes, messages::count(conn, &filter)?))
        })
        .await?;
    Ok(Json(paged("hashes", hashes, page, total)))
}
