//! Chains with Ethereum's virtual machine: secp256k1 keys with Ethereum addresses (EIP-55) and personal messages
//! (EIP-191). A signature is r, s and v in hex, `0x` optional; the sender is the address in any case.

use secp256k1::{Message, PublicKey, SECP256K1, SecretKey};
use sha3::{Digest, Keccak256};

use super::{Claim, Flaw, SignatureError, recoverable};

/// A key or signature that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// Not hexadecimal digits.
    #[error("the {what} is not hexadecimal")]
    Hex {
        /// Which value.
        what: &'static str,
        /// The cause.
        #[source]
        source: hex::FromHexError,
    },
    /// Wrong number of bytes.
    #[error("the {what} has {actual} bytes, not {expected}")]
    Length {
        /// Which value.
        what: &'static str,
        /// Bytes needed.
        expected: usize,
        /// Bytes given.
        actual: usize,
    },
    /// The recovery byte is none of 0, 1, 27, 28 or at least 35.
    #[error("the signature has the recovery byte {0}")]
    RecoveryByte(u8),
    /// Outside of the curve's order, or no public key belongs to it.
    #[error("the {what} is not valid on secp256k1")]
    Curve {
        /// Which value.
        what: &'static str,
        /// The cause.
        #[source]
        source: secp256k1::Error,
    },
}

/// A secp256k1 key pair.
#[derive(Clone)]
pub struct Keypair {
    secret: SecretKey,
    public: PublicKey,
}

impl Keypair {
    /// A new random key.
    pub fn generate() -> Self {
        loop {
            // Out of 2^256 values all but about 2^128 are keys.
            if let Ok(secret) = SecretKey::from_byte_array(rand::random()) {
                return Self::from_secret(secret);
            }
        }
    }

    /// The key with these 32 bytes in hex, `0x` optional, surrounding blanks ignored.
    ///
    /// # Errors
    /// When the text is not a key.
    pub fn from_hex(text: &str) -> Result<Self, SigningError> {
        let bytes = decode_hex(text.trim(), "key")?;
        let actual = bytes.len();
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| SigningError::Length {
            what: "key",
            expected: 32,
            actual,
        })?;
        let secret = SecretKey::from_byte_array(bytes).map_err(|source| SigningError::Curve {
            what: "key",
            source,
        })?;
        Ok(Self::from_secret(secret))
    }

    fn from_secret(secret: SecretKey) -> Self {
        Self {
            public: secret.public_key(SECP256K1),
            secret,
        }
    }

    /// The secret as 64 hex digits. Write it only where the key lives.
    pub fn to_secret_hex(&self) -> String {
        hex::encode(self.secret.secret_bytes())
    }

    /// The address, checksummed (EIP-55).
    pub fn address(&self) -> String {
        address_of(&self.public)
    }

    /// Signs `message` as a personal message (EIP-191): `0x`, r, s and v (27 or 28) in hex.
    ///
    /// # Errors
    /// None in practice; kept so that callers need not assume so.
    pub fn sign_eip191(&self, message: &[u8]) -> Result<String, SigningError> {
        let digest = Message::from_digest(eip191_digest(message));
        let (recovery, compact) = SECP256K1
            .sign_ecdsa_recoverable(digest, &self.secret)
            .serialize_compact();
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&compact);
        bytes[64] = u8::try_from(i32::from(recovery))
            .map_err(|_| SigningError::RecoveryByte(u8::MAX))?
            + 27;
        Ok(format!("0x{}", hex::encode(bytes)))
    }
}

impl std::fmt::Debug for Keypair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keypair({})", self.address())
    }
}

/// The checksummed address that signed `message` as a personal message (EIP-191).
///
/// # Errors
/// When `signature` is not 65 bytes in hex (`0x` optional) that recover to a public key.
pub fn recover_eip191(message: &[u8], signature: &str) -> Result<String, SigningError> {
    let bytes = decode_hex(signature, "signature")?;
    let actual = bytes.len();
    let Ok([compact @ .., v]) = <[u8; 65]>::try_from(bytes) else {
        return Err(SigningError::Length {
            what: "signature",
            expected: 65,
            actual,
        });
    };
    let parity = match v {
        v @ (0 | 1) => v,
        v @ (27 | 28) => v - 27,
        // EIP-155: v = 35 + 2 * chain id + parity.
        v @ 35.. => (v - 35) % 2,
        v => return Err(SigningError::RecoveryByte(v)),
    };
    let public =
        recoverable::recover(eip191_digest(message), &compact, parity).map_err(|source| {
            SigningError::Curve {
                what: "signature",
                source,
            }
        })?;
    Ok(address_of(&public))
}

