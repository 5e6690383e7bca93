//! Reading files.

use std::io::{BufWriter, Write};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;
use tower::ServiceExt;
use tower_http::services::ServeFile;

use super::check_hash;
use super::error::ApiError;
use super::params::Params;
use crate::files::cid::Cid;
use crate::files::tar;
use crate::node::Node;
use crate::store::{StoreError, files};

/// Media type of CARv1.
const CAR_TYPE: &str = "application/vnd.ipld.car";
/// Bytes handed to the network at once.
const PIECE: usize = 1 << 16;
/// Pieces of a directory on their way.
const IN_FLIGHT: usize = 8;

/// Largest file served as base64 in JSON.
const MAX_BASE64: u64 = 100 << 20;

async fn known(node: &Node, hash: &str) -> Result<(i64, String), ApiError> {
    check_hash(hash)?;
    let hash = hash.to_owned();
    node.store
        .read::<_, StoreError, _>(move |conn| files::get(conn, &hash))
        .await?
        .ok_or_else(|| ApiError::not_found("Not found"))
}

/// `GET` and `HEAD /storage/raw/{hash}`: a file, whole or a range; a directory as a tar archive; both as a CAR archive
/// when the client asks for that.
pub async fn raw(
    State(node): State<Node>,
    Path(hash): Path<String>,
    params: Params,
    request: Request,
) -> Result<Response, ApiError> {
    let (_, kind) = known(&node, &hash).await?;
    let accepts_car = request
        .headers()
        .get_all(header::ACCEPT)
        .iter()
        .any(|value| value.to_str().is_ok_and(|text| text.contains(CAR_TYPE)));
    if accepts_car || params.get("format") == Some("car") {
        return car(&node, &hash, request).await;
    }
    if kind == "directory" {
        return tar(&node, hash, request.method()).await;
    }
    serve(&node.blobs.path(&hash), "application/octet-stream", request).await
}

/// Serves a file of the disk, whole or a range.
async fn serve(
    path: &std::path::Path,
    content_type: &'static str,
    request: Request,
) -> Result<Response, ApiError> {
    let mut answer = ServeFile::new(path)
        .oneshot(request)
        .await
        .unwrap_or_else(|never| match never {})
        .into_response();
    if answer.status().is_success() {
        let content_type = HeaderValue::from_static(content_type);
        answer
            .headers_mut()
            .insert(header::CONTENT_TYPE, content_type);
    }
    Ok(answer)
}

/// A file or directory as the archive of its blocks.
async fn car(node: &Node, hash: &str, request: Request) -> Result<Response, ApiError> {
    let cid: Cid = hash.parse().map_err(|_| {
        ApiError::bad_request("Only what is stored under a CID can be had as an archive")
    })?;
    let (blobs, path) = (node.blobs.clone(), node.blobs.archive_path(hash));
    if tokio::fs::try_exists(&path).await? {
        return serve(&path, CAR_TYPE, request).await;
    }
    let file = tokio::task::spawn_blocking(move || blobs.export(&cid))
        .await
        .map_err(|error| ApiError::internal(&error))??
        .ok_or_else(|| ApiError::not_found("Not found"))?;
    let length = file.metadata()?.len();
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), PIECE);
    Response::builder()
        .header(header::CONTENT_TYPE, CAR_TYPE)
        .header(header::CONTENT_LENGTH, length)
        .body(Body::from_stream(stream))
        .map_err(|error| ApiError::internal(&error))
}

/// A directory as a tar archive, written while it is sent.
async fn tar(node: &Node, hash: String, method: &Method) -> Result<Response, ApiError> {
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let blobs = node.blobs.clone();
        tokio::task::spawn_blocking(move || {
            let mut out = BufWriter::with_capacity(PIECE, Pieces(sender));
            let written = tar::write(&blobs, &hash, &mut out).and_then(|()| Ok(out.flush()?));
            if let Err(error) = written {
                tracing::debug!(file = hash, %error, "directory was not sent");
                // An answer that just ends would pass for a whole one.
                out.get_ref().fail();
            }
        });
        let pieces = stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|piece| (piece, receiver))
        });
        Body::from_stream(pieces)
    };
    Response::builder()
        .header(header::CONTENT_TYPE, "application/x-tar")
        .body(body)
        .map_err(|error| ApiError::internal(&error))
}

/// Carries what a blocking thread writes to the answer.
struct Pieces(mpsc::Sender<std::io::Result<Bytes>>);

