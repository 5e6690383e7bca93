//! What came after a message: the newest file behind a reference, the newest version of a program or an instance. Lists
//! made by the other side are hints: each message in them is verified here, and what does not belong is passed over.

use aleph_message::{Content, ItemHash, StoreContent};
use serde_json::Value;

use super::workload::Reference;
use super::{Intake, IntakeError, Kept, Verified, as_store};

impl Intake {
    /// The STORE message behind a reference, or its newest amendment by the same owner when that is meant.
    pub(super) async fn store(&self, reference: &Reference) -> Result<StoreContent, IntakeError> {
        let original = as_store(self.message(&reference.hash).await?)?;
        if !reference.use_latest {
            return Ok(original);
        }
        let owner = original.base.address.as_str();
        for message in self
            .ccn
            .store_amendments(reference.hash.as_str(), owner)
            .await?
        {
            let Some(verified) = self.listed(message).await? else {
                continue;
            };
            let hash = verified.envelope.item_hash.clone();
            match as_store(verified) {
                Ok(store)
                    if store.base.address == owner
                        && store.reference.as_deref() == Some(reference.hash.as_str()) =>
                {
                    return Ok(store);
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(amendment = %hash, "passed over: {}", crate::chain(&error));
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

    /// A program's or an instance's message with the newest amendment that its owner has made: one of the same type, for
    /// the same address, whose `replaces` names it. Without one, and for a message that does not allow any
    /// (`allow_amend`), the message as it was first.
    ///
    /// # Errors
    /// [`IntakeError`].
    pub async fn newest(&self, message: Verified) -> Result<Verified, IntakeError> {
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
            })
        };
        let executable = message.content.executable();
        if !executable.is_some_and(|executable| executable.allow_amend) {
            return with(None);
        }
        let (owner, kind) = (message.content.address(), message.envelope.message_type);
        let listed = self
            .ccn
            .amendments(kind.as_str(), hash.as_str(), owner)
            .await?;
        for candidate in listed {
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
    async fn listed(&self, message: Value) -> Result<Option<Verified>, IntakeError> {
        let hash = message.get("item_hash").and_then(Value::as_str);
        let Some(hash) = hash.and_then(|hash| hash.parse::<ItemHash>().ok()) else {
            return Ok(None);
        };
        match self.verify(&hash, message).await {
            Ok(verified) => Ok(Some(verified)),
            Err(error) if error.is_transient() => Err(error),
            Err(error) => {
                tracing::warn!(amendment = %hash, "passed over: {}", crate::chain(&error));
                Ok(None)
            }
        }
    }
}

fn is_amendment(content: &Content, original: &ItemHash) -> bool {
    let replaced = content
        .executable()
        .and_then(|executable| executable.replaces.as_deref());
    replaced == Some(original.as_str())
}
