//! `NULS` and `NULS2`: secp256k1 over the sha256 of a message in the manner of EIP-191, with an address that is the
//! number of a chain and the hash of a key in base58.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secp256k1::ecdsa::Signature;
use secp256k1::{Message, PublicKey, SECP256K1};
use sha2::{Digest, Sha256};

use super::bech32_address::hash160;
use super::{Claim, Flaw, SignatureError, base58, recoverable};

const FIELD: &str = "signature";

/// Before every message that is signed. The first byte is the length of Bitcoin's line, not of this one.
const MAGIC: &[u8] = b"\x18NULS Signed Message:\n";

/// The kind of address that belongs to a key.
const KEY_ADDRESS: u8 = 1;

/// The kind of key, the only one there is.
const SECP256K1_KEY: u8 = 0;

/// Number and prefix of the chains of `NULS2`. The letter tells where a prefix of that length ends.
const NETWORKS: [(i16, &str); 2] = [(1, "NULSd"), (2, "tNULSe")];

/// `NULS`: the signature is, in hex, the key and a DER signature, each behind a byte with its length, and a byte between
/// them with the kind of key.
pub(super) fn verify_struct(claim: &Claim<'_>) -> Result<(), SignatureError> {
    let malformed = |flaw| SignatureError::malformed(FIELD, flaw);
    let bytes =
        hex::decode(claim.signature).map_err(|_| malformed(Flaw::Encoding("hexadecimal")))?;
    let (key, der) = split_struct(&bytes).ok_or_else(|| {
        let expected = "a public key and a signature";
        malformed(Flaw::Unsupported { expected })
    })?;
    let sender: [u8; 24] =
        base58::decode(claim.sender).map_err(|flaw| SignatureError::malformed("sender", flaw))?;
    claim.expect_signer(address(i16::from_le_bytes([sender[0], sender[1]]), key))?;

    let curve = |_| malformed(Flaw::Curve("secp256k1"));
    let key = PublicKey::from_slice(key).map_err(curve)?;
    let signature = Signature::from_der(der).map_err(curve)?;
    let message = python_bytes(&with_length(claim.buffer));
    let digest = Sha256::new()
        .chain_update(MAGIC)
        .chain_update(message)
        .finalize();
    SECP256K1
        .verify_ecdsa(Message::from_digest(digest.into()), &signature, &key)
        .map_err(|_| SignatureError::Forged { field: FIELD })
}

/// `NULS2`: the signature is, in base64, a byte that is 27 more than the number of the key, 0 to 3, then r and s.
pub(super) fn verify_recoverable(claim: &Claim<'_>) -> Result<(), SignatureError> {
    let network = NETWORKS
        .iter()
        .find(|(_, prefix)| claim.sender.starts_with(prefix));
    let Some((chain, prefix)) = network else {
        let expected = "an address beginning with NULSd or tNULSe";
        return Err(SignatureError::malformed(
            "sender",
            Flaw::Unsupported { expected },
        ));
    };
    let malformed = |flaw| SignatureError::malformed(FIELD, flaw);
    let bytes = STANDARD
        .decode(claim.signature)
        .map_err(|_| malformed(Flaw::Encoding("base64")))?;
    let Ok([recovery, compact @ ..]) = <[u8; 65]>::try_from(bytes) else {
        return Err(malformed(Flaw::Length { expected: 65 }));
    };
    if !(27..=30).contains(&recovery) {
        return Err(malformed(Flaw::RecoveryByte(recovery)));
    }
    let digest = Sha256::new()
        .chain_update(MAGIC)
        .chain_update(with_length(claim.buffer))
        .finalize();
    let key = recoverable::recover(digest.into(), &compact, recovery - 27)
        .map_err(|_| malformed(Flaw::Curve("secp256k1")))?;
    claim.expect_signer(format!("{prefix}{}", address(*chain, &key.serialize())))
}

/// The key and the signature, when nothing else is there.
fn split_struct(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (key, rest) = split_field(bytes)?;
    let (&SECP256K1_KEY, rest) = rest.split_first()? else {
        return None;
    };
    let (der, rest) = split_field(rest)?;
    rest.is_empty().then_some((key, der))
}

/// The bytes behind a length. From 253 on a length has more bytes; no key and no signature is that long.
fn split_field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    (length < 253)
        .then(|| rest.split_at_checked(length.into()))
        .flatten()
}

/// The address of a key on a chain, without prefix. At its end is the exclusive or of all its other bytes.
fn address(chain: i16, public_key: &[u8]) -> String {
    let mut bytes = chain.to_le_bytes().to_vec();
    bytes.push(KEY_ADDRESS);
    bytes.extend_from_slice(&hash160(public_key));
    bytes.push(bytes.iter().fold(0, |all, byte| all ^ byte));
    bs58::encode(bytes).into_string()
}

/// The buffer behind its length, in one byte, or in two, little-endian, behind the byte 253.
fn with_length(buffer: &str) -> Vec<u8> {
    // Senders are short, so a buffer has some hundreds of bytes.
    let length = buffer.len() as u16;
    let mut bytes = match length {
        0..253 => vec![length as u8],
        _ => {
            let [low, high] = length.to_le_bytes();
            vec![253, low, high]
        }
    };
    bytes.extend_from_slice(buffer.as_bytes());
    bytes
}

/// Bytes in the notation of Python, `b'\x72NULS\\n…'`: the clients of `NULS` sign the notation and not the bytes.
fn python_bytes(bytes: &[u8]) -> String {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') {
        '"'
    } else {
        '\''
    };
    let mut text = format!("b{quote}");
    for byte in bytes {
        match char::from(*byte) {
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\\' => text.push_str("\\\\"),
            character if character == quote => text.extend(['\\', quote]),
            character @ ' '..='~' => text.push(character),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text.push(quote);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_python_does() {
        for (bytes, text) in [
            (&b""[..], "b''"),
            (b"\x72NULS\n1", "b'rNULS\\n1'"),
            (
                b"\x00\t\r\x1f ~\x7f\x80\xff",
                "b'\\x00\\t\\r\\x1f ~\\x7f\\x80\\xff'",
            ),
            (b"\\", "b'\\\\'"),
            (b"it's", "b\"it's\""),
            (b"\"it's\"", "b'\"it\\'s\"'"),
        ] {
            assert_eq!(python_bytes(bytes), text);
        }
    }

    #[test]
    fn lengths_from_253_on_have_three_bytes() {
        assert_eq!(with_length(&"a".repeat(252))[..2], [252, b'a']);
        assert_eq!(with_length(&"a".repeat(253))[..4], [253, 253, 0, b'a']);
    }
}
