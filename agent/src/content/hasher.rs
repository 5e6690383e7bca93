//! The hash function a file's name calls for.

use sha2::{Digest as _, Sha256};

use super::ContentError;

/// Collects a file's bytes.
pub(super) enum Hasher {
    /// 64 hexadecimal digits.
    Sha256(Box<Sha256>),
    /// An IPFS content identifier.
    Cid(Box<aleph_cid::verify::Hasher>),
}

impl Hasher {
    /// The one for the file of this name.
    ///
    /// # Errors
    /// [`ContentError::Unverifiable`].
    pub fn for_file(key: &str) -> Result<Self, ContentError> {
        if key.len() == 64 {
            return Ok(Self::Sha256(Box::default()));
        }
        let unverifiable = |why: String| ContentError::Unverifiable {
            hash: key.to_owned(),
            why,
        };
        let cid =
            aleph_cid::cid::Cid::try_from(key).map_err(|error| unverifiable(error.to_string()))?;
        let hasher = aleph_cid::verify::Hasher::for_expected(&cid)
            .map_err(|error| unverifiable(error.to_string()))?;
        Ok(Self::Cid(Box::new(hasher)))
    }

    /// The next bytes.
    pub fn update(&mut self, data: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(data),
            Self::Cid(hasher) => hasher.update(data),
        }
    }

    /// The name that the bytes deserve.
    pub fn finish(self) -> String {
        match self {
            Self::Sha256(hasher) => hex::encode(hasher.finalize()),
            Self::Cid(hasher) => hasher.finalize().as_str().to_owned(),
        }
    }
}
