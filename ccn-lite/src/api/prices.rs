//! What messages cost, before and after they are published.

use aleph_message::{Content, MessageType, PaymentType};
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
use crate::store::{StoreError, messages};

/// `GET /price/{hash}`.
pub async fn of_message(
    State(node): State<Node>,
    Path(hash): Path<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    check_hash(&hash)?;
    let quote = node
        .store
        .read::<_, ApiError, _>(move |conn| {
            let status = messages::status(conn, &hash)?.map(|(status, _)| status);
            match status.as_deref() {
                Some("processed" | "removing") => {}
                // The network's nodes answer with the interim status 102, which HTTP libraries wait on.
                Some("pending") => return Err(ApiError::not_found("Message still pending")),
                Some("forgotten" | "removed") => {
                    return Err(ApiError::new(StatusCode::GONE, "Message was forgotten"));
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
        map.insert("time".into(), json!(crate::store::now()));
    }
}

/// `POST /price/estimate`. The signature is not looked at: nothing is published.
pub async fn estimate(
    State(node): State<Node>,
    params: Params,
    body: Bytes,
) -> Result<Response, ApiError> {
    let body: Value = serde_json::from_slice(&body)
        .map_err(|error| ApiError::unprocessable(format!("Body is not valid JSON: {error}")))?;
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
    let sizes = take_estimated_sizes(&mut content);
    let content = match Content::parse(kind, content) {
        Ok(content) => content,
        Err(rejection) => return Ok(refusal(&rejection)),
    };
    if content.executable().is_none() && kind != MessageType::Store {
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
            let with_size = params.flag("include_size");
            Json(price_json(
                &quote.rows,
                quote.payment,
                &quote.owner,
                with_size,
            ))
            .into_response()
        }
        Err(rejection) => refusal(&rejection),
    })
}
