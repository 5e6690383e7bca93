//! What each type of message demands and does.
//!
//! Every file here holds one type: its dependencies (reads only), its effects, and how they are undone by a FORGET.

mod aggregate;
mod forget;
mod post;
pub mod store;
pub mod vm;

use aleph_message::Body;
use rusqlite::Connection;

use crate::pipeline::permit::{Action, permit};
use crate::pipeline::{Refusal, Verified};
use crate::store::messages::Message;
use crate::store::{StoreError, gone, messages};

/// Whether the sender may do this, code 2 (FORGET also 501 and 502: its targets are looked at).
pub fn check_permissions(conn: &Connection, v: &Verified) -> Result<(), Refusal> {
    match &v.content.body {
        Body::Forget(content) => forget::check_permissions(conn, v, content),
        Body::Post(content) if content.post_type == "amend" => {
            post::check_amend_permissions(conn, v, content)
        }
        _ => permit(conn, &action(v)),
    }
}

fn action(v: &Verified) -> Action<'_> {
    Action {
        sender: &v.envelope.sender,
        owner: v.owner(),
        chain: v.envelope.chain.as_str(),
        channel: v.envelope.channel.as_deref(),
        kind: v.envelope.message_type.as_str(),
        post_type: match &v.content.body {
            Body::Post(post) => Some(&post.post_type),
            _ => None,
        },
        aggregate_key: match &v.content.body {
            Body::Aggregate(aggregate) => Some(&aggregate.key),
            _ => None,
        },
    }
}

/// Refuses unless `sender` could have created `target`; an amend needs what its original needs.
fn permit_again(conn: &Connection, target: &Message, sender: &str) -> Result<(), Refusal> {
    let original = match (&target.content_type, &target.content_ref) {
        (Some(kind), Some(reference)) if target.kind == "POST" && kind == "amend" => {
            messages::get(conn, reference)?
        }
        _ => None,
    };
    permit(
        conn,
        &action_of(original.as_ref().unwrap_or(target), sender),
    )
}

/// The action that created `target`, seen as done by `sender`.
fn action_of<'a>(target: &'a Message, sender: &'a str) -> Action<'a> {
    Action {
        sender,
        owner: &target.owner,
        chain: &target.chain,
        channel: target.channel.as_deref(),
        kind: &target.kind,
        post_type: target.content_type.as_deref(),
        aggregate_key: target.content_key.as_deref(),
    }
}

/// Whether the files the message itself brings are here, code 4.
pub fn check_related_content(conn: &Connection, v: &Verified) -> Result<(), Refusal> {
    match &v.content.body {
        Body::Store(content) => store::check_file(conn, content),
        _ => Ok(()),
    }
}

/// Whether everything the message refers to is here, codes from 100.
pub fn check_dependencies(conn: &Connection, v: &Verified) -> Result<(), Refusal> {
    match &v.content.body {
        Body::Post(content) => post::check(conn, v, content),
        Body::Aggregate(_) => Ok(()),
        Body::Store(content) => store::check(conn, v, content),
        Body::Program(_) | Body::Instance(_) => vm::check(conn, v),
        // What it refers to is measured, not looked at.
        Body::VerifiableProgram(_) => Ok(()),
        Body::Forget(content) => forget::check(conn, content),
    }
}

/// The effects.
pub fn apply(conn: &Connection, v: &Verified, now: f64) -> Result<(), StoreError> {
    match &v.content.body {
        Body::Post(content) => post::apply(conn, v, content),
        Body::Aggregate(content) => aggregate::apply(conn, v, content),
        Body::Store(content) => store::apply(conn, v, content),
        Body::Program(_) | Body::Instance(_) | Body::VerifiableProgram(_) => vm::apply(conn, v),
        Body::Forget(content) => forget::apply(conn, v, content, now),
    }
}

/// Names besides its item hash under which others may wait for the message.
pub fn provides(v: &Verified) -> Vec<String> {
    match &v.content.body {
        Body::Store(content) => vec![store::tag_of(v, content)],
        _ => Vec::new(),
    }
}

/// Takes away a message that is no longer paid; its files go when nobody else claims them.
pub fn remove(conn: &Connection, target: &Message, now: f64) -> Result<(), StoreError> {
    let hash = &target.item_hash;
    let mut file_size = None;
    match target.kind.as_str() {
        "STORE" => file_size = store::unapply(conn, target, now)?,
        _ => crate::store::vms::remove(conn, hash)?,
    }
    if target.item_type != "inline" {
        crate::store::files::unpin(conn, hash, now, now + store::GRACE_PERIOD)?;
    }
    gone::insert(conn, target, None, now, file_size)
}

/// Undoes the effects of `target` and leaves its skeleton; with it goes what cannot exist without it.
fn unapply(
    conn: &Connection,
    target: &Message,
    by: &str,
    at: f64,
    now: f64,
) -> Result<(), StoreError> {
    let hash = &target.item_hash;
    let mut along = Vec::new();
    let mut file_size = None;
    match target.kind.as_str() {
        "POST" => {
            along = crate::store::posts::amends(conn, hash)?;
            crate::store::posts::withdraw(conn, hash)?;
        }
        "AGGREGATE" => crate::store::aggregates::remove_element(conn, hash)?,
        "STORE" => file_size = store::unapply(conn, target, now)?,
        "PROGRAM" | "INSTANCE" | "V-PROGRAM" => {
            along = crate::store::vms::updates(conn, hash)?;
            crate::store::vms::remove(conn, hash)?;
        }
        _ => {}
    }
    if target.item_type != "inline" {
        crate::store::files::unpin(conn, hash, now, now + store::GRACE_PERIOD)?;
    }
    gone::insert(conn, target, Some(by), at, file_size)?;
    for hash in along {
        if let Some(follower) = messages::get(conn, &hash)? {
            unapply(conn, &follower, by, at, now)?;
        }
    }
    Ok(())
}
