//! Signatures: a message proves its sender with the keys and the encodings of its chain.
//!
//! One file for each family of chains, and one for each encoding that families share. Comes in: the text of a
//! signature and what it should be about. Goes out: nothing, or a [`SignatureError`] that names the field.

mod avalanche;
mod base58;
mod bech32_address;
mod cosmos;
mod error;
mod evm;
mod json;
mod nuls;
mod recoverable;
mod solana;
mod ss58;
mod substrate;
mod tezos;

pub use error::{Flaw, SignatureError};
pub(crate) use evm::decode_hex;
pub use evm::{Keypair, SigningError, checksum_address, recover_eip191};
pub use solana::verify_ed25519;

use crate::{Chain, Scheme};

/// Longest signature that is looked at, in bytes of text. The longest that wallets write, JSON with a key, a signature
/// and the address of an application, have some hundreds.
pub const MAX_SIGNATURE_BYTES: usize = 4096;

/// A signature and what it should prove.
pub(crate) struct Claim<'a> {
    pub(crate) chain: Chain,
    pub(crate) sender: &'a str,
    /// Chain, sender, type and hash, each on its line.
    pub(crate) buffer: &'a str,
    /// Unix seconds; only some wallets of Tezos sign it.
    pub(crate) time: f64,
    pub(crate) signature: &'a str,
}

impl Claim<'_> {
    /// Checks that the sender signed.
    pub(crate) fn verify(&self) -> Result<(), SignatureError> {
        if self.signature.is_empty() {
            return Err(SignatureError::Missing);
        }
        if self.signature.len() > MAX_SIGNATURE_BYTES {
            let flaw = Flaw::TooLong {
                max: MAX_SIGNATURE_BYTES,
            };
            return Err(SignatureError::malformed("signature", flaw));
        }
        match self.chain.scheme() {
            Scheme::Eip191 => evm::verify(self),
            Scheme::Ed25519 => solana::verify(self),
            Scheme::Tezos => tezos::verify(self),
            Scheme::Sr25519 => substrate::verify(self),
            Scheme::Amino => cosmos::verify(self),
            Scheme::Avalanche => avalanche::verify(self),
            Scheme::NulsStruct => nuls::verify_struct(self),
            Scheme::NulsRecoverable => nuls::verify_recoverable(self),
            Scheme::Unsupported => Err(SignatureError::UnknownChain),
        }
    }

    /// Whether `signer`, the address of the key that was used, is the sender; on every chain but those of the EVM
    /// upper and lower case are different addresses.
    fn expect_signer(&self, signer: String) -> Result<(), SignatureError> {
        if signer == self.sender {
            Ok(())
        } else {
            Err(SignatureError::OtherSigner { signer })
        }
    }
}
