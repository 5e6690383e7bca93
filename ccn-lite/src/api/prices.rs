//! What messages cost, before and after they are published.

use aleph_message::{Body, Content, MessageType, PaymentType};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::check_hash;
use super::error::ApiError;
use super::params::Params;
use super::publish::refusal;
use crate::money::{price_json, take_estimated_sizes};
use crate::node::Node;
use crate::pipeline::Refusal;
use crate::pipeline::charge::{self, Quote};
use crate::store::{StoreError, messages, now};

/// `GET /price/{hash}`.
pub async fn of_message(
    State(node): State<Node>,
    Path(hash): Path<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    check_hash(&hash)?;
    let config = node.config.clone();
    let quote = node
        .store
        .read::<_, ApiError, _>(move |conn| {
            let status = messages::status(conn, &hash)?.map(|(status, _)| status);
            match status.as_deref() {
                Some("processed" | "removing") => {}
                // The network's nodes answer with the interim status 102, which HTTP libraries wait on.
                Some("pending") => return Err(ApiError::not_found("Message still pending")),
                Some(gone @ ("forgotten" | "removed")) => {
                    // Of files the size is kept, and with it the price.
                    return charge::quote_remains(conn, &config, &hash)?.ok_or_else(|| {
                        ApiError::new(StatusCode::GONE, format!("This message has been {gone}"))
                    });
                }
                _ => return Err(ApiError::not_found("Message not found")),
            }
            let message = messages::get(conn, &hash)?
                .ok_or_else(|| ApiError::not_found("Message not found"))?;
            let payment: Option<PaymentType> =
                message.payment_type.and_then(|word| word.parse().ok());
            let Some(payment) = payment else {
                return Err(ApiError::bad_request(format!(
                    "A {} message costs nothing",
                    message.kind
                )));
            };
            Ok(Quote {
                owner: message.owner,
                payment,
                rows: charge::recorded(conn, &hash)?,
            })
        })
        .await?;
    Ok(Json(price_json(
        &quote.rows,
        quote.payment,
        &quote.owner,
        params.flag("include_size"),
    )))
}

/// Brings an unfinished content into the form its schema takes: clients send no address, and no time or one as text.
fn complete(content: &mut Value, message: &Value) {
    let Some(map) = content.as_object_mut() else {
        return;
    };
    if !map.get("address").is_some_and(Value::is_string) {
        let sender = message["sender"].as_str().unwrap_or_default();
        map.insert("address".into(), json!(sender));
    }
    if !map.get("time").is_some_and(Value::is_number) {
        map.insert("time".into(), json!(now()));
    }
}

/// `POST /price/estimate`. The signature is not looked at: nothing is published.
pub async fn estimate(State(node): State<Node>, body: Bytes) -> Result<Response, ApiError> {
    let body = parse(&body)?;
    let message = &body["message"];
    let kind: MessageType = message["type"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| ApiError::unprocessable("message.type: unknown type"))?;
    let mut content: Value = match message["item_content"].as_str() {
        Some(text) => serde_json::from_str(text).map_err(|error| {
            ApiError::unprocessable(format!("message.item_content: not JSON: {error}"))
        })?,
        None => message["content"].clone(),
    };
    complete(&mut content, message);
    estimate_content(&node, kind, content).await
}

/// `POST /price/estimate/instance`: the body is the content of an INSTANCE.
pub async fn estimate_instance(
    State(node): State<Node>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let mut content = parse(&body)?;
    complete(&mut content, &Value::Null);
    if let Some(map) = content.as_object_mut() {
        map.entry("allow_amend").or_insert(json!(false));
    }
    estimate_content(&node, MessageType::Instance, content).await
}

fn parse(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::unprocessable(format!("Body is not valid JSON: {error}")))
}

async fn estimate_content(
    node: &Node,
    kind: MessageType,
    mut content: Value,
) -> Result<Response, ApiError> {
    let sizes = take_estimated_sizes(&mut content);
    let content = match Content::parse(kind, content) {
        Ok(content) => content,
        Err(rejection) => return Ok(refusal(&rejection)),
    };
    if matches!(
        content.body,
        Body::Post(_) | Body::Aggregate(_) | Body::Forget(_)
    ) {
        return Err(ApiError::bad_request(format!(
            "A {kind} message costs nothing"
        )));
    }
    let config = node.config.clone();
    let quote = node
        .store
        .read::<_, StoreError, _>(move |conn| {
            match charge::quote(conn, &config, &content, &sizes) {
                Ok(quote) => Ok(Ok(quote)),
                Err(Refusal::Rejected { rejection, .. }) => Ok(Err(rejection)),
                Err(Refusal::Store(error)) => Err(error),
            }
        })
        .await?;
    Ok(match quote {
        Ok(quote) => {
            Json(price_json(&quote.rows, quote.payment, &quote.owner, true)).into_response()
        }
        Err(rejection) => refusal(&rejection),
    })
}

/// `POST /price/recalculate` and `/price/{hash}/recalculate` for the world: not for everybody.
pub async fn recalculate_publicly() -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "Costs are recalculated through admin.sock in the node's data directory only",
    )
}

/// `POST /price/{hash}/recalculate`: what the message costs at the prices of its time.
pub async fn recalculate(
    State(node): State<Node>,
    Path(hash): Path<String>,
) -> Result<Json<Value>, ApiError> {
    check_hash(&hash)?;
    let config = node.config.clone();
    let recalculated = node
        .store
        .write::<_, StoreError, _>(move |conn| charge::recalculate(conn, &config, &hash, now()))
        .await?;
    if !recalculated {
        return Err(ApiError::not_found(
            "No message in force that costs anything",
        ));
    }
    Ok(Json(recalculation(1, 1)))
}

/// `POST /price/recalculate`: the same for every message, oldest first, each in a transaction of its own.
pub async fn recalculate_all(State(node): State<Node>) -> Result<Json<Value>, ApiError> {
    let hashes = node
        .store
        .read::<_, StoreError, _>(messages::all_that_cost)
        .await?;
    let total = hashes.len();
    let mut recalculated = 0;
    for hash in hashes {
        let config = node.config.clone();
        let done = node
            .store
            .write::<_, StoreError, _>(move |conn| charge::recalculate(conn, &config, &hash, now()))
            .await?;
        recalculated += usize::from(done);
    }
    Ok(Json(recalculation(recalculated, total)))
}

fn recalculation(recalculated: usize, total: usize) -> Value {
    json!({
        "message": "Cost recalculation completed with historical pricing",
        "recalculated_count": recalculated,
        "total_messages": total,
    })
}
