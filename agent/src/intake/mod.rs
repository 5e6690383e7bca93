//! From a hash to a verified workload: the message is fetched, its hash, signature and permissions are checked here
//! whatever the core channel node says, and the files it names are resolved and fetched.

mod amendments;
pub mod ccn;
pub mod ccns;
mod kept;
mod under_way;
pub mod watch;
pub mod workload;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aleph_message::{Body, Content, Envelope, ItemHash, ItemType, Rejection, StoreContent};
use futures_util::future::try_join_all;
use serde_json::Value;

use self::ccn::CcnError;
use self::ccns::Ccns;
use self::kept::Kept;
pub use self::under_way::Fetching;
use self::under_way::UnderWay;
use self::workload::{Elsewhere, Facts, Places, Reference, Resolved, Unsupported, Workload};
use crate::content::{Cache, Cached, ContentError};

/// Fetches and verifies; clones share connections and cache.
#[derive(Clone)]
pub struct Intake {
    /// The core channel nodes.
    pub ccn: Ccns,
    cache: Cache,
    under_way: UnderWay,
    /// STORE messages that have been verified.
    stores: Arc<Mutex<HashMap<ItemHash, StoreContent>>>,
    node: Arc<Facts>,
}

/// A message whose hash, signature and permissions have been checked.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The envelope.
    pub envelope: Envelope,
    /// The content.
    pub content: Content,
    /// Both as text, for the ledger, with the amendment's.
    pub text: String,
    /// Its newest amendment, whose content is the one that counts.
    pub amendment: Option<Box<Verified>>,
    /// Which disk each of its volumes is, when that has been written down.
    pub places: Option<Places>,
}

/// Why there is no workload.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The core channel nodes gave no answer that counts.
    #[error("cannot ask the core channel node")]
    Ccn(#[from] CcnError),
    /// Nobody knows the message.
    #[error("message {0} is not known")]
    Unknown(ItemHash),
    /// The message is not processed.
    #[error("message {hash} is {status}")]
    Status {
        /// The message.
        hash: ItemHash,
        /// Its status.
        status: String,
    },
    /// The message is not what its hash or signature says.
    #[error("message {hash} is refused")]
    Forged {
        /// The message.
        hash: ItemHash,
        /// Why.
        #[source]
        source: Rejection,
    },
    /// Something else came for this hash.
    #[error("message {hash} was asked for and {got} was answered")]
    Other {
        /// The message.
        hash: ItemHash,
        /// The hash of what came.
        got: ItemHash,
    },
    /// The content of a message that is not inline.
    #[error("the content of message {hash} is refused: {why}")]
    Content {
        /// The message.
        hash: ItemHash,
        /// Why.
        why: String,
    },
    /// The sender may not act for the address in the content.
    #[error("message {hash} is refused: {sender} may not act for {owner}")]
    Permission {
        /// The message.
        hash: ItemHash,
        /// Who signed.
        sender: String,
        /// For whom.
        owner: String,
    },
    /// A workload names something that is no file.
    #[error("message {0} is not a STORE message")]
    NotAStore(ItemHash),
    /// This node cannot do it.
    #[error("this node cannot run {hash}")]
    Unsupported {
        /// The message.
        hash: ItemHash,
        /// Why.
        #[source]
        source: Unsupported,
    },
    /// It asks for another node.
    #[error("this node is not one for {hash}")]
    Elsewhere {
        /// The message.
        hash: ItemHash,
        /// Why.
        #[source]
        source: Elsewhere,
    },
    /// A file could not be had.
    #[error("a file of the workload is missing")]
    File(#[source] Arc<ContentError>),
    /// The cache's disk failed.
    #[error("the cache cannot be read")]
    Disk(#[source] std::io::Error),
    /// What was kept in the ledger does not parse any more.
    #[error("the message kept in the ledger is not understood")]
    Kept(#[source] serde_json::Error),
}

impl IntakeError {
    /// Whether trying again may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Ccn(_)
            | Self::Unknown(_)
            | Self::Other { .. }
            | Self::Disk(_)
            | Self::Kept(_) => true,
            Self::Status { status, .. } => status == "pending",
            Self::Elsewhere { source, .. } => *source == Elsewhere::Nameless,
            Self::File(error) => error.is_transient(),
            _ => false,
        }
    }

    /// Whether the same message may be had another time. What is not genuine is not the message: a signature is no part of
    /// what its hash says, so another answer may have the right one.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.is_transient() || matches!(self, Self::Forged { .. })
    }
}

