//! The checks that need no database: form, hash, signature, content.

use std::sync::Arc;

use aleph_message::{Envelope, ErrorCode, Rejection};
use serde_json::Value;

use super::{Refusal, Verified};
use crate::files::MAX_CONTENT_BYTES;
use crate::node::Node;

/// What a client sent, read once.
pub(super) struct Examined {
    pub envelope: Arc<Envelope>,
    pub verified: Result<Verified, Refusal>,
}

/// Reads a message from a client. Blocks on arithmetic, and on the disk when its content is a file.
///
/// # Errors
/// When it is too malformed to be recorded at all.
pub(super) fn examine(node: &Node, raw: &Value) -> Result<Examined, Rejection> {
    let (envelope, inline) = Envelope::parse_with_content(raw)?;
    let envelope = Arc::new(envelope);
    let verified = match (envelope.verify_signature(), inline) {
        (Err(rejection), _) => Err(rejection.into()),
        (Ok(()), Some(content)) => Ok(Verified {
            size: envelope
                .item_content
                .as_ref()
                .map_or(0, |text| text.chars().count()),
            envelope: envelope.clone(),
            content,
        }),
        (Ok(()), None) => fetch(node, &envelope),
    };
    Ok(Examined { envelope, verified })
}

/// Reads a message that was recorded before. Blocks on arithmetic and disk.
pub(super) fn verify(node: &Node, stored: &Value) -> Result<Verified, Refusal> {
    examine(node, stored)?.verified
}

/// Reads the content of a message that is not inline from this node's files.
fn fetch(node: &Node, envelope: &Arc<Envelope>) -> Result<Verified, Refusal> {
    let hash = envelope.item_hash.as_str();
    let bytes = node
        .blobs
        .read(hash, MAX_CONTENT_BYTES)
        .map_err(|error| unavailable(hash, &format!("cannot be read: {error}")))?
        .ok_or_else(|| unavailable(hash, "is not here"))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Rejection::invalid_format("Message content is not UTF-8"))?;
    Ok(Verified {
        content: envelope.parse_content(&text)?,
        size: text.chars().count(),
        envelope: envelope.clone(),
    })
}

/// Code 3: the content may still arrive.
pub(super) fn unavailable(hash: &str, reason: &str) -> Refusal {
    Refusal::waiting(
        Rejection::new(
            ErrorCode::ContentUnavailable,
            format!("Content {hash} {reason}"),
        ),
        vec![hash.to_owned()],
    )
}
