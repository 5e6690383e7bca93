//! `POST /ipfs/add_car`: a directory, or a file, brought as an archive of its blocks.

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::json;

use super::error::ApiError;
use super::metadata::{Engine, StoreMessage};
use super::upload::{is_form, make_known, read_form};
use crate::node::Node;

/// Takes an archive with the STORE message about its root.
pub async fn add_car(State(node): State<Node>, request: Request) -> Result<Response, ApiError> {
    if !is_form(&request) {
        return Err(ApiError::unprocessable("Expected a multipart form."));
    }
    // The archive is hashed block by block when it is complete.
    let form = read_form(&node, request, Engine::Storage).await?;
    let metadata = form
        .metadata
        .ok_or_else(|| ApiError::unprocessable("metadata: field required"))?;
    let message = StoreMessage::read(&metadata, Engine::Ipfs).await?;
    let (blobs, limit) = (node.blobs.clone(), node.config.limits.max_file_bytes);
    let imported = tokio::task::spawn_blocking(move || blobs.import(&form.file, limit))
        .await
        .map_err(|error| ApiError::internal(&error))??;
    let (root, size) = (imported.root.to_string(), imported.size);
    if message.item_hash().as_str() != root {
        return Err(ApiError::unprocessable(format!(
            "CID does not match (expected {}, got {root})",
            message.item_hash()
        )));
    }
    message.check_payment(&node, size).await?;
    let kind = if imported.is_directory {
        "directory"
    } else {
        "file"
    };
    let blobs = node.blobs.clone();
    tokio::task::spawn_blocking(move || blobs.publish_imported(imported))
        .await
        .map_err(|error| ApiError::internal(&error))??;
    make_known(&node, root.clone(), size, kind).await?;
    let answer = json!({"status": "success", "hash": root, "size": size});
    message.submit(&node, answer).await
}
