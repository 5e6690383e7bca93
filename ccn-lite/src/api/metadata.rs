//! The STORE message that comes with a file: read, checked against the file, and submitted after it.

use aleph_message::{Body, Content, Envelope, ItemHash, ItemType};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::error::ApiError;
use super::publish;
use crate::node::Node;
use crate::pipeline::{self, Outcome, Refusal, charge};
use crate::store::{StoreError, now};

/// Who names a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Its sha256.
    Storage,
    /// Its CID.
    Ipfs,
}

impl Engine {
    fn item_type(self) -> ItemType {
        match self {
            Self::Storage => ItemType::Storage,
            Self::Ipfs => ItemType::Ipfs,
        }
    }
}

/// A STORE message whose signature and content were checked.
pub struct StoreMessage {
    raw: Value,
    content: Content,
    item_hash: ItemHash,
    time: f64,
}

impl StoreMessage {
    /// Reads the `metadata` of a form: `{"message": envelope, "sync": bool}`.
    ///
    /// # Errors
    /// 422 for what is malformed, 403 for a signature that proves nothing.
    pub async fn read(metadata: &[u8], engine: Engine) -> Result<Self, ApiError> {
        let mut metadata: Value = serde_json::from_slice(metadata).map_err(|error| {
            ApiError::unprocessable(format!("Could not decode metadata: {error}"))
        })?;
        if metadata.get("sync").and_then(Value::as_bool).is_none() {
            return Err(ApiError::unprocessable("metadata.sync: field required"));
        }
        let raw = metadata["message"].take();
        tokio::task::spawn_blocking(move || Self::check(raw, engine))
            .await
            .map_err(|error| ApiError::internal(&error))?
    }

    fn check(raw: Value, engine: Engine) -> Result<Self, ApiError> {
        let envelope = Envelope::parse(&raw)?;
        envelope
            .verify_signature()
            .map_err(|rejection| ApiError::new(StatusCode::FORBIDDEN, rejection.reason()))?;
        let content = envelope
            .inline_content()?
            .ok_or_else(|| ApiError::unprocessable("metadata.message: must be inline"))?;
        let Body::Store(store) = &content.body else {
            return Err(ApiError::unprocessable("metadata.message: must be a STORE"));
        };
        if store.item_type != engine.item_type() {
            return Err(ApiError::unprocessable(format!(
                "metadata.message: item_type must be {}",
                engine.item_type()
            )));
        }
        Ok(Self {
            item_hash: store.item_hash.clone(),
            time: envelope.time,
            content,
            raw,
        })
    }

    /// The hash of the file it is about.
    pub fn item_hash(&self) -> &ItemHash {
        &self.item_hash
    }

    /// 402 unless its owner can pay for a file of `size` bytes.
    ///
    /// # Errors
    /// That, or trouble with the database.
    pub async fn check_payment(&self, node: &Node, size: u64) -> Result<(), ApiError> {
        let sender = self.raw["sender"].as_str().unwrap_or_default();
        node.guard.admit_file(sender, size)?;
        let (config, content, time) = (node.config.clone(), self.content.clone(), self.time);
        let verdict = node
            .store
            .read::<_, StoreError, _>(move |conn| {
                match charge::check_store(conn, &config, &content, time, size, now()) {
                    Ok(()) => Ok(None),
                    Err(Refusal::Rejected { rejection, .. }) => Ok(Some(rejection)),
                    Err(Refusal::Store(error)) => Err(error),
                }
            })
            .await?;
        match verdict {
            None => Ok(()),
            Some(rejection) => Err(ApiError::new(
                StatusCode::PAYMENT_REQUIRED,
                rejection.details.to_string(),
            )),
        }
    }

    /// Submits the message; `answer` goes out with what became of it.
    ///
    /// # Errors
    /// When it is too malformed to be recorded, or the database fails.
    pub async fn submit(self, node: &Node, mut answer: Value) -> Result<Response, ApiError> {
        let outcome = pipeline::submit(node, self.raw, true).await?;
        let (code, _) = publish::status(&outcome);
        if let Outcome::Rejected(rejection) = &outcome {
            answer["status"] = json!("error");
            answer["error_code"] = json!(rejection.code.as_i32());
            answer["details"] = rejection.details.clone();
        }
        Ok((code, Json(answer)).into_response())
    }
}
