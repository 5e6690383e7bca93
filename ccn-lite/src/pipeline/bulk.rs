//! Many messages at once, from a file instead of a client: the same checks in the same order, one commit for many.

use aleph_message::{Body, Rejection};
use serde_json::Value;

use super::Outcome;
use super::decide::{Decision, decide_new, decide_queued};
use super::verify::{Examined, examine, verify};
use crate::node::Node;
use crate::store::pending::Pending;
use crate::store::{StoreError, now};

/// A message whose form, signature and content were checked, as far as that needs no database.
pub struct Prepared(Examined);

/// What became of one of them.
#[derive(Debug)]
pub enum Fate {
    /// In force from now on.
    Taken,
    /// In force or gone before.
    Known,
    /// Recorded: it needs something that is not here.
    Waiting,
    /// Refused.
    Refused(Rejection),
}

/// What became of some messages.
#[derive(Debug, Default)]
pub struct Decided {
    /// One for each, in their order.
    pub fates: Vec<Fate>,
    /// Whether others waited for one of them.
    pub woken: bool,
}

impl Prepared {
    /// Item hash as text.
    pub fn hash(&self) -> &str {
        self.0.envelope.item_hash.as_str()
    }

    /// The file that the message stores, when it is a STORE that is signed rightly.
    pub fn stored_file(&self) -> Option<&str> {
        match &self.0.verified.as_ref().ok()?.content.body {
            Body::Store(store) => Some(store.item_hash.as_str()),
            _ => None,
        }
    }
}

/// Reads and checks a message. Blocks on arithmetic, and on the disk when its content is a file.
///
/// # Errors
/// When it is too malformed to be recorded, or from the future.
pub fn prepare(node: &Node, raw: &Value) -> Result<Prepared, Rejection> {
    let examined = examine(node, raw)?;
    node.guard.check_clock(examined.envelope.time, now())?;
    Ok(Prepared(examined))
}

/// Decides messages one after the other, in one commit.
///
/// # Errors
/// When the database fails; then none of them is decided.
pub async fn decide(node: &Node, messages: Vec<Prepared>) -> Result<Decided, StoreError> {
    let context = node.clone();
    let decisions = node
        .store
        .decide::<_, StoreError, _>(move |conn, guard| {
            let decide = |Prepared(m): &Prepared| {
                decide_new(conn, guard, &context, &m.envelope, &m.verified)
            };
            messages.iter().map(decide).collect::<Result<Vec<_>, _>>()
        })
        .await?;
    Ok(told(decisions))
}

/// Makes another attempt at messages that waited, in one commit.
///
/// # Errors
/// When the database fails; then none of them is decided.
pub async fn retry(node: &Node, waiting: Vec<Pending>) -> Result<Decided, StoreError> {
    let context = node.clone();
    let verified = tokio::task::spawn_blocking(move || {
        let verify = |p: Pending| (verify(&context, &p.envelope), p);
        waiting.into_iter().map(verify).collect::<Vec<_>>()
    })
    .await
    .map_err(|_| StoreError::Closed)?;
    let context = node.clone();
    let decisions = node
        .store
        .decide::<_, StoreError, _>(move |conn, guard| {
            verified
                .iter()
                .map(|(verified, p)| decide_queued(conn, guard, &context, p, verified))
                .collect::<Result<Vec<_>, _>>()
        })
        .await?;
    Ok(told(decisions))
}

fn told(decisions: Vec<Decision>) -> Decided {
    let mut decided = Decided::default();
    for decision in decisions {
        decided.fates.push(match decision {
            Decision::Processed(_, woken) => {
                decided.woken |= woken;
                Fate::Taken
            }
            Decision::Postponed | Decision::Known(Outcome::Pending) => Fate::Waiting,
            Decision::Known(
                Outcome::Processed | Outcome::Removing | Outcome::Forgotten | Outcome::Removed,
            ) => Fate::Known,
            Decision::Rejected(rejection) | Decision::Known(Outcome::Rejected(rejection)) => {
                Fate::Refused(rejection)
            }
        });
    }
    decided
}
