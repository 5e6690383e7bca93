//! Questions about many messages or addresses at once: what a node with hundreds of machines asks again and again costs a
//! few requests, however many they are (spec ccn-api §3.3, §3.5).

use std::collections::{HashMap, HashSet};
use std::fmt;

use aleph_message::ItemHash;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::{Ccn, CcnError, MAX_JSON, query_value};

/// Messages of a list asked for at a time.
const PAGE: usize = 100;
/// Pages of one list at most.
const MAX_PAGES: usize = 10;
/// What one request may name, in bytes: servers take lines of 8 KiB.
const MAX_NAMES: usize = 6800;
/// What a reply may be expected to hold, in bytes; its own words come on top.
const MAX_EXPECTED: usize = MAX_JSON / 2;
/// Aggregates of a page, as many as a node gives at most.
const AGGREGATES: usize = 500;
/// An envelope beside its content, in bytes.
const ENVELOPE: usize = 1024;

/// Messages that a node lists, newest first, as envelopes that nobody has verified.
#[derive(Debug, Default, Clone)]
pub struct Listed {
    /// The messages.
    pub messages: Vec<Value>,
    /// There are no more of them.
    pub whole: bool,
}

/// Whose amendments are asked for.
#[derive(Debug, Clone, Copy)]
pub enum Amending<'a> {
    /// Of one STORE message by its owner, the newest page of them.
    File {
        /// The message.
        hash: &'a str,
        /// Its owner's address.
        owner: &'a str,
    },
    /// Of these STORE messages by any of these owners, the newest [`MAX_PAGES`] pages of them.
    Files {
        /// The messages.
        hashes: &'a [&'a str],
        /// Addresses.
        owners: &'a [&'a str],
    },
    /// Of these programs or instances: messages of their type for any of these addresses that replace one of them, out of
    /// the newest [`MAX_PAGES`] pages.
    Messages {
        /// `PROGRAM` or `INSTANCE`.
        kind: &'a str,
        /// The messages.
        hashes: &'a [&'a str],
        /// Addresses.
        owners: &'a [&'a str],
    },
}

impl fmt::Display for Amending<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { hash, .. } => write!(f, "the amendments of {hash}"),
            Self::Files { hashes, .. } | Self::Messages { hashes, .. } => match hashes {
                [hash] => write!(f, "the amendments of {hash}"),
                _ => write!(f, "the amendments of {} messages", hashes.len()),
            },
        }
    }
}

/// Things to be asked about, in groups of which each fits one request: `size` gives the bytes of a thing's name and those
/// that are expected in answer to it. A thing that is too long for any group is one by itself.
pub fn batches<T>(
    things: impl IntoIterator<Item = T>,
    size: impl Fn(&T) -> (usize, usize),
) -> Vec<Vec<T>> {
    let mut groups: Vec<Vec<T>> = Vec::new();
    let (mut names, mut expected) = (0, 0);
    for thing in things {
        let (name, answer) = size(&thing);
        // A comma, which is percent-encoded at worst.
        (names, expected) = (names + name + 3, expected + answer + ENVELOPE);
        match groups.last_mut() {
            Some(group) if names <= MAX_NAMES && expected <= MAX_EXPECTED && group.len() < PAGE => {
                group.push(thing);
            }
            _ => {
                (names, expected) = (name + 3, answer + ENVELOPE);
                groups.push(vec![thing]);
            }
        }
    }
    groups
}

impl Ccn {
    /// Those of these messages, one group of [`batches`], that are in force: processed, or about to be removed.
    ///
    /// # Errors
    /// [`CcnError`].
    pub async fn in_force(&self, hashes: &[&ItemHash]) -> Result<HashSet<String>, CcnError> {
        #[derive(Deserialize)]
        struct Page {
            messages: Vec<Named>,
        }
        #[derive(Deserialize)]
        struct Named {
            item_hash: String,
        }
        let names: Vec<&str> = hashes.iter().map(|hash| hash.as_str()).collect();
        let path = format!(
            "/api/v0/messages.json?hashes={}&contentFormat=none&pagination={PAGE}",
            names.join(",")
        );
        let page: Page = self.answer(&path).await?;
        let listed = page.messages.into_iter();
        Ok(listed.map(|message| message.item_hash).collect())
    }

