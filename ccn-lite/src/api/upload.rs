//! Uploading files: streamed to disk while they are hashed, stored only when everything about them is right.

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
use super::metadata::{Engine, StoreMessage};
use crate::files::Uploaded;
use crate::files::cid::Cid;
use crate::kinds::store::GRACE_PERIOD;
use crate::node::Node;
use crate::store::{files, now, pending};

/// Chunks in flight between the socket and the disk.
const IN_FLIGHT: usize = 16;
/// Largest `metadata` part: an envelope with its inline content, twice over.
const MAX_METADATA: usize = 1 << 20;

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
    node.guard.check_disk()?;
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

/// Names the file and makes it known.
async fn keep(node: &Node, uploaded: Uploaded, name: String) -> Result<String, ApiError> {
    let size = uploaded.size;
    let (blobs, hash) = (node.blobs.clone(), name.clone());
    tokio::task::spawn_blocking(move || blobs.publish(uploaded, &hash))
        .await
        .map_err(|error| ApiError::internal(&error))??;
    make_known(node, name.clone(), size, "file").await?;
    Ok(name)
}

/// Makes a stored file known for a day, and wakes who waited for it.
pub(super) async fn make_known(
    node: &Node,
    hash: String,
    size: u64,
    kind: &'static str,
) -> Result<(), ApiError> {
    let blobs = node.blobs.clone();
    let woken = node
        .store
        .write::<_, ApiError, _>(move |conn| {
            // Where an older copy of the same file loses its name, too, so that it cannot take this one along.
            if !blobs.exists(&hash)? {
                return Err(ApiError::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "The file was removed while it was uploaded, try again",
                ));
            }
            let now = now();
            files::insert(conn, &hash, size, kind, now)?;
            files::pin_grace(conn, &hash, now, now + GRACE_PERIOD)?;
            Ok(pending::wake(conn, &hash, now)?)
        })
        .await?;
    if woken {
        node.due.notify_one();
    }
    Ok(())
}

/// Whether the body is a form.
pub(super) fn is_form(request: &Request) -> bool {
    request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.to_ascii_lowercase().starts_with("multipart/"))
}

/// What came in a form.
pub(super) struct Form {
    pub(super) file: Uploaded,
    file_name: Option<String>,
    pub(super) metadata: Option<Bytes>,
}

/// Reads a form with a `file` and perhaps `metadata`.
pub(super) async fn read_form(
    node: &Node,
    request: Request,
    engine: Engine,
) -> Result<Form, ApiError> {
    let mut form = Multipart::from_request(request, node)
        .await
        .map_err(|error| ApiError::unprocessable(error.body_text()))?;
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

async fn add_file(node: Node, request: Request, engine: Engine) -> Result<Response, ApiError> {
    let small = node.config.limits.max_unauthenticated_file_bytes;
    let form = if is_form(&request) {
        read_form(&node, request, engine).await?
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
        None => {
            let name = form.file.name().to_owned();
            (None, keep(&node, form.file, name).await?)
        }
        Some(metadata) => {
            let message = StoreMessage::read(metadata, engine).await?;
            let (file, name) = match_name(form.file, &message).await?;
            message.check_payment(&node, size).await?;
            (Some(message), keep(&node, file, name).await?)
        }
    };
    let mut answer = json!({"status": "success", "hash": name});
    if engine == Engine::Ipfs {
        answer["name"] = json!(form.file_name.unwrap_or_default());
        answer["size"] = json!(size);
    }
    match message {
        None => Ok(Json(answer).into_response()),
        Some(message) => message.submit(&node, answer).await,
    }
}

/// The name the message gives the file, when it is one the file can have: its own hash, or another CID of its bytes.
async fn match_name(
    file: Uploaded,
    message: &StoreMessage,
) -> Result<(Uploaded, String), ApiError> {
    let stated = message.item_hash().to_string();
    if stated == file.name() {
        return Ok((file, stated));
    }
    let other = stated.parse::<Cid>().ok().filter(|_| file.cid.is_some());
    let (file, fits) = match other {
        None => (file, false),
        Some(cid) => tokio::task::spawn_blocking(move || {
            let fits = file.has_cid(&cid)?;
            Ok::<_, std::io::Error>((file, fits))
        })
        .await
        .map_err(|error| ApiError::internal(&error))??,
    };
    if fits {
        return Ok((file, stated));
    }
    Err(ApiError::unprocessable(format!(
        "File hash does not match (expected {stated}, got {})",
        file.name()
    )))
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
    let name = file.name().to_owned();
    let hash = keep(&node, file, name).await?;
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
