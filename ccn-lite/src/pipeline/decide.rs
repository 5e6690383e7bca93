//! The checks that need the database, and the effects: one transaction a message.

use aleph_message::{Body, Envelope, ErrorCode, Rejection};
use rusqlite::Connection;
use serde_json::Value;

use super::verify::unavailable;
use super::{Outcome, Refusal, Verified, charge};
use crate::kinds;
use crate::ledger;
use crate::node::Node;
use crate::store::accounts::{self, Cost};
use crate::store::messages::{self, Message};
use crate::store::pending::{self, Pending};
use crate::store::{Guard, StoreError, files, gone, now};

/// Attempts before a message that waits is rejected.
const MAX_RETRIES: u32 = 10;
/// Longest pause between attempts, seconds.
const MAX_BACKOFF: f64 = 300.0;

/// What was decided.
pub(super) enum Decision {
    /// In force; whether somebody waited for it.
    Processed(Box<Message>, bool),
    /// Waits.
    Postponed,
    /// Refused, and recorded as such.
    Rejected(Rejection),
    /// Nothing changed: this was known before.
    Known(Outcome),
}

/// The outcome of a message that is recorded.
pub(super) fn outcome(conn: &Connection, hash: &str) -> Result<Outcome, StoreError> {
    let status = messages::status(conn, hash)?.map(|(status, _)| status);
    Ok(match status.as_deref() {
        Some("processed") => Outcome::Processed,
        Some("removing") => Outcome::Removing,
        Some("forgotten") => Outcome::Forgotten,
        Some("removed") => Outcome::Removed,
        Some("rejected") => {
            let rejected = messages::rejected(conn, hash)?;
            let code = rejected
                .as_ref()
                .and_then(|r| i32::try_from(r.error_code).ok())
                .and_then(ErrorCode::from_i32)
                .unwrap_or(ErrorCode::InternalError);
            let details = rejected.and_then(|r| r.details).unwrap_or(Value::Null);
            Outcome::Rejected(Rejection::with_details(code, details))
        }
        _ => Outcome::Pending,
    })
}

/// The outcome when nothing is left to decide about `hash`: a message in force or gone keeps its one signature.
fn settled(
    conn: &Connection,
    hash: &str,
    signature: Option<&str>,
) -> Result<Option<Outcome>, StoreError> {
    let outcome = outcome(conn, hash)?;
    let known = match outcome {
        Outcome::Processed | Outcome::Removing => {
            messages::get(conn, hash)?.map(|message| message.signature)
        }
        Outcome::Forgotten | Outcome::Removed => {
            gone::get(conn, hash)?.map(|message| message.signature)
        }
        Outcome::Pending | Outcome::Rejected(_) => return Ok(None),
    };
    Ok(Some(match known {
        Some(known) if known.as_deref() != signature => Outcome::Rejected(
            Rejection::invalid_signature("The message is known with another signature"),
        ),
        _ => outcome,
    }))
}

/// Records a message that is decided later; tells what is known when there is nothing to decide.
pub(super) fn queue(
    conn: &Connection,
    envelope: &Envelope,
    refused: Option<&Rejection>,
) -> Result<Outcome, StoreError> {
    let hash = envelope.item_hash.as_str();
    if let Some(outcome) = settled(conn, hash, envelope.signature.as_deref())? {
        return Ok(outcome);
    }
    let now = now();
    let waits = pending::get(conn, hash)?.is_some();
    let stored = &kept(envelope)?;
    match refused {
        // Another version of it waits; this one changes nothing about that.
        _ if waits => {}
        Some(rejection) => reject(conn, hash, stored, rejection, now)?,
        None => {
            messages::clear_rejection(conn, hash)?;
            pending::insert(conn, hash, stored, now, now)?;
        }
    }
    Ok(Outcome::Pending)
}

/// An envelope as it is kept while it waits or when it is refused.
fn kept(envelope: &Envelope) -> Result<Value, StoreError> {
    Ok(serde_json::to_value(envelope)?)
}

fn reject(
    conn: &Connection,
    hash: &str,
    envelope: &Value,
    rejection: &Rejection,
    reception_time: f64,
) -> Result<(), StoreError> {
    let code = i64::from(rejection.code.as_i32());
    let details = Some(&rejection.details).filter(|details| !details.is_null());
    messages::reject(conn, hash, envelope, code, details, reception_time)
}

