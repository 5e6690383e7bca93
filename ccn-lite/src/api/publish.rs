//! Publishing messages.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use aleph_message::Rejection;

use super::error::ApiError;
use crate::node::Node;
use crate::pipeline::{self, Outcome};

/// The HTTP status and the word for an outcome.
pub fn status(outcome: &Outcome) -> (StatusCode, &'static str) {
    match outcome {
        Outcome::Processed => (StatusCode::OK, "processed"),
        Outcome::Pending => (StatusCode::ACCEPTED, "pending"),
        Outcome::Rejected(_) => (StatusCode::UNPROCESSABLE_ENTITY, "rejected"),
        Outcome::Removing => (StatusCode::OK, "removing"),
        Outcome::Forgotten => (StatusCode::GONE, "forgotten"),
        Outcome::Removed => (StatusCode::GONE, "removed"),
    }
}

/// 422 with code and details.
pub fn refusal(rejection: &Rejection) -> Response {
    ApiError::from(rejection.clone()).into_response()
}

fn parse(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::unprocessable(format!("Body is not valid JSON: {error}")))
}

/// `POST /messages`.
pub async fn messages(State(node): State<Node>, body: Bytes) -> Result<Response, ApiError> {
    let mut body = parse(&body)?;
    let message = match body.get_mut("message") {
        Some(message) => message.take(),
        None => return Err(ApiError::unprocessable("message: field required")),
    };
    let sync = body.get("sync").and_then(Value::as_bool).unwrap_or(false);
    let outcome = pipeline::submit(&node, message, sync).await?;
    let (code, word) = status(&outcome);
    let mut answer = json!({
        "publication_status": {"status": "success", "failed": []},
        "message_status": word,
    });
    if let Outcome::Rejected(rejection) = &outcome {
        answer["error_code"] = json!(rejection.code.as_i32());
        answer["details"] = rejection.details.clone();
    }
    Ok((code, Json(answer)).into_response())
}

/// `POST /ipfs/pubsub/pub`, the older way.
pub async fn pubsub(State(node): State<Node>, body: Bytes) -> Result<Json<Value>, ApiError> {
    let topic = &node.config.topics.messages;
    let body = parse(&body)?;
    let asked = body["topic"]
        .as_str()
        .ok_or_else(|| ApiError::unprocessable("topic: expected text"))?;
    if asked != topic {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            format!("Unauthorized P2P topic, expected {topic}"),
        ));
    }
    let message = match &body["data"] {
        Value::String(text) => parse(text.as_bytes())?,
        // Some clients put the message in without writing it as text first.
        message @ Value::Object(_) => message.clone(),
        _ => return Err(ApiError::unprocessable("data: expected JSON text")),
    };
    pipeline::submit(&node, message, false).await?;
    Ok(Json(json!({"status": "success", "failed": []})))
}
