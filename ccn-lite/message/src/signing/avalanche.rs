//! `AVAX`, the X and P chains of Avalanche: secp256k1 over the sha256 of a message in the manner of EIP-191. The signature
//! is r, s and the number of the key, 0 to 3, then the last four bytes of their sha256, all in base58. The sender is the
//! name of a chain, `-`, and the bech32 address of the key.
//!
//! Senders of the C chain, `0x…`, have no chain before the address and are refused, as everywhere on the network.

use sha2::{Digest, Sha256};

use super::{Claim, Flaw, SignatureError, base58, bech32_address, recoverable};

/// Prefix of addresses on the main network, the only one whose senders are known.
const PREFIX: &str = "avax";

pub(super) fn verify(claim: &Claim<'_>) -> Result<(), SignatureError> {
    let Some((chain, _)) = claim.sender.split_once('-') else {
        let expected = "an address of the X or the P chain";
        return Err(SignatureError::malformed(
            "sender",
            Flaw::Unsupported { expected },
        ));
    };
    let malformed = |flaw| SignatureError::malformed("signature", flaw);
    let bytes: [u8; 69] = base58::decode(claim.signature).map_err(malformed)?;
    let [signature @ .., _, _, _, _] = &bytes;
    if !Sha256::digest(signature).ends_with(&bytes[signature.len()..]) {
        return Err(malformed(Flaw::Checksum));
    }
    let [compact @ .., recovery] = signature;
    if *recovery > 3 {
        return Err(malformed(Flaw::RecoveryByte(*recovery)));
    }
    let key = recoverable::recover(digest(claim.buffer), compact, *recovery)
        .map_err(|_| malformed(Flaw::Curve("secp256k1")))?;
    let address = bech32_address::encode(PREFIX, &key.serialize())?;
    claim.expect_signer(format!("{chain}-{address}"))
}

/// sha256 of the message as wallets sign it, with its length in four bytes, big-endian.
fn digest(buffer: &str) -> [u8; 32] {
    // Senders are short, so a buffer is nowhere near 4 GiB.
    let length = (buffer.len() as u32).to_be_bytes();
    Sha256::new()
        .chain_update(b"\x1aAvalanche Signed Message:\n")
        .chain_update(length)
        .chain_update(buffer)
        .finalize()
        .into()
}
