//! Addresses that Cosmos and Avalanche share: bech32 (BIP-173) of the ripemd160 of the sha256 of a secp256k1 key.

use bech32::{Bech32, Hrp};
use ripemd::Ripemd160;
use sha2::{Digest, Sha256};

use super::{Flaw, SignatureError};

/// ripemd160 of sha256, which NULS uses too.
pub(super) fn hash160(public_key: &[u8]) -> [u8; 20] {
    Ripemd160::digest(Sha256::digest(public_key)).into()
}

/// The address of the key in 33 bytes (SEC 1, compressed) after `prefix`, the part before the `1`.
pub(super) fn encode(prefix: &str, public_key: &[u8; 33]) -> Result<String, SignatureError> {
    let malformed = || SignatureError::malformed("sender", Flaw::Encoding("bech32"));
    let prefix = Hrp::parse(prefix).map_err(|_| malformed())?;
    bech32::encode::<Bech32>(prefix, &hash160(public_key)).map_err(|_| malformed())
}
