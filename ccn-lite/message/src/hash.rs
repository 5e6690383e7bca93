//! Item hashes: the sha256 of a text, or the CID of an IPFS object.

use sha2::{Digest, Sha256};

named_values! {
    /// Where the content of an item is.
    ItemType { Inline = "inline", Storage = "storage", Ipfs = "ipfs" }
}

/// Text that is no item hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Could not determine hash type: '{0}'")]
pub struct UnknownHash(pub String);

/// A checked item hash: 64 lowercase hex digits, a CIDv0 (`Qm…`) or a dag-pb CIDv1 (`bafy…`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemHash(Box<str>);

impl ItemHash {
    /// The storage hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_sha256(Sha256::digest(bytes).into())
    }

    /// The storage hash with these 32 bytes.
    pub fn from_sha256(digest: [u8; 32]) -> Self {
        Self(hex::encode(digest).into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// [`ItemType::Storage`] or [`ItemType::Ipfs`], told from the text.
    pub fn item_type(&self) -> ItemType {
        if self.0.len() == 64 {
            ItemType::Storage
        } else {
            ItemType::Ipfs
        }
    }

    /// Whether this is a sha256.
    pub fn is_storage(&self) -> bool {
        self.item_type() == ItemType::Storage
    }

    /// The 32 bytes of a storage hash; none for a CID.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        if !self.is_storage() {
            return None;
        }
        let mut digest = [0; 32];
        hex::decode_to_slice(self.as_str(), &mut digest).ok()?;
        Some(digest)
    }

    /// The DNS label of a storage hash (RFC 4648 base32, lower case, no padding: 52 characters); none for a CID.
    pub fn host_label(&self) -> Option<String> {
        let digest = self.sha256()?;
        Some(
            data_encoding::BASE32_NOPAD
                .encode(&digest)
                .to_ascii_lowercase(),
        )
    }

    /// The storage hash a DNS label stands for. Labels are compared without regard to case.
    pub fn from_host_label(label: &str) -> Option<Self> {
        if label.len() != 52 {
            return None;
        }
        let digest = data_encoding::BASE32_NOPAD
            .decode(label.to_ascii_uppercase().as_bytes())
            .ok()?;
        Some(Self::from_sha256(digest.try_into().ok()?))
    }
}

impl std::str::FromStr for ItemHash {
    type Err = UnknownHash;

    fn from_str(text: &str) -> Result<Self, UnknownHash> {
        let is_base58 =
            |c: u8| c.is_ascii_alphanumeric() && !matches!(c, b'0' | b'O' | b'I' | b'l');
        let is_base32 = |c: u8| c.is_ascii_lowercase() || matches!(c, b'2'..=b'7');
        let is_hex = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
        let known = match text.len() {
            44..=46 => text
                .strip_prefix("Qm")
                .is_some_and(|rest| rest.bytes().all(is_base58)),
            59 => text
                .strip_prefix("bafy")
                .is_some_and(|rest| rest.bytes().all(is_base32)),
            64 => text.bytes().all(is_hex),
            _ => false,
        };
        if known {
            Ok(Self(text.into()))
        } else {
            Err(UnknownHash(text.chars().take(128).collect()))
        }
    }
}

impl TryFrom<&str> for ItemHash {
    type Error = UnknownHash;
    fn try_from(text: &str) -> Result<Self, UnknownHash> {
        text.parse()
    }
}

impl std::fmt::Display for ItemHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ItemHash {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ItemHash {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl serde::Serialize for ItemHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for ItemHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_lower_case_hex_and_known_cid_prefixes_are_hashes() {
        let hex = "a".repeat(64);
        assert_eq!(
            hex.parse::<ItemHash>().unwrap().item_type(),
            ItemType::Storage
        );
        assert!("A".repeat(64).parse::<ItemHash>().is_err());
        assert!("g".repeat(64).parse::<ItemHash>().is_err());
        assert!("a".repeat(63).parse::<ItemHash>().is_err());
        let v0 = "QmYULJoNGPDmoRq4WNWTDTUvJGJv1hosox8H6vVd1kCsY8";
        assert_eq!(v0.parse::<ItemHash>().unwrap().item_type(), ItemType::Ipfs);
        assert!(v0.replace('Y', "0").parse::<ItemHash>().is_err());
        let v1 = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";
        assert_eq!(v1.parse::<ItemHash>().unwrap().item_type(), ItemType::Ipfs);
        assert!(v1.replace("bafy", "bafk").parse::<ItemHash>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_kept_as_it_is(text in "\\PC{0,70}") {
            if let Ok(hash) = text.parse::<ItemHash>() {
                prop_assert_eq!(hash.as_str(), text);
            }
        }

        #[test]
        fn host_labels_round_trip(digest in any::<[u8; 32]>()) {
            let hash = ItemHash::from_sha256(digest);
            let label = hash.host_label().unwrap();
            prop_assert_eq!(label.len(), 52);
            prop_assert_eq!(ItemHash::from_host_label(&label), Some(hash.clone()));
            prop_assert_eq!(ItemHash::from_host_label(&label.to_uppercase()), Some(hash));
        }

        #[test]
        fn any_label_is_safe_to_decode(label in "\\PC{0,60}") {
            let _ = ItemHash::from_host_label(&label);
        }
    }
}
