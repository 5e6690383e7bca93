//! Several core channel nodes as one. What can be checked here, a message or a file, is taken from whichever node has
//! it right; what cannot, because it changes, is what the quorum agrees on. A node that is dead, slow, lying or flapping
//! changes nothing as long as a quorum of others is none of that.
//!
//! Nobody is waited for longer than the answer needs: the others' replies are dropped.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;

use super::ccn::{Amending, Balance, Ccn, CcnError, Listed, MessageReply, Price};

/// For whoever is slower, when a quorum has answered and the answers are no yes or no.
const GRACE: Duration = Duration::from_secs(2);

/// The configured nodes; clones share connections.
#[derive(Debug, Clone)]
pub struct Ccns {
    nodes: Arc<[Ccn]>,
    quorum: usize,
}

impl From<Ccn> for Ccns {
    fn from(node: Ccn) -> Self {
        Self {
            nodes: Arc::new([node]),
            quorum: 1,
        }
    }
}

/// What becomes of a message's workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Unknown,
    Pending,
    /// Processed; also when about to be removed for want of funds, until it is.
    Valid,
    /// Forgotten, rejected, removed.
    Gone,
}

impl Standing {
    fn of(reply: Option<&MessageReply>) -> Self {
        match reply.map(|reply| reply.status.as_str()) {
            Some("processed" | "removing") => Self::Valid,
            Some("forgotten" | "removed" | "rejected") => Self::Gone,
            Some(_) => Self::Pending,
            None => Self::Unknown,
        }
    }
}

