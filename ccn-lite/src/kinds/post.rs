//! POST: data, or the amendment of an earlier post.

use aleph_message::{ErrorCode, PostContent, Rejection};
use rusqlite::Connection;

use super::action_of;
use crate::pipeline::permit::permit;
use crate::pipeline::{Refusal, Verified};
use crate::store::{StoreError, messages, posts};

/// An amend is allowed to whom the original was, and only for the same owner.
pub(super) fn check_amend_permissions(
    conn: &Connection,
    v: &Verified,
    content: &PostContent,
) -> Result<(), Refusal> {
    let Some(target) = content.ref_text() else {
        return Err(no_target().into());
    };
    // An unknown original is the business of the dependency check; until then the plain rule holds.
    let Some(original) = messages::get(conn, target)? else {
        return permit(conn, &super::action(v));
    };
    if original.owner != v.owner() {
        return Err(Rejection::new(
            ErrorCode::PermissionDenied,
            format!("{target} belongs to {}", original.owner),
        )
        .into());
    }
    permit(conn, &action_of(&original, &v.envelope.sender))
}

fn no_target() -> Rejection {
    Rejection::new(ErrorCode::PostAmendNoTarget, "An amend needs a ref")
}

pub(super) fn check(conn: &Connection, _: &Verified, content: &PostContent) -> Result<(), Refusal> {
    if content.post_type != "amend" {
        return Ok(());
    }
    let target = content.ref_text().ok_or_else(no_target)?;
    let Some(amended) = posts::amended(conn, target)? else {
        let rejection = Rejection::new(
            ErrorCode::PostAmendTargetNotFound,
            format!("Post {target} is unknown"),
        );
        return Err(Refusal::waiting(rejection, vec![target.to_owned()]));
    };
    if amended.is_some() {
        return Err(Rejection::new(
            ErrorCode::PostAmendAmend,
            format!("{target} is itself an amend"),
        )
        .into());
    }
    Ok(())
}

/// A post is there with its message; an amend changes what its original shows.
pub(super) fn apply(
    conn: &Connection,
    v: &Verified,
    content: &PostContent,
) -> Result<(), StoreError> {
    match content.ref_text() {
        Some(original) if content.post_type == "amend" => {
            posts::amend(conn, original, v.hash(), v.content.time())
        }
        _ => Ok(()),
    }
}
