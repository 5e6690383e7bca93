//! What came after a message: the newest file behind a reference, the newest version of a program or an instance. Lists
//! made by the other side are hints: each message in them is verified here, and what does not belong is passed over.

use std::collections::HashMap;

use aleph_message::{Content, ItemHash, StoreContent};
use serde_json::Value;

use super::ccn::{Amending, batches, replaces};
use super::workload::Reference;
use super::{Intake, IntakeError, Kept, Verified, as_store};

/// STORE messages remembered; what is in use on a node is a fraction of it.
const MAX_REMEMBERED: usize = 4096;

impl Intake {
    /// The STORE message behind a reference, or its newest amendment by the same owner when that is meant.
    pub(super) async fn store(&self, reference: &Reference) -> Result<StoreContent, IntakeError> {
        let original = as_store(self.message(&reference.hash).await?)?;
        if !reference.use_latest {
            return Ok(original);
        }
        let owner = original.base.address.as_str();
        let hash = reference.hash.as_str();
        let listed = self.ccn.amendments(Amending::File { hash, owner }).await?;
        self.newest_store(&reference.hash, original, &listed.messages)
            .await
    }

    /// The newest of these listed messages that amends a STORE message, or that one itself.
    async fn newest_store(
        &self,
        hash: &ItemHash,
        original: StoreContent,
        listed: &[Value],
    ) -> Result<StoreContent, IntakeError> {
        let amends = |store: &StoreContent| {
            store.base.address == original.base.address
                && store.reference.as_deref() == Some(hash.as_str())
        };
        for message in listed {
            let Some(verified) = self.listed(message).await? else {
                continue;
            };
            let amendment = verified.envelope.item_hash.clone();
            match as_store(verified) {
                Ok(store) if amends(&store) => return Ok(store),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%amendment, "passed over: {}", crate::chain(&error));
                }
            }
        }
        Ok(original)
    }

    /// The file behind the newest amendment of a STORE message.
    ///
    /// # Errors
    /// [`IntakeError`].
    pub async fn latest_file(&self, original: &ItemHash) -> Result<ItemHash, IntakeError> {
        let reference = Reference {
            hash: original.clone(),
            use_latest: true,
        };
        Ok(self.store(&reference).await?.item_hash)
    }

    /// The files behind the newest amendments of all these STORE messages. Those about which nothing can be learned now
    /// are not among them.
    pub async fn latest_files(
        &self,
        originals: impl IntoIterator<Item = ItemHash>,
    ) -> HashMap<ItemHash, ItemHash> {
        let mut known = Vec::new();
        for hash in originals {
            match self.remembered(&hash).await {
                Ok(store) => known.push((hash, store)),
                Err(error) => {
                    tracing::warn!(original = %hash, "its amendments are unknown: {}", crate::chain(&error));
                }
            }
        }
        let size = |(hash, store): &(ItemHash, StoreContent)| {
            (hash.as_str().len() + 3 * store.base.address.len(), 0)
        };
        let mut files = HashMap::new();
        for group in batches(known, size) {
            let hashes: Vec<_> = group.iter().map(|(hash, _)| hash.as_str()).collect();
            let mut owners: Vec<_> = group.iter().map(|(_, s)| s.base.address.as_str()).collect();
            owners.sort_unstable();
            owners.dedup();
            let of = Amending::Files {
                hashes: &hashes,
                owners: &owners,
            };
            let listed = match self.ccn.amendments(of).await {
                Ok(listed) => listed,
                Err(error) => {
                    tracing::warn!("files stay as they are: {}", crate::chain(&error));
                    continue;
                }
            };
            for (hash, original) in group {
                let newest = if listed.whole {
                    let of = |message: &&Value| amends(message, hash.as_str());
                    let own: Vec<_> = listed.messages.iter().filter(of).cloned().collect();
                    let newest = self.newest_store(&hash, original, &own).await;
                    newest.map(|store| store.item_hash)
                } else {
                    // Too many for one list: those of each file may not be.
                    self.latest_file(&hash).await
                };
                match newest {
                    Ok(file) => {
                        files.insert(hash, file);
                    }
                    Err(error) => {
                        tracing::warn!(original = %hash, "the amendment is passed over: {}", crate::chain(&error));
                    }
                }
            }
        }
        files
    }

    /// A STORE message as it was when it was first asked for here: what it says never changes.
    async fn remembered(&self, hash: &ItemHash) -> Result<StoreContent, IntakeError> {
        let known = self.stores().get(hash).cloned();
        if let Some(store) = known {
            return Ok(store);
        }
        let store = as_store(self.message(hash).await?)?;
        let mut stores = self.stores();
        if stores.len() >= MAX_REMEMBERED {
            stores.clear();
        }
        stores.insert(hash.clone(), store.clone());
        Ok(store)
    }

    /// A program's or an instance's message with the newest amendment that its owner has made: one of the same type, for
    /// the same address, whose `replaces` names it. Without one, and for a message that does not allow any
    /// (`allow_amend`), the message as it was first.
    ///
    /// # Errors
    /// [`IntakeError`].
    pub async fn newest(&self, message: Verified) -> Result<Verified, IntakeError> {
        let listed = if message.is_amendable() {
            let kind = message.envelope.message_type.as_str();
            let hash = message.envelope.item_hash.as_str();
            let owner = message.content.address();
            let of = Amending::Messages {
                kind,
                hashes: &[hash],
                owners: &[owner],
            };
            self.ccn.amendments(of).await?.messages
        } else {
            Vec::new()
        };
        self.newest_among(message, &listed).await
    }

    /// The same with what has been listed of the owner's messages.
    ///
    /// # Errors
    /// [`IntakeError`].
    pub async fn newest_among(
        &self,
        message: Verified,
        listed: &[Value],
    ) -> Result<Verified, IntakeError> {
        let kept: Kept = serde_json::from_str(&message.text).map_err(IntakeError::Kept)?;
        let original = Kept {
            amendment: None,
            ..kept
        };
        let hash = message.envelope.item_hash.clone();
        let with = |amendment: Option<(Verified, Kept)>| -> Result<Verified, IntakeError> {
            let (amendment, kept) = amendment.unzip();
            let text = Kept {
                amendment: kept.map(Box::new),
                ..original
            };
            Ok(Verified {
                envelope: message.envelope.clone(),
                content: message.content.clone(),
                text: serde_json::to_string(&text).map_err(IntakeError::Kept)?,
                amendment: amendment.map(Box::new),
                places: message.places.clone(),
            })
        };
        if !message.is_amendable() {
            return with(None);
        }
        let (owner, kind) = (message.content.address(), message.envelope.message_type);
        let own = listed.iter().filter(|one| replaces(one, hash.as_str()));
        for candidate in own {
            let Some(verified) = self.listed(candidate).await? else {
                continue;
            };
            if verified.envelope.message_type == kind
                && verified.content.address().eq_ignore_ascii_case(owner)
                && is_amendment(&verified.content, &hash)
            {
                let kept = serde_json::from_str(&verified.text).map_err(IntakeError::Kept)?;
                return with(Some((verified, kept)));
            }
        }
        with(None)
    }

    /// A message out of a list, when it is one that verifies.
    async fn listed(&self, message: &Value) -> Result<Option<Verified>, IntakeError> {
        let hash = message.get("item_hash").and_then(Value::as_str);
        let Some(hash) = hash.and_then(|hash| hash.parse::<ItemHash>().ok()) else {
            return Ok(None);
        };
        match self.verify(&hash, message.clone()).await {
            Ok(verified) => Ok(Some(verified)),
            Err(error) if error.is_transient() => Err(error),
            Err(error) => {
                tracing::warn!(amendment = %hash, "passed over: {}", crate::chain(&error));
                Ok(None)
            }
        }
    }
}

impl Verified {
    /// Whether later messages may take its place.
    #[must_use]
    pub fn is_amendable(&self) -> bool {
        let executable = self.content.executable();
        executable.is_some_and(|executable| executable.allow_amend)
    }
}

/// Whether a listed STORE message may amend this one: by its content where the list shows it; otherwise it may.
fn amends(message: &Value, original: &str) -> bool {
    let content = message.get("content");
    content.is_none_or(|content| content.get("ref").and_then(Value::as_str) == Some(original))
}

fn is_amendment(content: &Content, original: &ItemHash) -> bool {
    let replaced = content
        .executable()
        .and_then(|executable| executable.replaces.as_deref());
    replaced == Some(original.as_str())
}
