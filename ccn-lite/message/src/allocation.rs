//! The signed request by which a scheduler tells a node what to run:
//! `Authorization: Aleph-EIP191-V1 sig=<65 bytes>,payload=<JSON>`, both in hex.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::signing::{Keypair, SigningError, decode_hex, recover_eip191};

/// Name of the authorization scheme.
pub const SCHEME: &str = "Aleph-EIP191-V1";

/// How far `iat` may be from the receiver's clock, seconds.
pub const MAX_AGE_SECONDS: i64 = 300;

/// Largest body, bytes.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// Longest payload that is looked at, bytes.
const MAX_PAYLOAD_BYTES: usize = 4096;

#[derive(Serialize, Deserialize)]
struct Payload {
    method: String,
    path: String,
    body_sha256: String,
    iat: i64,
}

/// Who signed a request, and what to remember so that it is accepted once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRequest {
    /// Checksummed address of the signer. Whether it may schedule is the caller's to decide.
    pub signer: String,
    /// sha256 of the payload: the key of a replay cache.
    pub payload_digest: [u8; 32],
    /// Time of signing, Unix seconds.
    pub issued_at: i64,
}

/// Why a signed request is refused.
#[derive(Debug, thiserror::Error)]
pub enum AllocationError {
    /// Not `Aleph-EIP191-V1 sig=…,payload=…`.
    #[error("the Authorization header is malformed: {0}")]
    Header(&'static str),
    /// The payload or the signature is not hexadecimal, or the signature recovers to nobody.
    #[error("the request's signature is unusable")]
    Signature(#[source] SigningError),
    /// The payload is not the JSON of the scheme.
    #[error("the request's payload is unreadable")]
    Payload(#[source] serde_json::Error),
    /// The payload is about another request.
    #[error("the signed {0} is not the request's")]
    Mismatch(&'static str),
    /// Signed too long ago or in the future.
    #[error("the request was signed at {issued_at}, too far from {now}")]
    Age {
        /// Time of signing, Unix seconds.
        issued_at: i64,
        /// The receiver's clock, Unix seconds.
        now: i64,
    },
}

/// The value of the `Authorization` header for a request.
///
/// # Errors
/// When signing fails.
pub fn authorization(
    key: &Keypair,
    method: &str,
    path: &str,
    body: &[u8],
    issued_at: i64,
) -> Result<String, SigningError> {
    let payload = Payload {
        method: method.to_owned(),
        path: path.to_owned(),
        body_sha256: hex::encode(Sha256::digest(body)),
        iat: issued_at,
    };
    let payload = serde_json::json!(payload).to_string();
    let signature = key.sign_eip191(payload.as_bytes())?;
    Ok(format!(
        "{SCHEME} sig={signature},payload=0x{}",
        hex::encode(payload)
    ))
}

/// Checks a request's `Authorization` header. `path` is the whole path and must carry no query.
///
/// # Errors
/// When the header is malformed, is about another request, or is not fresh.
pub fn verify(
    header: &str,
    method: &str,
    path: &str,
    body: &[u8],
    now: i64,
) -> Result<SignedRequest, AllocationError> {
    let (signature, payload) = split(header)?;
    if payload.len() > 2 * MAX_PAYLOAD_BYTES + 2 {
        return Err(AllocationError::Header("the payload is too long"));
    }
    let payload = decode_hex(payload, "payload").map_err(AllocationError::Signature)?;
    let claims: Payload = serde_json::from_slice(&payload).map_err(AllocationError::Payload)?;
    if claims.iat.abs_diff(now) > MAX_AGE_SECONDS.unsigned_abs() {
        return Err(AllocationError::Age {
            issued_at: claims.iat,
            now,
        });
    }
    if claims.method != method {
        return Err(AllocationError::Mismatch("method"));
    }
    if claims.path != path || path.contains('?') {
        return Err(AllocationError::Mismatch("path"));
    }
    if body.len() > MAX_BODY_BYTES
        || claims.body_sha256.to_ascii_lowercase() != hex::encode(Sha256::digest(body))
    {
        return Err(AllocationError::Mismatch("body"));
    }
    let signer = recover_eip191(&payload, signature).map_err(AllocationError::Signature)?;
    Ok(SignedRequest {
        signer,
        payload_digest: Sha256::digest(&payload).into(),
        issued_at: claims.iat,
    })
}

/// The two parameters, each exactly once and in any order.
fn split(header: &str) -> Result<(&str, &str), AllocationError> {
    let malformed = AllocationError::Header;
    let (scheme, parameters) = header
        .trim()
        .split_once(' ')
        .ok_or(malformed("no parameters"))?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Err(malformed("another scheme"));
    }
    let (mut signature, mut payload) = (None, None);
    for parameter in parameters.split(',') {
        let (name, value) = parameter
            .split_once('=')
            .ok_or(malformed("a parameter without value"))?;
        let slot = match name.trim() {
            "sig" => &mut signature,
            "payload" => &mut payload,
            _ => return Err(malformed("an unknown parameter")),
        };
        if slot.replace(value.trim()).is_some() {
            return Err(malformed("a parameter twice"));
        }
    }
    Ok((
        signature.ok_or(malformed("no sig"))?,
        payload.ok_or(malformed("no payload"))?,
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BODY: &[u8] = br#"{"instances":[]}"#;

    fn header(key: &Keypair) -> String {
        authorization(key, "POST", "/control/allocations", BODY, 1000).unwrap()
    }

    #[test]
    fn a_signed_request_names_its_signer() {
        let key = Keypair::generate();
        let header = header(&key);
        let request = verify(&header, "POST", "/control/allocations", BODY, 1300).unwrap();
        assert_eq!(request.signer, key.address());
        assert_eq!(request.issued_at, 1000);
        let plain = header.replace("0x", "").replace(SCHEME, "aleph-eip191-v1");
        assert_eq!(
            verify(&plain, "POST", "/control/allocations", BODY, 700).unwrap(),
            request
        );
    }

    #[test]
    fn every_bound_part_counts() {
        let key = Keypair::generate();
        let header = header(&key);
        let check = |method, path, body, now| verify(&header, method, path, body, now);
        assert!(matches!(
            check("GET", "/control/allocations", BODY, 1000),
            Err(AllocationError::Mismatch("method"))
        ));
        assert!(matches!(
            check("POST", "/control/allocation", BODY, 1000),
            Err(AllocationError::Mismatch("path"))
        ));
        assert!(matches!(
            check("POST", "/control/allocations", b"{}", 1000),
            Err(AllocationError::Mismatch("body"))
        ));
        assert!(matches!(
            check("POST", "/control/allocations", BODY, 1301),
            Err(AllocationError::Age { .. })
        ));
        assert!(matches!(
            check("POST", "/control/allocations", BODY, 699),
            Err(AllocationError::Age { .. })
        ));
        for bad in [
            "".to_owned(),
            SCHEME.to_owned(),
            header.replace(SCHEME, "Bearer"),
            format!("{header},x=1"),
            format!("{header},sig=00"),
            header.replace("payload=", "load="),
            header.replace("sig=0x", "sig=0xzz"),
        ] {
            assert!(
                verify(&bad, "POST", "/control/allocations", BODY, 1000).is_err(),
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_header_is_safe(header in "(Aleph-EIP191-V1 )?(sig=)?\\PC{0,40}(,payload=[0-9a-f]{0,20})?", now: i64) {
            prop_assert!(verify(&header, "POST", "/", BODY, now).is_err());
        }
    }
}