impl Ccns {
    /// The nodes at these base URLs, each http or https without a trailing slash. `quorum` of them must agree; without
    /// it more than half.
    #[must_use]
    pub fn new<'a>(bases: impl IntoIterator<Item = &'a str>, quorum: Option<usize>) -> Self {
        let nodes: Arc<[Ccn]> = bases.into_iter().map(Ccn::new).collect();
        let quorum = quorum.unwrap_or(nodes.len() / 2 + 1).max(1);
        Self { nodes, quorum }
    }

    /// Each node by itself.
    #[must_use]
    pub fn nodes(&self) -> &[Ccn] {
        &self.nodes
    }

    /// How many of them must agree.
    #[must_use]
    pub const fn quorum(&self) -> usize {
        self.quorum
    }

    /// A message and the standing that the quorum gives it; `None` when the quorum does not know it. The message is
    /// one that is `genuine`, if any node has such a one.
    ///
    /// # Errors
    /// [`CcnError`].
    pub async fn message(
        &self,
        hash: &str,
        genuine: impl Fn(&Value) -> bool,
    ) -> Result<Option<MessageReply>, CcnError> {
        let is_genuine = |reply: &&MessageReply| reply.message.as_ref().is_some_and(&genuine);
        self.ask(
            &format!("message {hash}"),
            |node| async move { node.message(hash).await },
            |replies: &[Option<MessageReply>], all| {
                let agreed = self.agreed(replies, |a, b| {
                    Standing::of(a.as_ref()) == Standing::of(b.as_ref())
                })?;
                let Some(agreed) = agreed else {
                    return Some(None);
                };
                let found = replies.iter().flatten().find(is_genuine);
                if found.is_none() && !all && Standing::of(Some(agreed)) == Standing::Valid {
                    return None;
                }
                Some(Some(MessageReply {
                    status: agreed.status.clone(),
                    message: found.unwrap_or(agreed).message.clone(),
                }))
            },
        )
        .await
    }

    /// The value of one of an address's aggregates as the quorum has it; `None` when the quorum has none.
    ///
    /// # Errors
    /// [`CcnError`].
    pub async fn aggregate(&self, address: &str, key: &str) -> Result<Option<Value>, CcnError> {
        self.ask(
            &format!("the aggregate {key} of {address}"),
            |node| async move { node.aggregate(address, key).await },
            |replies: &[_], _| self.agreed(replies, PartialEq::eq).cloned(),
        )
        .await
    }

    /// What a message costs as the quorum has it; `None` when it is unknown.
    ///
    /// # Errors
    /// [`CcnError`].
    pub async fn price(&self, hash: &str) -> Result<Option<Price>, CcnError> {
        self.ask(
            &format!("the price of {hash}"),
            |node| async move { node.price(hash).await },
            |replies: &[_], _| self.agreed(replies, PartialEq::eq).cloned(),
        )
        .await
    }

    /// What an address owns at least, by a quorum's account: balances change all the time and are never quite the same
    /// on two nodes.
    ///
    /// # Errors
    /// [`CcnError`].
    pub async fn balance(&self, address: &str) -> Result<Balance, CcnError> {
        let mut balances = self
            .gather(&format!("the balance of {address}"), |node| async move {
                node.balance(address).await
            })
            .await?;
        balances.sort_by_key(|balance| std::cmp::Reverse(balance.credit_balance));
        // As many as the quorum say this or more.
        Ok(balances.swap_remove(self.quorum - 1))
    }

    /// One aggregate of each of these addresses, a group of [`batches`](super::ccn::batches), as a quorum has it: `None`
    /// when the quorum has none. An address about which no quorum agrees is not among them.
    ///
    /// # Errors
    /// [`CcnError`]; also when too few nodes can list aggregates.
    pub async fn aggregates(
        &self,
        addresses: &[&str],
        key: &str,
    ) -> Result<HashMap<String, Option<Value>>, CcnError> {
        let answers = self
            .gather(&format!("the aggregates {key}"), |node| async move {
                node.aggregates(addresses, key).await
            })
            .await?;
        let of = |address: &&str| {
            let said: Vec<_> = answers.iter().map(|answer| answer.get(*address)).collect();
            let agreed = self.agreed(&said, PartialEq::eq)?;
            Some(((*address).to_owned(), agreed.cloned()))
        };
        Ok(addresses.iter().filter_map(of).collect())
    }

    /// The amendments that are asked for, as far as a quorum lists them, newest first, as envelopes that nobody has
    /// verified.
    ///
    /// # Errors
    /// [`CcnError`].
    pub async fn amendments(&self, of: Amending<'_>) -> Result<Listed, CcnError> {
        let lists = self
            .gather(
                &of.to_string(),
                |node| async move { node.amendments(of).await },
            )
            .await?;
        Ok(self.listed(lists))
    }

    /// What a quorum lists. Nobody's endless list counts when a quorum's lists have an end.
    fn listed(&self, lists: Vec<Listed>) -> Listed {
        let whole = lists.iter().filter(|list| list.whole).count() >= self.quorum;
        let counted = lists.into_iter().filter(|list| list.whole || !whole);
        let messages = listed_by(self.quorum, counted.map(|list| list.messages).collect());
        Listed { messages, whole }
    }

    /// The content of a message that is not inline, from a node whose bytes are `right`; if there is none, what a node
    /// has instead.
    ///
    /// # Errors
    /// [`CcnError`].
    pub async fn content(
        &self,
        hash: &str,
        right: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Bytes>, CcnError> {
        let mut pending = self.all(|node| async move { node.content(hash).await });
        let (mut wrong, mut refused) = (None, None);
        while let Some(reply) = pending.next().await {
            match reply {
                Ok(Some(bytes)) if right(&bytes) => return Ok(Some(bytes)),
                Ok(Some(bytes)) => wrong = Some(bytes),
                Ok(None) => {}
                Err(error) => refused = Some(error),
            }
        }
        match (wrong, refused) {
            (None, Some(error)) => Err(error),
            (wrong, _) => Ok(wrong),
        }
    }

    /// An answer that a quorum gives, if there is one.
    fn agreed<'a, T>(&self, answers: &'a [T], same: impl Fn(&T, &T) -> bool) -> Option<&'a T> {
        answers.iter().find(|answer| {
            let supporters = answers.iter().filter(|other| same(answer, other));
            supporters.count() >= self.quorum
        })
    }

    fn all<'a, T, F: Future<Output = Result<T, CcnError>> + 'a>(
        &'a self,
        question: impl Fn(&'a Ccn) -> F,
    ) -> FuturesUnordered<F> {
        self.nodes.iter().map(question).collect()
    }

    /// Asks all at once until `decide`, which is told the answers so far and whether they are all, comes to a result.
    async fn ask<'a, T, R, F: Future<Output = Result<T, CcnError>> + 'a>(
        &'a self,
        what: &str,
        question: impl Fn(&'a Ccn) -> F,
        decide: impl Fn(&[T], bool) -> Option<R>,
    ) -> Result<R, CcnError> {
        let mut pending = self.all(question);
        let (mut answers, mut refused) = (Vec::new(), None);
        while let Some(answer) = pending.next().await {
            match answer {
                Ok(answer) => answers.push(answer),
                Err(error) => refused = Some(error),
            }
            if let Some(result) = decide(&answers, pending.is_empty()) {
                return Ok(result);
            }
        }
        Err(self.undecided(what, answers.len(), refused))
    }

    /// The answers of a quorum, and of whoever else is not much slower.
    async fn gather<'a, T, F: Future<Output = Result<T, CcnError>> + 'a>(
        &'a self,
        what: &str,
        question: impl Fn(&'a Ccn) -> F,
    ) -> Result<Vec<T>, CcnError> {
        let mut pending = self.all(question);
        let (mut answers, mut refused) = (Vec::new(), None);
        while answers.len() < self.quorum {
            match pending.next().await {
                Some(Ok(answer)) => answers.push(answer),
                Some(Err(error)) => refused = Some(error),
                None => return Err(self.undecided(what, answers.len(), refused)),
            }
        }
        let rest = async {
            while let Some(answer) = pending.next().await {
                answers.extend(answer.ok());
            }
        };
        // Whoever is slower than this is not heard.
        let _ = tokio::time::timeout(GRACE, rest).await;
        Ok(answers)
    }

    fn undecided(&self, what: &str, answered: usize, refused: Option<CcnError>) -> CcnError {
        match refused {
            // One node, or all of them alike: its own words say more.
            Some(error) if answered == 0 => error,
            _ => CcnError::NoQuorum {
                what: what.to_owned(),
                answered,
                nodes: self.nodes.len(),
                quorum: self.quorum,
            },
        }
    }
}

/// The messages that at least `quorum` of the lists have, newest first.
fn listed_by(quorum: usize, lists: Vec<Vec<Value>>) -> Vec<Value> {
    fn name(message: &Value) -> Option<&str> {
        message.get("item_hash").and_then(Value::as_str)
    }
    let has = |list: &Vec<Value>, hash: &str| list.iter().any(|other| name(other) == Some(hash));
    let mut found: Vec<&Value> = Vec::new();
    for message in lists.iter().flatten() {
        let Some(hash) = name(message) else {
            continue;
        };
        if found.iter().any(|other| name(other) == Some(hash)) {
            continue;
        }
        if lists.iter().filter(|list| has(list, hash)).count() >= quorum {
            found.push(message);
        }
    }
    let time = |message: &Value| message.get("time").and_then(Value::as_f64).unwrap_or(0.0);
    // Stable: one node's own order stands where the times are the same.
    found.sort_by(|a, b| time(b).total_cmp(&time(a)));
    found.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests;
