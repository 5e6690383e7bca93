//! Base58 texts of a known length, plain and with the checksum that Tezos shares with Bitcoin.

use sha2::{Digest, Sha256};

use super::Flaw;

/// Length of the checksum, bytes.
const CHECKSUM: usize = 4;

/// Longest of Tezos' keys and signatures, with prefix and checksum, bytes.
const LONGEST: usize = 73;

/// Exactly `N` bytes. Decoding costs the length of the text times `N`, so a stranger's long text is no burden.
pub(super) fn decode<const N: usize>(text: &str) -> Result<[u8; N], Flaw> {
    let mut bytes = [0; N];
    if decode_into(text, &mut bytes, N)? == N {
        Ok(bytes)
    } else {
        Err(Flaw::Length { expected: N })
    }
}

/// The `N` bytes between `prefix` and the checksum, which is the start of the double sha256 of both.
pub(super) fn decode_check<const N: usize>(text: &str, prefix: &[u8]) -> Result<[u8; N], Flaw> {
    let mut buffer = [0; LONGEST];
    let length = decode_into(text, &mut buffer, N)?;
    let wrong_length = Flaw::Length { expected: N };
    let Some((body, checksum)) = buffer[..length].split_last_chunk::<CHECKSUM>() else {
        return Err(wrong_length);
    };
    if Sha256::digest(Sha256::digest(body))[..CHECKSUM] != *checksum {
        return Err(Flaw::Checksum);
    }
    body.strip_prefix(prefix)
        .and_then(|payload| payload.try_into().ok())
        .ok_or(wrong_length)
}

/// Text of `prefix`, `payload` and checksum.
pub(super) fn encode_check(prefix: &[u8], payload: &[u8]) -> String {
    let mut body = [prefix, payload].concat();
    let checksum = Sha256::digest(Sha256::digest(&body));
    body.extend_from_slice(&checksum[..CHECKSUM]);
    bs58::encode(body).into_string()
}

fn decode_into(text: &str, buffer: &mut [u8], expected: usize) -> Result<usize, Flaw> {
    bs58::decode(text)
        .onto(buffer)
        .map_err(|error| match error {
            bs58::decode::Error::BufferTooSmall => Flaw::Length { expected },
            _ => Flaw::Encoding("base58"),
        })
}