impl Pieces {
    fn fail(&self) {
        // The client may be gone already.
        let _ = self
            .0
            .blocking_send(Err(std::io::Error::other("directory is damaged")));
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `GET /storage/{hash}`: base64 in JSON, the form peers use.
pub async fn base64_json(
    State(node): State<Node>,
    Path(hash): Path<String>,
) -> Result<Json<Value>, ApiError> {
    /// Characters a line.
    const LINE: usize = 76;
    let (size, kind) = known(&node, &hash).await?;
    if kind == "directory" {
        return Err(ApiError::bad_request(
            "A directory has no bytes of its own, use /storage/raw",
        ));
    }
    if size.unsigned_abs() > MAX_BASE64 {
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "File too large, use /storage/raw",
        ));
    }
    let blobs = node.blobs.clone();
    let name = hash.clone();
    let bytes = tokio::task::spawn_blocking(move || blobs.read(&name, MAX_BASE64))
        .await
        .map_err(|error| ApiError::internal(&error))??
        .ok_or_else(|| ApiError::not_found("Not found"))?;
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    let mut lines = String::with_capacity(text.len() + text.len() / LINE + 1);
    for line in text.as_bytes().chunks(LINE) {
        lines.extend(line.iter().map(|byte| char::from(*byte)));
        lines.push('\n');
    }
    let engine = if hash.len() == 64 { "storage" } else { "ipfs" };
    Ok(Json(json!({
        "status": "success",
        "hash": hash,
        "engine": engine,
        "content": lines,
    })))
}

fn url(hash: &str) -> String {
    format!("/api/v0/storage/raw/{hash}")
}

/// `GET /storage/metadata/{hash}`.
pub async fn metadata(
    State(node): State<Node>,
    Path(hash): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (size, kind) = known(&node, &hash).await?;
    Ok(Json(json!({
        "file_hash": hash,
        "type": if kind == "directory" { "dir" } else { "file" },
        "size": size,
        "download_url": url(&hash),
    })))
}

/// `GET /storage/count/{hash}`: how many claims hold the file.
pub async fn count(
    State(node): State<Node>,
    Path(hash): Path<String>,
) -> Result<Json<Value>, ApiError> {
    check_hash(&hash)?;
    let count = node
        .store
        .read::<_, StoreError, _>(move |conn| files::pin_count(conn, &hash))
        .await?;
    Ok(Json(json!(count)))
}

/// `GET /storage/limits.json`.
pub async fn limits(State(node): State<Node>) -> Json<Value> {
    let limits = &node.config.limits;
    Json(json!({
        "storage": {
            "max_file_size": limits.max_file_bytes,
            "max_unauthenticated_upload_file_size": limits.max_unauthenticated_file_bytes,
        },
        "ipfs": {
            "max_upload_file_size": limits.max_file_bytes,
            "max_upload_car_size": limits.max_file_bytes,
            "max_unauthenticated_upload_file_size": limits.max_unauthenticated_file_bytes,
        },
    }))
}

/// `GET /storage/by-message-hash/{hash}`.
pub async fn by_message_hash(
    State(node): State<Node>,
    Path(hash): Path<String>,
) -> Result<Json<Value>, ApiError> {
    check_hash(&hash)?;
    let found = node
        .store
        .read::<_, ApiError, _>(move |conn| {
            let Some(pin) = files::store_pin(conn, &hash)? else {
                return Ok(None);
            };
            let size = files::get(conn, &pin.file_hash)?.map(|(size, _)| size);
            Ok(Some((pin, size)))
        })
        .await?;
    let (pin, size) = found.ok_or_else(|| ApiError::not_found("Not found"))?;
    Ok(Json(json!({
        "ref": pin.reference.unwrap_or(pin.item_hash),
        "owner": pin.owner,
        "file_hash": pin.file_hash,
        "download_url": url(&pin.file_hash),
        "size": size,
    })))
}

async fn by_tag(node: Node, tag: String, reference: String) -> Result<Json<Value>, ApiError> {
    let found = node
        .store
        .read::<_, ApiError, _>(move |conn| {
            let Some(tag) = files::tag(conn, &tag)? else {
                return Ok(None);
            };
            let size = files::get(conn, &tag.file_hash)?.map(|(size, _)| size);
            Ok(Some((tag, size)))
        })
        .await?;
    let (tag, size) = found.ok_or_else(|| ApiError::not_found("Not found"))?;
    Ok(Json(json!({
        "ref": reference,
        "owner": tag.owner,
        "file_hash": tag.file_hash,
        "download_url": url(&tag.file_hash),
        "size": size,
    })))
}

/// `GET /storage/by-ref/{ref}`: the newest file of a STORE and its updates.
pub async fn by_ref(
    State(node): State<Node>,
    Path(reference): Path<String>,
) -> Result<Json<Value>, ApiError> {
    check_hash(&reference).map_err(|_| {
        ApiError::bad_request("A name needs its owner: /storage/by-ref/{address}/{ref}")
    })?;
    by_tag(node, reference.clone(), reference).await
}

/// `GET /storage/by-ref/{address}/{ref}`: the newest file under an owner's name.
pub async fn by_owner_ref(
    State(node): State<Node>,
    Path((owner, reference)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let tag = if check_hash(&reference).is_ok() {
        reference.clone()
    } else {
        format!("{owner}/{reference}")
    };
    by_tag(node, tag, reference).await
}
