//! FORGET: messages that shall no longer exist.

use aleph_message::{ErrorCode, ForgetContent, Rejection};
use rusqlite::Connection;

use super::permit_again;
use crate::pipeline::{Refusal, Verified};
use crate::store::messages::{self, Message};
use crate::store::{StoreError, vms};

fn not_found(hash: &str) -> Refusal {
    Refusal::waiting(
        Rejection::new(
            ErrorCode::ForgetTargetNotFound,
            format!("Message {hash} is unknown"),
        ),
        vec![hash.to_owned()],
    )
}

/// The messages in force that `content` names. Targets already gone are skipped: forgetting twice is not an error.
fn targets(conn: &Connection, content: &ForgetContent) -> Result<Vec<Message>, Refusal> {
    let mut targets = Vec::new();
    for hash in content.hashes.iter().chain(&content.aggregates) {
        let hash = hash.as_str();
        let status = messages::status(conn, hash)?.map(|(status, _)| status);
        match status.as_deref() {
            Some("processed" | "removing") => {
                targets.extend(messages::get(conn, hash)?);
            }
            Some("forgotten" | "rejected" | "removed") => {}
            _ => return Err(not_found(hash)),
        }
    }
    Ok(targets)
}

/// The sender must be allowed to have created every target.
pub(super) fn check_permissions(
    conn: &Connection,
    v: &Verified,
    content: &ForgetContent,
) -> Result<(), Refusal> {
    if content.hashes.is_empty() && content.aggregates.is_empty() {
        return Err(Rejection::new(ErrorCode::ForgetNoTarget, "Nothing to forget").into());
    }
    for target in targets(conn, content)? {
        if target.kind == "FORGET" {
            return Err(Rejection::new(
                ErrorCode::ForgetForget,
                format!("{} is a FORGET", target.item_hash),
            )
            .into());
        }
        permit_again(conn, &target, &v.envelope.sender)?;
    }
    Ok(())
}

pub(super) fn check(conn: &Connection, content: &ForgetContent) -> Result<(), Refusal> {
    for target in targets(conn, content)? {
        if target.kind != "STORE" {
            continue;
        }
        let users = vms::users(conn, &target.item_hash)?;
        let used: Vec<String> = users
            .into_iter()
            .filter(|vm| !content.hashes.iter().any(|hash| hash.as_str() == vm))
            .collect();
        if !used.is_empty() {
            return Err(Rejection::new(
                ErrorCode::ForgetNotAllowed,
                format!("{} is used by {}", target.item_hash, used.join(", ")),
            )
            .into());
        }
    }
    Ok(())
}

pub(super) fn apply(
    conn: &Connection,
    v: &Verified,
    content: &ForgetContent,
    now: f64,
) -> Result<(), StoreError> {
    for hash in content.hashes.iter().chain(&content.aggregates) {
        // A target may have gone along with an earlier one of the list.
        if let Some(target) = messages::get(conn, hash.as_str())? {
            super::unapply(conn, &target, v.hash(), v.envelope.time, now)?;
        }
    }
    Ok(())
}
