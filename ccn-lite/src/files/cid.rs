//! CIDs: names of blocks by what is in them. Only what files and directories are made of: raw and dag-pb blocks under
//! their sha2-256, as CIDv0 (`Qm…`) and CIDv1 (`bafk…`, `bafy…`).

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// Multihash prefix: sha2-256, 32 bytes.
const SHA2_256: [u8; 2] = [0x12, 0x20];
/// Longest binary form.
const MAX_BYTES: usize = 36;

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    /// Bytes of a file.
    Raw,
    /// A node of a tree.
    DagPb,
}

impl Codec {
    const fn code(self) -> u8 {
        match self {
            Self::Raw => 0x55,
            Self::DagPb => 0x70,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Raw, Self::DagPb]
            .into_iter()
            .find(|codec| codec.code() == code)
    }
}

/// Version of a CID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// A bare multihash; always dag-pb.
    V0,
    /// Version, codec and multihash.
    V1,
}

/// Text or bytes that are no CID this node knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a CID of a raw or dag-pb block with sha2-256")]
pub struct UnknownCid;

/// The name of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cid {
    version: Version,
    codec: Codec,
    digest: [u8; 32],
}

impl Cid {
    /// The name of `block`. Raw blocks have no CIDv0 and get a CIDv1.
    pub fn of(version: Version, codec: Codec, block: &[u8]) -> Self {
        Self {
            version: match codec {
                Codec::Raw => Version::V1,
                Codec::DagPb => version,
            },
            codec,
            digest: Sha256::digest(block).into(),
        }
    }

    /// What the block holds.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The sha2-256 of the block.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Whether `block` is the block named.
    pub fn names(&self, block: &[u8]) -> bool {
        Sha256::digest(block)[..] == self.digest
    }

    /// The binary form, as in links and archives.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAX_BYTES);
        if self.version == Version::V1 {
            bytes.extend([1, self.codec.code()]);
        }
        bytes.extend(SHA2_256);
        bytes.extend(self.digest);
        bytes
    }

    /// Reads the binary form at the start of `bytes`; returns how long it is, too.
    ///
    /// # Errors
    /// When there is none, or none that this node knows.
    pub fn from_prefix(bytes: &[u8]) -> Result<(Self, usize), UnknownCid> {
        let (version, codec, rest) = match bytes {
            [0x12, ..] => (Version::V0, Codec::DagPb, bytes),
            [1, code, rest @ ..] => (
                Version::V1,
                Codec::from_code(*code).ok_or(UnknownCid)?,
                rest,
            ),
            _ => return Err(UnknownCid),
        };
        let digest = rest
            .strip_prefix(&SHA2_256)
            .and_then(|rest| rest.first_chunk::<32>())
            .ok_or(UnknownCid)?;
        let cid = Self {
            version,
            codec,
            digest: *digest,
        };
        Ok((cid, bytes.len() - rest.len() + SHA2_256.len() + 32))
    }

    /// Reads a binary form with nothing after it.
    ///
    /// # Errors
    /// When `bytes` are anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, UnknownCid> {
        match Self::from_prefix(bytes)? {
            (cid, length) if length == bytes.len() => Ok(cid),
            _ => Err(UnknownCid),
        }
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Version::V0 => f.write_str(&bs58::encode(self.to_bytes()).into_string()),
            Version::V1 => {
                let text = data_encoding::BASE32_NOPAD.encode(&self.to_bytes());
                write!(f, "b{}", text.to_ascii_lowercase())
            }
        }
    }
}

impl FromStr for Cid {
    type Err = UnknownCid;

    fn from_str(text: &str) -> Result<Self, UnknownCid> {
        let bytes = if text.starts_with("Qm") && text.len() == 46 {
            bs58::decode(text).into_vec().map_err(|_| UnknownCid)?
        } else if let Some(rest) = text.strip_prefix('b')
            && text.len() <= 64
            && !rest.bytes().any(|c| c.is_ascii_uppercase())
        {
            data_encoding::BASE32_NOPAD
                .decode(rest.to_ascii_uppercase().as_bytes())
                .map_err(|_| UnknownCid)?
        } else {
            return Err(UnknownCid);
        };
        let cid = Self::from_bytes(&bytes)?;
        // One name, one text.
        if cid.to_string() == text {
            Ok(cid)
        } else {
            Err(UnknownCid)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_forms_are_those_of_the_network() {
        let empty_directory = [0x0a, 0x02, 0x08, 0x01];
        let of = |version, codec, block: &[u8]| Cid::of(version, codec, block).to_string();
        assert_eq!(
            of(Version::V0, Codec::DagPb, &empty_directory),
            "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"
        );
        assert_eq!(
            of(Version::V1, Codec::DagPb, &empty_directory),
            "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
        );
        assert_eq!(
            of(Version::V0, Codec::Raw, b""),
            "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
        );
    }

    proptest! {
        #[test]
        fn every_form_of_a_name_reads_back(block in any::<Vec<u8>>(), v1 in any::<bool>(), raw in any::<bool>()) {
            let version = if v1 { Version::V1 } else { Version::V0 };
            let cid = Cid::of(version, if raw { Codec::Raw } else { Codec::DagPb }, &block);
            prop_assert_eq!(Cid::from_bytes(&cid.to_bytes()), Ok(cid));
            prop_assert_eq!(cid.to_string().parse(), Ok(cid));
            prop_assert!(cid.names(&block));
        }

        #[test]
        fn any_bytes_and_any_text_are_refused_or_kept(bytes in any::<Vec<u8>>(), text in "(Qm|b)?\\PC{0,64}") {
            if let Ok(cid) = Cid::from_bytes(&bytes) {
                prop_assert_eq!(cid.to_bytes(), bytes);
            }
            if let Ok(cid) = text.parse::<Cid>() {
                prop_assert_eq!(cid.to_string(), text);
            }
        }
    }
}