pub(super) fn verify(claim: &Claim<'_>) -> Result<(), SignatureError> {
    let signer = recover_eip191(claim.buffer.as_bytes(), claim.signature).map_err(|error| {
        let flaw = match error {
            SigningError::Hex { .. } => Flaw::Encoding("hexadecimal"),
            SigningError::Length { expected, .. } => Flaw::Length { expected },
            SigningError::RecoveryByte(v) => Flaw::RecoveryByte(v),
            SigningError::Curve { .. } => Flaw::Curve("secp256k1"),
        };
        SignatureError::malformed("signature", flaw)
    })?;
    if signer.eq_ignore_ascii_case(claim.sender) {
        Ok(())
    } else {
        Err(SignatureError::OtherSigner { signer })
    }
}

/// The EIP-55 spelling of an address in hex; none when it is not `0x` and 40 digits.
pub fn checksum_address(address: &str) -> Option<String> {
    let digits = address.strip_prefix("0x")?;
    let mut bytes = [0; 20];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(checksum(&bytes))
}

fn address_of(public: &PublicKey) -> String {
    let point = public.serialize_uncompressed();
    let digest = Keccak256::digest(&point[1..]);
    let mut address = [0; 20];
    address.copy_from_slice(&digest[12..]);
    checksum(&address)
}

fn checksum(address: &[u8; 20]) -> String {
    let digits = hex::encode(address);
    let digest = Keccak256::digest(digits.as_bytes());
    let spelled = digits.char_indices().map(|(index, digit)| {
        let nibble = if index % 2 == 0 {
            digest[index / 2] >> 4
        } else {
            digest[index / 2] & 15
        };
        if nibble >= 8 {
            digit.to_ascii_uppercase()
        } else {
            digit
        }
    });
    "0x".chars().chain(spelled).collect()
}

fn eip191_digest(message: &[u8]) -> [u8; 32] {
    let mut hasher = Keccak256::new();
    hasher.update(format!("\x19Ethereum Signed Message:\n{}", message.len()));
    hasher.update(message);
    hasher.finalize().into()
}

pub(crate) fn decode_hex(text: &str, what: &'static str) -> Result<Vec<u8>, SigningError> {
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .unwrap_or(text);
    hex::decode(digits).map_err(|source| SigningError::Hex { what, source })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_development_key_has_its_known_address() {
        let key =
            Keypair::from_hex("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
                .unwrap();
        assert_eq!(key.address(), "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
        assert_eq!(
            checksum_address(&key.address().to_lowercase()),
            Some(key.address())
        );
    }

    #[test]
    fn the_secret_is_not_in_the_debug_text() {
        let key = Keypair::generate();
        assert!(!format!("{key:?}").contains(&key.to_secret_hex()));
    }

    proptest! {
        #[test]
        fn a_signature_recovers_to_its_signer_with_every_spelling_of_v(
            message in any::<Vec<u8>>(), upper in any::<bool>()
        ) {
            let key = Keypair::generate();
            let signature = key.sign_eip191(&message).unwrap();
            prop_assert_eq!(recover_eip191(&message, &signature).unwrap(), key.address());
            let mut bytes = hex::decode(&signature[2..]).unwrap();
            bytes[64] -= 27;
            let text = if upper { hex::encode_upper(&bytes) } else { hex::encode(&bytes) };
            prop_assert_eq!(recover_eip191(&message, &text).unwrap(), key.address());
            bytes[64] += 37;
            prop_assert_eq!(recover_eip191(&message, &hex::encode(&bytes)).unwrap(), key.address());
        }

        #[test]
        fn any_signature_text_is_safe(signature in "(0x)?[0-9a-fA-F]{0,140}") {
            let _ = recover_eip191(b"message", &signature);
        }
    }
}