impl Intake {
    /// Reads from `ccn`, keeps files in `cache`, and takes what may run on this `node`.
    #[must_use]
    pub fn new(ccn: impl Into<Ccns>, cache: Cache, node: Facts) -> Self {
        let ccn = ccn.into();
        Self {
            ccn,
            cache,
            under_way: UnderWay::default(),
            stores: Arc::default(),
            node: Arc::new(node),
        }
    }

    /// What this node is.
    #[must_use]
    pub fn node(&self) -> &Facts {
        &self.node
    }

    fn stores(&self) -> MutexGuard<'_, HashMap<ItemHash, StoreContent>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches and verifies a message.
    ///
    /// # Errors
    /// [`IntakeError`].
    pub async fn message(&self, hash: &ItemHash) -> Result<Verified, IntakeError> {
        let reply = self
            .ccn
            .message(hash.as_str(), |message| is_genuine(hash, message))
            .await?
            .ok_or_else(|| IntakeError::Unknown(hash.clone()))?;
        // A message about to be removed for want of funds still runs until it is.
        if !matches!(reply.status.as_str(), "processed" | "removing") {
            return Err(IntakeError::Status {
                hash: hash.clone(),
                status: reply.status,
            });
        }
        let message = reply
            .message
            .ok_or_else(|| IntakeError::Unknown(hash.clone()))?;
        self.verify(hash, message).await
    }

    /// A message's status as the core channel nodes have it, `None` when they know nothing.
    ///
    /// # Errors
    /// [`CcnError`].
    pub async fn status(&self, hash: &ItemHash) -> Result<Option<String>, CcnError> {
        let reply = self.ccn.message(hash.as_str(), |_| true).await?;
        Ok(reply.map(|reply| reply.status))
    }

    async fn verify(&self, hash: &ItemHash, message: Value) -> Result<Verified, IntakeError> {
        let forged = |source| IntakeError::Forged {
            hash: hash.clone(),
            source,
        };
        let envelope = Envelope::parse(&message).map_err(forged)?;
        if envelope.item_hash != *hash {
            return Err(IntakeError::Other {
                hash: hash.clone(),
                got: envelope.item_hash,
            });
        }
        envelope.verify_signature().map_err(forged)?;
        let (content, text) = match envelope.inline_content().map_err(forged)? {
            Some(content) => (content, None),
            None => {
                let text = self.stored_content(&envelope).await?;
                (envelope.parse_content(&text).map_err(forged)?, Some(text))
            }
        };
        if !self.is_permitted(&envelope, &content).await? {
            return Err(IntakeError::Permission {
                hash: hash.clone(),
                sender: envelope.sender,
                owner: content.address().to_owned(),
            });
        }
        let text = serde_json::to_string(&Kept {
            message,
            content: text,
            amendment: None,
            places: None,
        })
        .map_err(IntakeError::Kept)?;
        Ok(Verified {
            envelope,
            content,
            text,
            amendment: None,
            places: None,
        })
    }

    /// The content of a message that is not inline, checked against its hash.
    async fn stored_content(&self, envelope: &Envelope) -> Result<String, IntakeError> {
        let hash = &envelope.item_hash;
        let refused = |why: &str| IntakeError::Content {
            hash: hash.clone(),
            why: why.to_owned(),
        };
        if envelope.item_type != ItemType::Storage {
            return Err(refused("contents on IPFS cannot be verified by this node"));
        }
        let bytes = self
            .ccn
            .content(hash.as_str(), |bytes| ItemHash::of(bytes) == *hash)
            .await?
            .ok_or_else(|| IntakeError::Unknown(hash.clone()))?;
        let got = ItemHash::of(&bytes);
        if got != *hash {
            return Err(IntakeError::Other {
                hash: hash.clone(),
                got,
            });
        }
        String::from_utf8(bytes.into()).map_err(|_| refused("it is not text"))
    }

    /// Whether the signer may act for the content's address: they are the same, or the owner's `security` aggregate
    /// says so for this kind of message.
    async fn is_permitted(
        &self,
        envelope: &Envelope,
        content: &Content,
    ) -> Result<bool, IntakeError> {
        if envelope.sender.eq_ignore_ascii_case(content.address()) {
            return Ok(true);
        }
        let Some(security) = self.ccn.aggregate(content.address(), "security").await? else {
            return Ok(false);
        };
        Ok(delegates(&security, envelope))
    }

