//! `SOL` and `ES`: ed25519 over the plain buffer. The signature is JSON,
//! `{"signature": base58, "publicKey": base58, "version": 1}` with an optional version, and the sender is the key.

use super::{Claim, Flaw, SignatureError, base58, json};

/// Whether `signature` is by the base58 ed25519 key over `message`.
pub fn verify_ed25519(public_key: &str, message: &[u8], signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (base58::decode(public_key), signature.try_into()) else {
        return false;
    };
    is_by(&key, message, signature)
}

/// Whether `signature` is by the ed25519 key over `message`; keys and points of small order are refused.
pub(super) fn is_by(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    ed25519_dalek::VerifyingKey::from_bytes(key).is_ok_and(|key| {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        key.verify_strict(message, &signature).is_ok()
    })
}

pub(super) fn verify(claim: &Claim<'_>) -> Result<(), SignatureError> {
    let object = json::object(claim.signature)?;
    if object
        .get("version")
        .is_some_and(|version| version.as_i64() != Some(1))
    {
        let flaw = Flaw::Unsupported { expected: "1" };
        return Err(SignatureError::malformed("signature.version", flaw));
    }
    let field = "signature.publicKey";
    let public_key = json::text(&object, "/publicKey", field)?;
    let key = base58::decode(public_key).map_err(|flaw| SignatureError::malformed(field, flaw))?;
    claim.expect_signer(public_key.to_owned())?;
    let field = "signature.signature";
    let signature = base58::decode(json::text(&object, "/signature", field)?)
        .map_err(|flaw| SignatureError::malformed(field, flaw))?;
    if is_by(&key, claim.buffer.as_bytes(), &signature) {
        Ok(())
    } else {
        Err(SignatureError::Forged { field })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_one_whether_written_or_not() {
        let claim = |signature| Claim {
            chain: crate::Chain::Sol,
            sender: "",
            buffer: "",
            time: 0.0,
            signature,
        };
        for (signature, field) in [
            (r#"{"version": 2}"#, "signature.version"),
            (r#"{"version": null}"#, "signature.version"),
            (r#"{"version": 1}"#, "signature.publicKey"),
            ("{}", "signature.publicKey"),
        ] {
            let error = verify(&claim(signature)).unwrap_err();
            assert!(error.to_string().starts_with(field), "{error}");
        }
    }
}
