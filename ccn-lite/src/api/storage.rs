//! Reading files.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_http::services::ServeFile;

use super::check_hash;
use super::error::ApiError;
use crate::node::Node;
use crate::store::{StoreError, files};

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

/// `GET` and `HEAD /storage/raw/{hash}`, whole or a range.
pub async fn raw(
    State(node): State<Node>,
    Path(hash): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    known(&node, &hash).await?;
    let answer = ServeFile::new(node.blobs.path(&hash))
        .oneshot(request)
        .await
        .unwrap_or_else(|never| match never {});
    Ok(answer.into_response())
}

/// `GET /storage/{hash}`: base64 in JSON, the form peers use.
pub async fn base64_json(
    State(node): State<Node>,
    Path(hash): Path<String>,
) -> Result<Json<Value>, ApiError> {
    /// Characters a line.
    const LINE: usize = 76;
    let (size, _) = known(&node, &hash).await?;
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
            "max_upload_car_size": 0,
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
