//! The way of a message: parse → verify → permit → depend → charge → apply.
//!
//! A message is recorded as pending before it is answered. Deciding it is one transaction: either everything it causes
//! is committed with its status, or nothing. The order of checks decides which error code wins and follows the network.

pub mod charge;
pub mod permit;
pub mod worker;

use std::sync::Arc;

use aleph_message::{Content, Envelope, ErrorCode, Rejection};
use rusqlite::Connection;
use serde_json::Value;

use crate::files::MAX_CONTENT_BYTES;
use crate::kinds;
use crate::ledger;
use crate::node::{Event, Node};
use crate::store::messages::{self, Message};
use crate::store::pending::{self, Pending};
use crate::store::{self, StoreError, accounts, files, now};

/// Attempts before a message that waits is rejected.
const MAX_RETRIES: u32 = 10;
/// Longest pause between attempts, seconds.
const MAX_BACKOFF: f64 = 300.0;

/// What became of a message.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// In force.
    Processed,
    /// Waits for a dependency, or for its turn.
    Pending,
    /// Refused.
    Rejected(Rejection),
    /// Forgotten before.
    Forgotten,
}

/// Why a message was not taken at all.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Its envelope or inline content is malformed.
    #[error(transparent)]
    Invalid(#[from] Rejection),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a check stopped a message.
#[derive(Debug)]
pub enum Refusal {
    /// Against the rules.
    Rejected {
        /// Code and details.
        rejection: Rejection,
        /// What would change the answer: item hashes, file hashes or tags.
        waits_for: Vec<String>,
    },
    /// The database failed.
    Store(StoreError),
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected {
            rejection,
            waits_for: Vec::new(),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Refusal {
    /// A refusal that ends when one of `waits_for` arrives.
    pub fn waiting(rejection: Rejection, waits_for: Vec<String>) -> Self {
        Self::Rejected {
            rejection,
            waits_for,
        }
    }
}

/// A message whose hash, signature and content were checked.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The envelope.
    pub envelope: Envelope,
    /// The content.
    pub content: Content,
    /// Length of the content text, characters.
    pub size: usize,
}

impl Verified {
    /// Item hash as text.
    pub fn hash(&self) -> &str {
        self.envelope.item_hash.as_str()
    }

    /// `content.address`.
    pub fn owner(&self) -> &str {
        self.content.address()
    }
}

enum Accepted {
    Queued(Pending),
    Known(Outcome),
}

fn accept(
    conn: &Connection,
    hash: &str,
    envelope: &Value,
    received: f64,
) -> Result<Accepted, StoreError> {
    let known = messages::status(conn, hash)?;
    match known.as_ref().map(|(status, _)| status.as_str()) {
        Some("processed" | "removing") => return Ok(Accepted::Known(Outcome::Processed)),
        Some("forgotten" | "removed") => return Ok(Accepted::Known(Outcome::Forgotten)),
        Some("pending") => return Ok(Accepted::Known(Outcome::Pending)),
        Some("rejected") => messages::clear_rejection(conn, hash)?,
        _ => {}
    }
    pending::insert(conn, hash, envelope, received, received)?;
    Ok(Accepted::Queued(Pending {
        item_hash: hash.into(),
        envelope: envelope.clone(),
        reception_time: received,
        retries: 0,
        next_attempt: received,
    }))
}

/// Takes a message from a client. With `wait` it is decided before this returns, without it is only recorded.
pub async fn submit(node: &Node, raw: &Value, wait: bool) -> Result<Outcome, SubmitError> {
    let (envelope, _) = Envelope::parse_with_content(raw)?;
    let hash = envelope.item_hash.to_string();
    let stored = serde_json::to_value(&envelope).map_err(StoreError::from)?;
    let mut events = node.events.subscribe();
    let accepted = {
        let hash = hash.clone();
        node.store
            .write::<_, StoreError, _>(move |conn| accept(conn, &hash, &stored, now()))
            .await?
    };
    match accepted {
        Accepted::Queued(pending) if wait => Ok(process(node, pending).await?),
        Accepted::Queued(_) => {
            node.due.notify_one();
            Ok(Outcome::Pending)
        }
        // Another request brought the same message and it is about to be decided.
        Accepted::Known(Outcome::Pending) if wait => {
            let decided = async {
                while let Ok(event) = events.recv().await {
                    if event.item_hash() == hash {
                        break;
                    }
                }
            };
            let patience = std::time::Duration::from_secs(2);
            if tokio::time::timeout(patience, decided).await.is_err() {
                tracing::debug!(item_hash = hash, "still pending");
            }
            let hash = hash.clone();
            Ok(node
                .store
                .read::<_, StoreError, _>(move |conn| outcome(conn, &hash))
                .await?)
        }
        Accepted::Known(outcome) => Ok(outcome),
    }
}

fn outcome(conn: &Connection, hash: &str) -> Result<Outcome, StoreError> {
    let status = messages::status(conn, hash)?.map(|(status, _)| status);
    Ok(match status.as_deref() {
        Some("processed" | "removing") => Outcome::Processed,
        Some("forgotten" | "removed") => Outcome::Forgotten,
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

/// Checks that need no database: signature, then content. Blocks on arithmetic and disk.
fn verify(node: &Node, raw: &Value) -> Result<Verified, Refusal> {
    let envelope = Envelope::parse(raw)?;
    envelope.verify_signature()?;
    let (content, size) = match &envelope.item_content {
        Some(text) => (envelope.parse_content(text)?, text.chars().count()),
        None => {
            let hash = envelope.item_hash.as_str();
            let unavailable = |reason: String| {
                Refusal::waiting(
                    Rejection::new(ErrorCode::ContentUnavailable, reason),
                    vec![hash.to_owned()],
                )
            };
            let bytes = node
                .blobs
                .read(hash, MAX_CONTENT_BYTES)
                .map_err(|error| unavailable(format!("Cannot read content {hash}: {error}")))?
                .ok_or_else(|| unavailable(format!("Content {hash} is not here")))?;
            let text = String::from_utf8(bytes)
                .map_err(|_| Rejection::invalid_format("Message content is not UTF-8"))?;
            (envelope.parse_content(&text)?, text.chars().count())
        }
    };
    Ok(Verified {
        envelope,
        content,
        size,
    })
}

fn to_row(v: &Verified, reception_time: f64) -> Message {
    use aleph_message::Body;
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
    };
    let payment = v.content.payment().map(|p| p.payment_type.to_string());
    match &v.content.body {
        Body::Post(post) => {
            row.content_type = Some(post.post_type.clone());
            row.content_ref = post.ref_text().map(str::to_owned);
            row.tags = post.content.get("tags").cloned();
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
        Body::Program(_) | Body::Instance(_) => {
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

/// The checks that need the database, then the effects.
fn apply(
    conn: &Connection,
    node: &Node,
    v: &Verified,
    reception_time: f64,
) -> Result<(Message, bool), Refusal> {
    let received = now();
    kinds::check_permissions(conn, v)?;
    kinds::check_related_content(conn, v)?;
    kinds::check_dependencies(conn, v)?;
    kinds::check_permissions(conn, v)?;
    let costs = charge::charge(conn, &node.config, v, received)?;
    let row = to_row(v, reception_time);
    messages::insert(conn, &row)?;
    pending::remove(conn, v.hash())?;
    if v.envelope.item_content.is_none() {
        files::pin_content(conn, v.hash(), v.owner(), received)?;
    }
    for cost in &costs {
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

enum Decision {
    Processed(Box<Message>, bool),
    Postponed,
    Rejected(Rejection),
    Gone(Outcome),
}

fn backoff(retries: u32) -> f64 {
    let longest = f64::from(2_u32.saturating_pow(retries.min(16))).min(MAX_BACKOFF);
    rand::random_range(0.0..=longest)
}

fn decide(
    conn: &Connection,
    node: &Node,
    p: &Pending,
    verified: Result<Verified, Refusal>,
) -> Result<Decision, StoreError> {
    // Another attempt may have decided it meanwhile.
    if pending::get(conn, &p.item_hash)?.is_none() {
        return Ok(Decision::Gone(outcome(conn, &p.item_hash)?));
    }
    let result =
        verified.and_then(|v| store::nested(conn, |conn| apply(conn, node, &v, p.reception_time)));
    let (rejection, waits_for) = match result {
        Ok((row, woken)) => return Ok(Decision::Processed(Box::new(row), woken)),
        Err(Refusal::Store(error)) => return Err(error),
        Err(Refusal::Rejected {
            rejection,
            waits_for,
        }) => (rejection, waits_for),
    };
    let code = i64::from(rejection.code.as_i32());
    let details = Some(&rejection.details).filter(|d| !d.is_null());
    if rejection.code.is_retryable() && p.retries < MAX_RETRIES {
        let next = now() + backoff(p.retries);
        pending::postpone(conn, &p.item_hash, next, code, details, &waits_for)?;
        return Ok(Decision::Postponed);
    }
    messages::reject(
        conn,
        &p.item_hash,
        &p.envelope,
        code,
        details,
        p.reception_time,
    )?;
    Ok(Decision::Rejected(rejection))
}

/// Decides a pending message: processed, rejected, or later.
pub async fn process(node: &Node, pending: Pending) -> Result<Outcome, StoreError> {
    let hash: Arc<str> = pending.item_hash.as_str().into();
    let verified = {
        let (node, raw) = (node.clone(), pending.envelope.clone());
        tokio::task::spawn_blocking(move || verify(&node, &raw))
            .await
            .map_err(|_| StoreError::Closed)?
    };
    let decision = {
        let node = node.clone();
        let store = node.store.clone();
        store
            .write::<_, StoreError, _>(move |conn| decide(conn, &node, &pending, verified))
            .await?
    };
    let (event, outcome) = match decision {
        Decision::Processed(row, woken) => {
            tracing::info!(item_hash = %hash, kind = row.kind, sender = row.sender, "processed");
            if woken {
                node.due.notify_one();
            }
            (Event::Processed(Arc::from(row)), Outcome::Processed)
        }
        Decision::Postponed => {
            tracing::info!(item_hash = %hash, "postponed");
            node.due.notify_one();
            (Event::Postponed(hash), Outcome::Pending)
        }
        Decision::Rejected(rejection) => {
            tracing::info!(item_hash = %hash, code = rejection.code.as_i32(), reason = rejection.reason(), "rejected");
            (Event::Rejected(hash), Outcome::Rejected(rejection))
        }
        Decision::Gone(outcome) => return Ok(outcome),
    };
    // Without listeners there is nobody to tell.
    let _ = node.events.send(event);
    Ok(outcome)
}
