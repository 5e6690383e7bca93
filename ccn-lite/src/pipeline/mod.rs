//! The way of a message: parse → verify → permit → depend → charge → apply.
//!
//! What needs no database is checked first, in parallel. Deciding is one transaction: either everything a message causes
//! is committed with its status, or nothing, and it is answered after that. The order of checks decides which error code
//! wins and follows the network.

pub mod bulk;
pub mod charge;
mod decide;
pub mod permit;
pub mod remains;
mod verify;
pub mod worker;

use std::sync::Arc;

use aleph_message::{Content, Envelope, Rejection};
use serde_json::Value;

use crate::limits::Limited;
use crate::node::{Node, Published};
use crate::store::pending::Pending;
use crate::store::{StoreError, now};
use decide::{Decision, decide_new, decide_queued, queue};
use verify::{Examined, examine, verify};

/// What became of a message.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// In force.
    Processed,
    /// Waits for a dependency, or for its turn.
    Pending,
    /// Refused.
    Rejected(Rejection),
    /// In force before, and on its way out because it is no longer paid.
    Removing,
    /// Forgotten before.
    Forgotten,
    /// Gone before, because it was no longer paid.
    Removed,
}

/// Why a message was not taken at all.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Its envelope or inline content is malformed.
    #[error(transparent)]
    Invalid(#[from] Rejection),
    /// Nothing is taken from this sender, or from anybody, right now.
    #[error(transparent)]
    Limited(#[from] Limited),
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
    pub envelope: Arc<Envelope>,
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

/// Contents of up to this many bytes are checked where they were read, in a fraction of a millisecond: handing them to
/// another thread would cost more than it spares.
const SHORT: usize = 16 << 10;

/// Takes a message from a client. With `wait` it is decided before this returns, without it is only recorded.
///
/// # Errors
/// When the message is too malformed to be recorded, or the database fails.
pub async fn submit(node: &Node, raw: Value, wait: bool) -> Result<Outcome, SubmitError> {
    let _deciding = node.activity.deciding.hold();
    let is_short = raw["item_content"]
        .as_str()
        .is_some_and(|content| content.len() <= SHORT);
    let examined = if is_short {
        examine(node, &raw)?
    } else {
        let node = node.clone();
        tokio::task::spawn_blocking(move || examine(&node, &raw))
            .await
            .map_err(|_| StoreError::Closed)??
    };
    // Who is not proved to be the sender must not use up what the sender may send.
    let sender = match &examined.verified {
        Ok(_) => examined.envelope.sender.as_str(),
        Err(_) => "",
    };
    let bytes = examined
        .envelope
        .item_content
        .as_ref()
        .map_or(0, String::len);
    node.guard.admit(sender, bytes as u64)?;
    node.guard.check_clock(examined.envelope.time, now())?;
    let Examined { envelope, verified } = examined;
    if wait {
        let (sent, context) = (envelope.clone(), node.clone());
        let decision = node
            .store
            .decide::<_, StoreError, _>(move |conn, guard| {
                decide_new(conn, guard, &context, &sent, &verified)
            })
            .await?;
        return Ok(announce(node, envelope.item_hash.as_str(), decision));
    }
    // A bad signature is settled here: it must not stand in the queue in the way of a good one.
    let refused = match verified {
        Err(Refusal::Rejected { rejection, .. }) if !rejection.code.is_retryable() => {
            Some(rejection)
        }
        _ => None,
    };
    let outcome = node
        .store
        .write::<_, StoreError, _>(move |conn| queue(conn, &envelope, refused.as_ref()))
        .await?;
    node.due.notify_one();
    Ok(outcome)
}

/// Decides a pending message: processed, rejected, or later.
///
/// # Errors
/// When the database fails.
pub async fn process(node: &Node, pending: Pending) -> Result<Outcome, StoreError> {
    let _deciding = node.activity.deciding.hold();
    let hash: Arc<str> = pending.item_hash.as_str().into();
    let verified = {
        let (node, raw) = (node.clone(), pending.envelope.clone());
        tokio::task::spawn_blocking(move || verify(&node, &raw))
            .await
            .map_err(|_| StoreError::Closed)?
    };
    let context = node.clone();
    let decision = node
        .store
        .decide::<_, StoreError, _>(move |conn, guard| {
            decide_queued(conn, guard, &context, &pending, &verified)
        })
        .await?;
    Ok(announce(node, &hash, decision))
}

/// Tells listeners and the log what was committed.
fn announce(node: &Node, hash: &str, decision: Decision) -> Outcome {
    match decision {
        Decision::Processed(row, woken) => {
            // One line a message would cost more than the message.
            tracing::debug!(
                item_hash = hash,
                kind = row.kind,
                sender = row.sender,
                "processed"
            );
            if woken {
                node.due.notify_one();
            }
            // Without listeners there is nobody to tell.
            let _ = node.events.send(Arc::new(Published::new(*row)));
            Outcome::Processed
        }
        Decision::Postponed => {
            tracing::info!(item_hash = hash, "postponed");
            node.due.notify_one();
            Outcome::Pending
        }
        Decision::Rejected(rejection) => {
            tracing::info!(
                item_hash = hash,
                code = rejection.code.as_i32(),
                reason = rejection.reason(),
                "rejected"
            );
            Outcome::Rejected(rejection)
        }
        Decision::Known(outcome) => outcome,
    }
}