    async fn file(&self, reference: &Reference) -> Result<(ItemHash, Cached), IntakeError> {
        let store = self.store(reference).await?;
        let _entry = self.under_way.enter(Fetching {
            reference: reference.hash.clone(),
            file: store.item_hash.clone(),
        });
        let cached = self
            .cache
            .get(&store.item_hash)
            .await
            .map_err(IntakeError::File)?;
        Ok((reference.hash.clone(), cached))
    }

    /// What a workload still waits for: each file, and how many bytes of it are here.
    pub async fn fetching(&self, workload: &Workload) -> Vec<(Fetching, u64)> {
        let references = workload.references();
        let references: Vec<_> = references.iter().map(|one| &one.hash).collect();
        let mut found = Vec::new();
        for fetching in self.under_way.of(&references) {
            let bytes = self.cache.arrived(&fetching.file).await;
            found.push((fetching, bytes));
        }
        found
    }

    /// The files of the cache, for those who look after it.
    #[must_use]
    pub const fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Fetches everything a workload names, all at once.
    ///
    /// # Errors
    /// [`IntakeError`], the first that came.
    pub async fn resolve(&self, workload: Workload) -> Result<Resolved, IntakeError> {
        let files = try_join_all(
            workload
                .references()
                .into_iter()
                .map(|reference| self.file(reference)),
        )
        .await?;
        let mut files: BTreeMap<_, _> = files.into_iter().collect();
        for image in workload.disk_images() {
            if let Some(cached) = files.get_mut(&image.hash) {
                *cached = self.cache.raw(cached).await.map_err(IntakeError::File)?;
            }
        }
        for image in workload.squashfs_images() {
            if let Some(cached) = files.get(&image.hash) {
                self.cache
                    .squashfs(cached)
                    .await
                    .map_err(IntakeError::File)?;
            }
        }
        Ok(Resolved { workload, files })
    }
}

/// A workload out of a verified message and its amendment.
///
/// # Errors
/// [`IntakeError::Unsupported`].
pub fn workload(verified: &Verified) -> Result<Workload, IntakeError> {
    let hash = &verified.envelope.item_hash;
    let newest = verified.amendment.as_deref().unwrap_or(verified);
    let read = Workload::read(hash, &newest.content);
    let mut workload = read.map_err(|source| IntakeError::Unsupported {
        hash: hash.clone(),
        source,
    })?;
    if let Some(places) = &verified.places {
        workload.places = Places::after(places, &workload.volumes);
    }
    Ok(workload)
}

/// Whether a message is the one with this hash, signed by who it says.
fn is_genuine(hash: &ItemHash, message: &Value) -> bool {
    Envelope::parse(message).is_ok_and(|envelope| {
        envelope.item_hash == *hash
            && envelope.verify_signature().is_ok()
            && envelope.inline_content().is_ok()
    })
}

fn as_store(verified: Verified) -> Result<StoreContent, IntakeError> {
    match verified.content.body {
        Body::Store(store) => Ok(store),
        _ => Err(IntakeError::NotAStore(verified.envelope.item_hash)),
    }
}

/// Whether a `security` aggregate lets the signer publish this message: any one entry for the signer whose non-empty
/// filters all match.
#[must_use]
pub fn delegates(security: &Value, envelope: &Envelope) -> bool {
    let Some(entries) = security.get("authorizations").and_then(Value::as_array) else {
        return false;
    };
    let allows = |entry: &Value, filter: &str, word: Option<&str>| match entry
        .get(filter)
        .and_then(Value::as_array)
    {
        None => true,
        Some(words) => {
            words.is_empty()
                || words
                    .iter()
                    .any(|allowed| allowed.as_str().is_some() && allowed.as_str() == word)
        }
    };
    entries.iter().any(|entry| {
        entry
            .get("address")
            .and_then(Value::as_str)
            .is_some_and(|address| address.eq_ignore_ascii_case(&envelope.sender))
            && entry
                .get("chain")
                .and_then(Value::as_str)
                .is_none_or(|chain| chain == envelope.chain.as_str())
            && allows(entry, "channels", envelope.channel.as_deref())
            && allows(entry, "types", Some(envelope.message_type.as_str()))
    })
}

#[cfg(test)]
mod tests;
