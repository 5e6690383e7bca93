//! Uploading files: streamed to disk while they are hashed, stored only when everything about them is right.

use aleph_message::{Body, Envelope, ItemType, Rejection};
use axum::Json;
use axum::body::Bytes;
use axum::extract::multipart::Multipart;
use axum::extract::{FromRequest, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::error::ApiError;
use super::publish::{self, refusal};
use crate::files::Uploaded;
use crate::kinds::store::GRACE_PERIOD;
use crate::node::Node;
use crate::pipeline::{self, Outcome, Refusal, SubmitError, charge};
use crate::store::{StoreError, files, now, pending};

/// Chunks in flight between the socket and the disk.
const IN_FLIGHT: usize = 16;
/// Largest `metadata` part: an envelope with its inline content, twice over.
const MAX_METADATA: usize = 1 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Engine {
    Storage,
    Ipfs,
}

/// Streams `body` into a nameless file of at most `limit` bytes.
async fn receive<S, E>(
    node: &Node,
    mut body: S,
    limit: u64,
    engine: Engine,
) -> Result<Uploaded, ApiError>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    let (sender, mut receiver) = mpsc::channel::<Bytes>(IN_FLIGHT);
    let blobs = node.blobs.clone();
    let (abort, aborted) = tokio::sync::oneshot::channel::<()>();
    let writer = tokio::task::spawn_blocking(move || -> Result<Option<Uploaded>, ApiError> {
        let mut upload = blobs.begin(limit, engine == Engine::Ipfs)?;
        while let Some(chunk) = receiver.blocking_recv() {
            upload.write(&chunk)?;
        }
        // The channel also closes when the client goes away in the middle.
        match aborted.blocking_recv() {
            Ok(()) => Ok(None),
            Err(_) => Ok(Some(upload.finish()?)),
        }
    });
    let mut failure = None;
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(chunk) => {
                if sender.send(chunk).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                failure = Some(ApiError::bad_request(format!("Upload failed: {error}")));
                break;
            }
        }
    }
    if failure.is_some() {
        // The writer may have stopped by itself already.
        let _ = abort.send(());
    } else {
        drop(abort);
    }
    drop(sender);
    let written = writer.await.map_err(|error| ApiError::internal(&error))??;
    match (failure, written) {
        (Some(failure), _) => Err(failure),
        (None, Some(uploaded)) => Ok(uploaded),
        (None, None) => Err(ApiError::bad_request("Upload failed")),
    }
}

/// Names the file, makes it known for a day, and wakes who waited for it.
async fn keep(node: &Node, uploaded: Uploaded) -> Result<String, ApiError> {
    let name = uploaded.name().to_owned();
    let size = uploaded.size;
    let (blobs, hash) = (node.blobs.clone(), name.clone());
    tokio::task::spawn_blocking(move || blobs.publish(uploaded, &hash))
        .await
        .map_err(|error| ApiError::internal(&error))??;
    let hash = name.clone();
    let woken = node
        .store
        .write::<_, StoreError, _>(move |conn| {
            let now = now();
            files::insert(conn, &hash, size, now)?;
            files::pin_grace(conn, &hash, now, now + GRACE_PERIOD)?;
            pending::wake(conn, &hash, now)
        })
        .await?;
    if woken {
        node.due.notify_one();
    }
    Ok(name)
}

struct Form {
    file: Uploaded,
    file_name: Option<String>,
    metadata: Option<Bytes>,
}

async fn read_form(node: &Node, mut form: Multipart, engine: Engine) -> Result<Form, ApiError> {
    let broken = |error: axum::extract::multipart::MultipartError| {
        ApiError::unprocessable(format!("Invalid multipart body: {error}"))
    };
    let mut file = None;
    let mut file_name = None;
    let mut metadata: Option<Bytes> = None;
    while let Some(mut field) = form.next_field().await.map_err(broken)? {
        match field.name() {
            Some("metadata") => {
                let mut text = Vec::new();
                while let Some(chunk) = field.chunk().await.map_err(broken)? {
                    if text.len() + chunk.len() > MAX_METADATA {
                        return Err(ApiError::unprocessable("metadata: too long"));
                    }
                    text.extend_from_slice(&chunk);
                }
                metadata = Some(text.into());
            }
            Some("file") if file.is_none() => {
                file_name = field.file_name().map(str::to_owned);
                // Metadata may follow the file, so the larger limit holds until the form is complete.
                let limit = node.config.limits.max_file_bytes;
                file = Some(receive(node, field, limit, engine).await?);
            }
            _ => while field.chunk().await.map_err(broken)?.is_some() {},
        }
    }
    let file = file.ok_or_else(|| ApiError::unprocessable("Missing 'file' in multipart form."))?;
    Ok(Form {
        file,
        file_name,
        metadata,
    })
}

enum Checked {
    /// A message to submit with the file.
    Message(Value),
    /// Its content is refused.
    Refused(Rejection),
}