/// Decides a message a client sent just now.
pub(super) fn decide_new(
    conn: &Connection,
    guard: Guard,
    node: &Node,
    envelope: &Envelope,
    verified: &Result<Verified, Refusal>,
) -> Result<Decision, StoreError> {
    let hash = envelope.item_hash.as_str();
    let signature = envelope.signature.as_deref();
    // Nearly every message is new, and then there is nothing else to look for.
    let known = messages::status(conn, hash)?.is_some();
    let mut waiting = None;
    if known {
        if let Some(outcome) = settled(conn, hash, signature)? {
            return Ok(Decision::Known(outcome));
        }
        waiting = pending::get(conn, hash)?;
    }
    let received = waiting.as_ref().map_or_else(now, |p| p.reception_time);
    let arrival = Arrival {
        reception: received,
        known,
    };
    let refusal = match attempt(conn, guard, node, verified, arrival)? {
        Ok(decision) => return Ok(decision),
        Err(refusal) => refusal,
    };
    match waiting {
        // A stranger's signature under the same content must not decide about what waits.
        Some(p) if p.envelope["signature"].as_str() != signature => {
            Ok(Decision::Known(if refusal.rejection.code.is_retryable() {
                Outcome::Pending
            } else {
                Outcome::Rejected(refusal.rejection)
            }))
        }
        // Its own attempts go on; this one was extra.
        Some(_) if refusal.rejection.code.is_retryable() => Ok(Decision::Known(Outcome::Pending)),
        _ if refusal.rejection.code.is_retryable() => {
            messages::clear_rejection(conn, hash)?;
            pending::insert(conn, hash, &kept(envelope)?, received, received)?;
            postpone(conn, hash, 0, &refusal)?;
            Ok(Decision::Postponed)
        }
        _ => {
            reject(conn, hash, &kept(envelope)?, &refusal.rejection, received)?;
            Ok(Decision::Rejected(refusal.rejection))
        }
    }
}

/// Decides a message whose turn it is.
pub(super) fn decide_queued(
    conn: &Connection,
    guard: Guard,
    node: &Node,
    p: &Pending,
    verified: &Result<Verified, Refusal>,
) -> Result<Decision, StoreError> {
    // Another attempt may have decided it meanwhile.
    if pending::get(conn, &p.item_hash)?.is_none() {
        return Ok(Decision::Known(outcome(conn, &p.item_hash)?));
    }
    let arrival = Arrival {
        reception: p.reception_time,
        known: true,
    };
    let refusal = match attempt(conn, guard, node, verified, arrival)? {
        Ok(decision) => return Ok(decision),
        Err(refusal) => refusal,
    };
    if refusal.rejection.code.is_retryable() && p.retries < MAX_RETRIES {
        postpone(conn, &p.item_hash, p.retries, &refusal)?;
        return Ok(Decision::Postponed);
    }
    let rejection = refusal.rejection;
    reject(
        conn,
        &p.item_hash,
        &p.envelope,
        &rejection,
        p.reception_time,
    )?;
    Ok(Decision::Rejected(rejection))
}

/// Why an attempt failed, and what would change that.
struct Failed {
    rejection: Rejection,
    waits_for: Vec<String>,
}

/// How a message came.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    /// When it came first, Unix seconds.
    reception: f64,
    /// Whether anything is recorded about it.
    known: bool,
}

/// Checks and applies; what fails leaves nothing behind. Without a guard, what fails after something was written is an
/// error, and the message is decided again with one.
fn attempt(
    conn: &Connection,
    guard: Guard,
    node: &Node,
    verified: &Result<Verified, Refusal>,
    arrival: Arrival,
) -> Result<Result<Decision, Failed>, StoreError> {
    let received = now();
    let checked = match verified {
        Ok(v) => check(conn, node, v, received).map(|costs| (v, costs)),
        Err(Refusal::Rejected {
            rejection,
            waits_for,
        }) => {
            return Ok(Err(Failed {
                rejection: rejection.clone(),
                waits_for: waits_for.clone(),
            }));
        }
        Err(Refusal::Store(error)) => return Ok(Err(internal(error))),
    };
    let applied = checked.and_then(|(v, costs)| {
        guard
            .nested(conn, |conn| apply(conn, node, v, &costs, arrival, received))
            .map_err(|refusal| match guard {
                Guard::On => refusal,
                Guard::Off => Refusal::Store(StoreError::Undone),
            })
    });
    match applied {
        Ok((row, woken)) => Ok(Ok(Decision::Processed(Box::new(row), woken))),
        Err(Refusal::Rejected {
            rejection,
            waits_for,
        }) => Ok(Err(Failed {
            rejection,
            waits_for,
        })),
        // SQLite has given up the whole transaction, so nothing can be recorded in it.
        Err(Refusal::Store(error)) if guard == Guard::Off || conn.is_autocommit() => Err(error),
        Err(Refusal::Store(error)) => Ok(Err(internal(&error))),
    }
}

