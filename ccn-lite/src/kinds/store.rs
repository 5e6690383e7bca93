//! STORE: a file kept by the network, under its message's hash and under the tag its updates share.

use aleph_message::{ErrorCode, ItemHash, Rejection, StoreContent};
use rusqlite::Connection;
use serde_json::json;

use crate::pipeline::{Refusal, Verified};
use crate::store::files::{self, Pin};
use crate::store::messages::Message;
use crate::store::{StoreError, now};

/// How long a file outlives its last claim, seconds.
pub const GRACE_PERIOD: f64 = 24.0 * 3600.0;

/// The tag a STORE moves: of the STORE it updates, of the owner's own name, or its own hash.
pub fn tag_of(v: &Verified, content: &StoreContent) -> String {
    tag(v.hash(), v.owner(), content.reference.as_deref())
}

fn tag(hash: &str, owner: &str, reference: Option<&str>) -> String {
    match reference.filter(|r| !r.is_empty()) {
        None => hash.to_owned(),
        Some(reference) if reference.parse::<ItemHash>().is_ok() => reference.to_owned(),
        Some(name) => format!("{owner}/{name}"),
    }
}

pub(super) fn check_file(conn: &Connection, content: &StoreContent) -> Result<(), Refusal> {
    if content.item_type != content.item_hash.item_type() {
        return Err(Rejection::invalid_format(format!(
            "item_type {} does not fit item_hash {}",
            content.item_type, content.item_hash
        ))
        .into());
    }
    let hash = content.item_hash.as_str();
    if files::get(conn, hash)?.is_none() {
        let rejection = Rejection::with_details(
            ErrorCode::FileUnavailable,
            json!({"errors": [format!("File {hash} is not here")]}),
        );
        return Err(Refusal::waiting(rejection, vec![hash.to_owned()]));
    }
    Ok(())
}

pub(super) fn check(
    conn: &Connection,
    v: &Verified,
    content: &StoreContent,
) -> Result<(), Refusal> {
    let Some(reference) = content.reference.as_deref().filter(|r| !r.is_empty()) else {
        return Ok(());
    };
    if reference.parse::<ItemHash>().is_ok() {
        let Some(pin) = files::store_pin(conn, reference)? else {
            let rejection = Rejection::new(
                ErrorCode::StoreRefNotFound,
                format!("STORE {reference} is unknown"),
            );
            return Err(Refusal::waiting(rejection, vec![reference.to_owned()]));
        };
        if pin.reference.is_some() {
            return Err(Rejection::new(
                ErrorCode::StoreUpdateUpdate,
                format!("{reference} is itself an update"),
            )
            .into());
        }
    }
    let tag = tag_of(v, content);
    match files::tag(conn, &tag)? {
        Some(known) if known.owner != v.owner() => Err(Rejection::new(
            ErrorCode::PermissionDenied,
            format!("{tag} belongs to {}", known.owner),
        )
        .into()),
        _ => Ok(()),
    }
}

pub(super) fn apply(
    conn: &Connection,
    v: &Verified,
    content: &StoreContent,
) -> Result<(), StoreError> {
    let file = content.item_hash.as_str();
    files::pin_store(
        conn,
        &Pin {
            file_hash: file.into(),
            item_hash: v.hash().into(),
            owner: v.owner().into(),
            reference: content.reference.clone().filter(|r| !r.is_empty()),
            created: v.content.time(),
        },
    )?;
    files::set_tag(conn, &tag_of(v, content), v.owner(), file, v.content.time())
}

/// Drops the pin and lets the tag fall back; returns the file's size.
pub(super) fn unapply(
    conn: &Connection,
    target: &Message,
    at: f64,
) -> Result<Option<i64>, StoreError> {
    let Some(pin) = files::store_pin(conn, &target.item_hash)? else {
        return Ok(None);
    };
    let size = files::get(conn, &pin.file_hash)?.map(|(size, _)| size);
    files::unpin(conn, &target.item_hash, at, now() + GRACE_PERIOD)?;
    let reference = pin.reference.as_deref();
    files::refresh_tag(
        conn,
        &tag(&pin.item_hash, &pin.owner, reference),
        &pin.owner,
        reference.unwrap_or(&pin.item_hash),
    )?;
    Ok(size)
}
