//! `DOT`: sr25519 (Schnorr on ristretto255) over the buffer, bare or in the `<Bytes>` that wallets put around text so
//! that it is never a transaction. The signature is JSON, `{"curve": "sr25519", "data": 64 bytes in hex}` with an
//! optional curve, and the sender is the SS58 address of the key.
//!
//! The published Python client writes the hex without `0x`, wallets write it with.

use schnorrkel::{PublicKey, Signature};

use super::{Claim, Flaw, SignatureError, json, ss58};

/// The signing context of every chain made with Substrate.
const CONTEXT: &[u8] = b"substrate";

/// The one curve of these signatures.
const CURVE: &str = "sr25519";

pub(super) fn verify(claim: &Claim<'_>) -> Result<(), SignatureError> {
    let object = json::object(claim.signature)?;
    let field = "signature.curve";
    let curve = json::optional_text(&object, "/curve", field)?;
    if curve.is_some_and(|curve| curve != CURVE) {
        let flaw = Flaw::Unsupported { expected: CURVE };
        return Err(SignatureError::malformed(field, flaw));
    }
    let malformed = |flaw| SignatureError::malformed("sender", flaw);
    let key = ss58::account(claim.sender).map_err(malformed)?;
    let key = PublicKey::from_bytes(&key).map_err(|_| malformed(Flaw::Curve(CURVE)))?;

    let field = "signature.data";
    let malformed = |flaw| SignatureError::malformed(field, flaw);
    let digits = json::text(&object, "/data", field)?;
    let digits = digits.strip_prefix("0x").unwrap_or(digits);
    let mut data = [0; 64];
    hex::decode_to_slice(digits, &mut data).map_err(|error| match error {
        hex::FromHexError::InvalidHexCharacter { .. } => malformed(Flaw::Encoding("hexadecimal")),
        _ => malformed(Flaw::Length { expected: 64 }),
    })?;
    let signature = Signature::from_bytes(&data).map_err(|_| malformed(Flaw::Curve(CURVE)))?;

    let wrapped = format!("<Bytes>{}</Bytes>", claim.buffer);
    let signed = [claim.buffer, &wrapped].into_iter().any(|text| {
        key.verify_simple(CONTEXT, text.as_bytes(), &signature)
            .is_ok()
    });
    if signed {
        Ok(())
    } else {
        Err(SignatureError::Forged { field })
    }
}
