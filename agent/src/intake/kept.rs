//! Verified messages as the ledger keeps them: what runs is known without asking anybody.

use aleph_message::{Envelope, ItemHash};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::workload::{Places, Workload};
use super::{Intake, IntakeError, Verified, workload};

/// How a message is kept in the ledger.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) message: Value,
    /// The content of a message that is not inline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<String>,
    /// Its newest amendment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) amendment: Option<Box<Kept>>,
    /// Which disk each volume is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) places: Option<Places>,
}

impl Intake {
    /// Reads again what was verified before.
    ///
    /// # Errors
    /// [`IntakeError::Kept`], [`IntakeError::Forged`].
    pub fn kept(hash: &ItemHash, text: &str) -> Result<Verified, IntakeError> {
        let kept: Kept = serde_json::from_str(text).map_err(IntakeError::Kept)?;
        let amendment = match &kept.amendment {
            Some(amendment) => Some(Box::new(read(hash, amendment)?)),
            None => None,
        };
        Ok(Verified {
            amendment,
            text: text.to_owned(),
            places: kept.places.clone(),
            ..read(hash, &kept)?
        })
    }

    /// The workload of a version of a message, which is to go on where `before` was, if there was one; and that version with
    /// what is to be remembered of its disks.
    ///
    /// # Errors
    /// [`IntakeError::Unsupported`], [`IntakeError::Elsewhere`].
    pub fn runnable(
        &self,
        version: Verified,
        before: Option<&Workload>,
    ) -> Result<(Workload, Verified), IntakeError> {
        let mut next = workload(&version)?;
        let hash = || version.envelope.item_hash.clone();
        let met = next.requirements.unmet(self.node());
        met.map_err(|source| IntakeError::Elsewhere {
            hash: hash(),
            source,
        })?;
        if let Some(before) = before {
            let taken = next.takes_over(before);
            taken.map_err(|source| IntakeError::Unsupported {
                hash: hash(),
                source,
            })?;
        }
        let kept: Kept = serde_json::from_str(&version.text).map_err(IntakeError::Kept)?;
        let kept = Kept {
            places: Some(next.places.clone()),
            ..kept
        };
        let version = Verified {
            text: serde_json::to_string(&kept).map_err(IntakeError::Kept)?,
            places: kept.places,
            ..version
        };
        Ok((next, version))
    }
}

/// What was kept of one message.
fn read(hash: &ItemHash, kept: &Kept) -> Result<Verified, IntakeError> {
    let forged = |source| IntakeError::Forged {
        hash: hash.clone(),
        source,
    };
    let envelope = Envelope::parse(&kept.message).map_err(forged)?;
    let content = match (envelope.inline_content().map_err(forged)?, &kept.content) {
        (Some(content), _) => content,
        (None, Some(text)) => envelope.parse_content(text).map_err(forged)?,
        (None, None) => {
            return Err(IntakeError::Content {
                hash: hash.clone(),
                why: "it was not kept".to_owned(),
            });
        }
    };
    Ok(Verified {
        envelope,
        content,
        text: serde_json::to_string(kept).map_err(IntakeError::Kept)?,
        amendment: None,
        places: None,
    })
}