fn internal(error: &StoreError) -> Failed {
    tracing::error!(%error, "cannot apply a message");
    Failed {
        rejection: Rejection::with_details(ErrorCode::InternalError, Value::Null),
        waits_for: Vec::new(),
    }
}

fn postpone(
    conn: &Connection,
    hash: &str,
    retries: u32,
    failed: &Failed,
) -> Result<(), StoreError> {
    let longest = f64::from(2_u32.saturating_pow(retries.min(16))).min(MAX_BACKOFF);
    let next = now() + rand::random_range(0.0..=longest);
    let code = i64::from(failed.rejection.code.as_i32());
    let details = Some(&failed.rejection.details).filter(|details| !details.is_null());
    pending::postpone(conn, hash, next, code, details, &failed.waits_for)
}

/// The checks in the network's order; what the message costs. Nothing is written.
fn check(
    conn: &Connection,
    node: &Node,
    v: &Verified,
    received: f64,
) -> Result<Vec<Cost>, Refusal> {
    // A file whose grace is over may still be on disk.
    if v.envelope.item_content.is_none() && files::get(conn, v.hash())?.is_none() {
        return Err(unavailable(v.hash(), "is not here"));
    }
    kinds::check_permissions(conn, v)?;
    kinds::check_related_content(conn, v)?;
    kinds::check_dependencies(conn, v)?;
    kinds::check_permissions(conn, v)?;
    charge::charge(conn, &node.config, v, received)
}

/// The effects.
fn apply(
    conn: &Connection,
    node: &Node,
    v: &Verified,
    costs: &[Cost],
    arrival: Arrival,
    received: f64,
) -> Result<(Message, bool), Refusal> {
    let mut row = to_row(v, arrival.reception);
    if arrival.known {
        if let Some(earlier) = messages::forget_status(conn, v.hash())? {
            row.reception_time = row.reception_time.min(earlier);
        }
        pending::remove(conn, v.hash())?;
        messages::clear_rejection(conn, v.hash())?;
    }
    messages::insert(conn, &row)?;
    if v.envelope.item_content.is_none() {
        files::pin_content(conn, v.hash(), v.owner(), received)?;
    }
    for cost in costs {
        accounts::insert_cost(conn, cost)?;
    }
    kinds::apply(conn, v, received)?;
    ledger::apply(conn, &node.config, v, received)?;
    let mut woken = pending::wake(conn, v.hash(), received)?;
    for name in kinds::provides(v) {
        woken |= pending::wake(conn, &name, received)?;
    }
    Ok((row, woken))
}

fn to_row(v: &Verified, reception_time: f64) -> Message {
    let raw = &v.content.raw;
    let mut row = Message {
        item_hash: v.hash().into(),
        status: "processed".into(),
        kind: v.envelope.message_type.to_string(),
        chain: v.envelope.chain.to_string(),
        sender: v.envelope.sender.clone(),
        signature: v.envelope.signature.clone(),
        item_type: v.envelope.item_type.to_string(),
        item_content: v.envelope.item_content.clone(),
        content: raw.clone(),
        time: v.envelope.time,
        channel: v.envelope.channel.clone(),
        size: i64::try_from(v.size).unwrap_or(i64::MAX),
        reception_time,
        owner: v.owner().into(),
        content_type: None,
        content_ref: None,
        content_key: None,
        content_item_hash: None,
        payment_type: None,
        tags: None,
        content_time: None,
    };
    let payment = v.content.payment().map(|p| p.payment_type.to_string());
    match &v.content.body {
        Body::Post(post) => {
            row.content_type = Some(post.post_type.clone());
            row.content_ref = post.ref_text().map(str::to_owned);
            row.tags = post.content.get("tags").cloned();
            row.content_time = Some(v.content.time());
        }
        Body::Aggregate(aggregate) => {
            row.content_key = Some(aggregate.key.clone());
            row.tags = aggregate.content.get("tags").cloned();
        }
        Body::Store(store) => {
            row.content_item_hash = Some(store.item_hash.to_string());
            row.content_ref = store.reference.clone();
            row.tags = raw.get("tags").cloned();
            row.payment_type = Some(payment.unwrap_or_else(|| "hold".into()));
        }
        Body::Program(_) | Body::Instance(_) | Body::VerifiableProgram(_) => {
            row.tags = raw
                .pointer("/metadata/tags")
                .filter(|tags| tags.is_array())
                .cloned();
            row.payment_type = Some(payment.unwrap_or_else(|| "hold".into()));
        }
        Body::Forget(_) => {}
    }
    row
}
