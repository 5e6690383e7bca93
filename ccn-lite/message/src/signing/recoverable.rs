//! secp256k1 signatures from which the key that made them is recovered.

use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, PublicKey, SECP256K1};

/// The key that made a signature over `digest`. `compact` is r and s, `recovery` is 0 to 3.
pub(super) fn recover(
    digest: [u8; 32],
    compact: &[u8; 64],
    recovery: u8,
) -> Result<PublicKey, secp256k1::Error> {
    let recovery = RecoveryId::try_from(i32::from(recovery))?;
    let signature = RecoverableSignature::from_compact(compact, recovery)?;
    SECP256K1.recover_ecdsa(Message::from_digest(digest), &signature)
}