    /// The amendments that are asked for, as this node lists them.
    ///
    /// # Errors
    /// [`CcnError`].
    pub async fn amendments(&self, of: Amending<'_>) -> Result<Listed, CcnError> {
        let files = |hashes: &[&str], owners: &[&str]| {
            let (refs, owners) = (joined(hashes), joined(owners));
            format!("msgType=STORE&refs={refs}&owners={owners}")
        };
        match of {
            Amending::File { hash, owner } => {
                self.pages(&files(&[hash], &[owner]), 1, |_| true).await
            }
            Amending::Files { hashes, owners } => {
                self.pages(&files(hashes, owners), MAX_PAGES, |_| true)
                    .await
            }
            Amending::Messages {
                kind,
                hashes,
                owners,
            } => {
                // There is no filter for what is replaced: all that the owners have is looked through.
                let query = format!("msgType={kind}&owners={}", joined(owners));
                let wanted = |message: &Value| hashes.iter().any(|hash| replaces(message, hash));
                self.pages(&query, MAX_PAGES, wanted).await
            }
        }
    }

    async fn pages(
        &self,
        query: &str,
        most: usize,
        keep: impl Fn(&Value) -> bool,
    ) -> Result<Listed, CcnError> {
        #[derive(Deserialize)]
        struct Page {
            messages: Vec<Value>,
        }
        let mut messages = Vec::new();
        for page in 1..=most {
            let path =
                format!("/api/v0/messages.json?{query}&sortOrder=-1&pagination={PAGE}&page={page}");
            let found: Page = self.answer(&path).await?;
            let whole = found.messages.len() < PAGE;
            messages.extend(found.messages.into_iter().filter(&keep));
            if whole {
                return Ok(Listed { messages, whole });
            }
        }
        Ok(Listed {
            messages,
            whole: false,
        })
    }

    /// One aggregate of each of these addresses that has it, one group of [`batches`].
    ///
    /// # Errors
    /// [`CcnError`]; also from a node that cannot list aggregates.
    pub async fn aggregates(
        &self,
        addresses: &[&str],
        key: &str,
    ) -> Result<HashMap<String, Value>, CcnError> {
        #[derive(Deserialize)]
        struct Page {
            aggregates: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            address: String,
            key: String,
            content: Value,
        }
        let path = format!(
            "/api/v0/aggregates?keys={key}&addresses={}&pagination={AGGREGATES}",
            joined(addresses)
        );
        let page: Page = self.answer(&path).await?;
        let entries = page.aggregates.into_iter();
        let own = entries.filter(|entry| entry.key == key);
        Ok(own.map(|entry| (entry.address, entry.content)).collect())
    }

    /// The reply where there must be one.
    async fn answer<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, CcnError> {
        self.json(path).await?.ok_or_else(|| CcnError::Status {
            url: format!("{}{path}", self.base),
            status: StatusCode::NOT_FOUND,
        })
    }
}

fn joined(names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|name| query_value(name)).collect();
    names.join(",")
}

/// Whether a listed message may replace `hash`: by its content where the list shows it, otherwise by its text.
pub(in crate::intake) fn replaces(message: &Value, hash: &str) -> bool {
    match message.get("content") {
        Some(content) => content.get("replaces").and_then(Value::as_str) == Some(hash),
        None => message
            .get("item_content")
            .and_then(Value::as_str)
            .is_none_or(|text| text.contains(hash)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_hundred_ordinary_machines_are_two_groups() {
        let machines = vec![(64, 2500); 200];
        let groups = batches(machines, |size| *size);
        assert_eq!(groups.len(), 2);
        // Ten that are as long as messages may be fit a reply, a hundred do not.
        let long = batches(vec![(64, 200_000); 100], |size| *size);
        assert!(long.iter().all(|group| group.len() <= 20), "{}", long.len());
    }

    proptest! {
        #[test]
        fn groups_keep_everything_in_order_and_fit(
            sizes in prop::collection::vec((0usize..9000, 0usize..9_000_000), 0..300),
        ) {
            let groups = batches(sizes.clone(), |size| *size);
            for group in &groups {
                let names: usize = group.iter().map(|(name, _)| name + 3).sum();
                let expected: usize = group.iter().map(|(_, answer)| answer + ENVELOPE).sum();
                prop_assert!(group.len() <= PAGE);
                prop_assert!(group.len() == 1 || (names <= MAX_NAMES && expected <= MAX_EXPECTED));
            }
            prop_assert_eq!(groups.concat(), sizes);
        }
    }
}