/// Checks the STORE message that comes with a file: form, signature, that it is about this file, and that it is paid.
async fn check_metadata(
    node: &Node,
    metadata: &[u8],
    file: &Uploaded,
    engine: Engine,
) -> Result<Checked, ApiError> {
    let metadata: Value = serde_json::from_slice(metadata)
        .map_err(|error| ApiError::unprocessable(format!("Could not decode metadata: {error}")))?;
    if metadata.get("sync").and_then(Value::as_bool).is_none() {
        return Err(ApiError::unprocessable("metadata.sync: field required"));
    }
    let message = metadata["message"].clone();
    let envelope = match Envelope::parse(&message) {
        Ok(envelope) => envelope,
        Err(rejection) => return Ok(Checked::Refused(rejection)),
    };
    let (envelope, verdict) = tokio::task::spawn_blocking(move || {
        let verdict = envelope.verify_signature();
        (envelope, verdict)
    })
    .await
    .map_err(|error| ApiError::internal(&error))?;
    if let Err(rejection) = verdict {
        return Err(ApiError::new(StatusCode::FORBIDDEN, rejection.reason()));
    }
    let content = match envelope.inline_content() {
        Ok(Some(content)) => content,
        Ok(None) => return Err(ApiError::unprocessable("metadata.message: must be inline")),
        Err(rejection) => return Ok(Checked::Refused(rejection)),
    };
    let Body::Store(store) = &content.body else {
        return Err(ApiError::unprocessable("metadata.message: must be a STORE"));
    };
    let expected = match engine {
        Engine::Storage => ItemType::Storage,
        Engine::Ipfs => ItemType::Ipfs,
    };
    if store.item_type != expected {
        return Err(ApiError::unprocessable(format!(
            "metadata.message: item_type must be {expected}"
        )));
    }
    if store.item_hash.as_str() != file.name() {
        return Err(ApiError::unprocessable(format!(
            "File hash does not match (expected {}, got {})",
            store.item_hash,
            file.name()
        )));
    }
    let (config, size, time) = (node.config.clone(), file.size, envelope.time);
    let paid = node
        .store
        .read::<_, PaymentError, _>(move |conn| {
            Ok(charge::check_store(
                conn,
                &config,
                &content,
                time,
                size,
                now(),
            )?)
        })
        .await;
    match paid {
        Ok(()) => Ok(Checked::Message(message)),
        Err(PaymentError(Refusal::Rejected { rejection, .. })) => Err(ApiError::new(
            StatusCode::PAYMENT_REQUIRED,
            rejection.details.to_string(),
        )),
        Err(PaymentError(Refusal::Store(error))) => Err(error.into()),
    }
}

/// Carries a [`Refusal`] through a database read.
struct PaymentError(Refusal);

impl From<StoreError> for PaymentError {
    fn from(error: StoreError) -> Self {
        Self(error.into())
    }
}

impl From<Refusal> for PaymentError {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

async fn add_file(node: Node, request: Request, engine: Engine) -> Result<Response, ApiError> {
    let is_form = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.to_ascii_lowercase().starts_with("multipart/"));
    let small = node.config.limits.max_unauthenticated_file_bytes;
    let form = if is_form {
        let form = Multipart::from_request(request, &node)
            .await
            .map_err(|error| ApiError::unprocessable(error.body_text()))?;
        read_form(&node, form, engine).await?
    } else if engine == Engine::Storage {
        let body = request.into_body().into_data_stream();
        Form {
            file: receive(&node, body, small, engine).await?,
            file_name: None,
            metadata: None,
        }
    } else {
        return Err(ApiError::unprocessable("Expected a multipart form."));
    };
    let size = form.file.size;
    let (message, name) = match &form.metadata {
        None if size > small => {
            return Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("File exceeds the limit of {small} bytes for uploads without message"),
            ));
        }
        None => (None, keep(&node, form.file).await?),
        Some(metadata) => match check_metadata(&node, metadata, &form.file, engine).await? {
            Checked::Refused(rejection) => return Ok(refusal(&rejection)),
            Checked::Message(message) => (Some(message), keep(&node, form.file).await?),
        },
    };
    let mut answer = json!({"status": "success", "hash": name});
    if engine == Engine::Ipfs {
        answer["name"] = json!(form.file_name.unwrap_or_default());
        answer["size"] = json!(size);
    }
    let Some(message) = message else {
        return Ok(Json(answer).into_response());
    };
    let outcome = match pipeline::submit(&node, &message, true).await {
        Ok(outcome) => outcome,
        Err(SubmitError::Invalid(rejection)) => return Ok(refusal(&rejection)),
        Err(SubmitError::Store(error)) => return Err(error.into()),
    };
    let (code, _) = publish::status(&outcome);
    if let Outcome::Rejected(rejection) = &outcome {
        answer["status"] = json!("error");
        answer["error_code"] = json!(rejection.code.as_i32());
        answer["details"] = rejection.details.clone();
    }
    Ok((code, Json(answer)).into_response())
}

/// `POST /storage/add_file`.
pub async fn storage_file(
    State(node): State<Node>,
    request: Request,
) -> Result<Response, ApiError> {
    add_file(node, request, Engine::Storage).await
}

/// `POST /ipfs/add_file`.
pub async fn ipfs_file(State(node): State<Node>, request: Request) -> Result<Response, ApiError> {
    add_file(node, request, Engine::Ipfs).await
}

async fn add_json(node: Node, body: Bytes, engine: Engine) -> Result<Json<Value>, ApiError> {
    let mut value: Value = serde_json::from_slice(&body)
        .map_err(|error| ApiError::unprocessable(format!("Body is not valid JSON: {error}")))?;
    value.sort_all_objects();
    let text = Bytes::from(value.to_string());
    let stream = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(text)]);
    let file = receive(&node, stream, u64::MAX, engine).await?;
    let hash = keep(&node, file).await?;
    Ok(Json(json!({"status": "success", "hash": hash})))
}

/// `POST /storage/add_json`.
pub async fn storage_json(State(node): State<Node>, body: Bytes) -> Result<Json<Value>, ApiError> {
    add_json(node, body, Engine::Storage).await
}

/// `POST /ipfs/add_json`.
pub async fn ipfs_json(State(node): State<Node>, body: Bytes) -> Result<Json<Value>, ApiError> {
    add_json(node, body, Engine::Ipfs).await
}
