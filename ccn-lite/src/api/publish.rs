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
use crate::pipeline::{self, Outcome, SubmitError};

/// The HTTP status and the word for an outcome.
pub fn status(outcome: &Outcome) -> (StatusCode, &'static str) {
    match outcome {
        Outcome::Processed => (StatusCode::OK, "processed"),
        Outcome::Pending => (StatusCode::ACCEPTED, "pending"),
        Outcome::Rejected(_) => (StatusCode::UNPROCESSABLE_ENTITY, "rejected"),
        Outcome::Forgotten => (StatusCode::GONE, "forgotten"),
    }
}

/// 422 with code and details.
pub fn refusal(rejection: &Rejection) -> Response {
    let body = json!({
        "error_code": rejection.code.as_i32(),
        "error": rejection.code.name(),
        "details": rejection.details,
    });
    (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
}

fn parse(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::unprocessable(format!("Body is not valid JSON: {error}")))
}

/// `POST /messages`.
pub async fn messages(State(node): State<Node>, body: Bytes) -> Result<Response, ApiError> {
    let body = parse(&body)?;
    let Some(message) = body.get("message") else {
        return Err(ApiError::unprocessable("message: field required"));
    };
    let sync = body.get("sync").and_then(Value::as_bool).unwrap_or(false);
    let outcome = match pipeline::submit(&node, message, sync).await {
        Ok(outcome) => outcome,
        Err(SubmitError::Invalid(rejection)) => return Ok(refusal(&rejection)),
        Err(SubmitError::Store(error)) => return Err(error.into()),
    };
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
pub async fn pubsub(State(node): State<Node>, body: Bytes) -> Result<Response, ApiError> {
    let topic = &node.config.topics.messages;
    let body = parse(&body)?;
    if body["topic"].as_str() != Some(topic) {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            format!("Unauthorized P2P topic, expected {topic}"),
        ));
    }
    let data = body["data"]
        .as_str()
        .ok_or_else(|| ApiError::unprocessable("data: expected JSON text"))?;
    let message = parse(data.as_bytes())?;
    match pipeline::submit(&node, &message, false).await {
        Ok(_) => Ok(Json(json!({"status": "success", "failed": []})).into_response()),
        Err(SubmitError::Invalid(rejection)) => Ok(refusal(&rejection)),
        Err(SubmitError::Store(error)) => Err(error.into()),
    }
}
