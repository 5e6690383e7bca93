//! `TEZOS`: ed25519, secp256k1 or P-256 over the blake2b hash of the buffer, or of the buffer in the wrapping that
//! wallets put around text. The signature is JSON: `{"signature", "publicKey", "signingType", "dAppUrl"}`, of which the
//! last two may be absent.
//!
//! Prefixes and lengths are those of Octez, `src/lib_crypto/base58.ml`.

use blake2::digest::consts::{U20, U32};
use blake2::{Blake2b, Digest};
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use secp256k1::{Message, SECP256K1};
use time::OffsetDateTime;
use time::macros::format_description;

use super::{Claim, Flaw, SignatureError, base58, json, solana};
use crate::content::MAX_TIME;

/// The application named in wrapped messages of signatures that name none.
const DEFAULT_APPLICATION: &str = "aleph.im";

const PUBLIC_KEY: &str = "signature.publicKey";
const SIGNATURE: &str = "signature.signature";

/// The bytes that become `sig` in base58: a signature of no particular curve.
const GENERIC_SIGNATURE: (&str, &[u8]) = ("sig", &[4, 130, 43]);

/// What differs between the curves: how their keys, signatures and addresses begin, as text and as bytes.
struct Curve {
    name: &'static str,
    public_key: &'static [u8],
    signature: (&'static str, &'static [u8]),
    /// Always three bytes, which become `tz1`, `tz2` and `tz3`.
    address: [u8; 3],
}

static ED25519: Curve = Curve {
    name: "ed25519",
    public_key: &[13, 15, 37, 217],
    signature: ("edsig", &[9, 245, 205, 134, 18]),
    address: [6, 161, 159],
};

static SECP256K1_CURVE: Curve = Curve {
    name: "secp256k1",
    public_key: &[3, 254, 226, 86],
    signature: ("spsig", &[13, 115, 101, 19, 63]),
    address: [6, 161, 161],
};

static P256: Curve = Curve {
    name: "P-256",
    public_key: &[3, 178, 139, 127],
    signature: ("p2sig", &[54, 240, 44, 52]),
    address: [6, 161, 164],
};

/// A key as it is written: `edpk…`, `sppk…` or `p2pk…`.
enum PublicKey {
    Ed25519([u8; 32]),
    Secp256k1([u8; 33]),
    P256([u8; 33]),
}

impl PublicKey {
    fn parse(text: &str) -> Result<Self, Flaw> {
        match text.get(..4) {
            Some("edpk") => base58::decode_check(text, ED25519.public_key).map(Self::Ed25519),
            Some("sppk") => {
                base58::decode_check(text, SECP256K1_CURVE.public_key).map(Self::Secp256k1)
            }
            Some("p2pk") => base58::decode_check(text, P256.public_key).map(Self::P256),
            _ => Err(Flaw::Unsupported {
                expected: "edpk, sppk or p2pk",
            }),
        }
    }

    fn curve(&self) -> &'static Curve {
        match self {
            Self::Ed25519(_) => &ED25519,
            Self::Secp256k1(_) => &SECP256K1_CURVE,
            Self::P256(_) => &P256,
        }
    }

    fn address(&self) -> String {
        let hash = match self {
            Self::Ed25519(key) => Blake2b::<U20>::digest(key),
            Self::Secp256k1(key) | Self::P256(key) => Blake2b::<U20>::digest(key),
        };
        base58::encode_check(&self.curve().address, &hash)
    }

    /// Whether `signature` (r and s, for the two that have them) is by this key over `digest`.
    fn signed(&self, digest: &[u8; 32], signature: &[u8; 64]) -> Result<bool, SignatureError> {
        let curve = self.curve().name;
        let bad = |field| SignatureError::malformed(field, Flaw::Curve(curve));
        match self {
            Self::Ed25519(key) => Ok(solana::is_by(key, digest, signature)),
            Self::Secp256k1(key) => {
                let key = secp256k1::PublicKey::from_slice(key).map_err(|_| bad(PUBLIC_KEY))?;
                let signature = secp256k1::ecdsa::Signature::from_compact(signature)
                    .map_err(|_| bad(SIGNATURE))?;
                let digest = Message::from_digest(*digest);
                Ok(SECP256K1.verify_ecdsa(digest, &signature, &key).is_ok())
            }
            Self::P256(key) => {
                let key =
                    p256::ecdsa::VerifyingKey::from_sec1_bytes(key).map_err(|_| bad(PUBLIC_KEY))?;
                let signature =
                    p256::ecdsa::Signature::from_slice(signature).map_err(|_| bad(SIGNATURE))?;
                Ok(key.verify_prehash(digest, &signature).is_ok())
            }
        }
    }
}

pub(super) fn verify(claim: &Claim<'_>) -> Result<(), SignatureError> {
    let object = json::object(claim.signature)?;
    let key = PublicKey::parse(json::text(&object, "/publicKey", PUBLIC_KEY)?)
        .map_err(|flaw| SignatureError::malformed(PUBLIC_KEY, flaw))?;
    claim.expect_signer(key.address())?;
    let signature = parse_signature(
        json::text(&object, "/signature", SIGNATURE)?,
        key.curve().signature,
    )?;
    let field = "signature.signingType";
    let message = match json::optional_text(&object, "/signingType", field)? {
        None | Some("raw") => claim.buffer.as_bytes().to_vec(),
        Some("micheline") => {
            let application = json::optional_text(&object, "/dAppUrl", "signature.dAppUrl")?;
            let application = application.unwrap_or(DEFAULT_APPLICATION);
            micheline(application, &timestamp(claim.time)?, claim.buffer)
        }
        Some(_) => {
            let expected = "raw or micheline";
            return Err(SignatureError::malformed(
                field,
                Flaw::Unsupported { expected },
            ));
        }
    };
    if key.signed(&Blake2b::<U32>::digest(message).into(), &signature)? {
        Ok(())
    } else {
        Err(SignatureError::Forged { field: SIGNATURE })
    }
}

/// A signature of the key's curve or of none in particular.
fn parse_signature(text: &str, of_curve: (&str, &[u8])) -> Result<[u8; 64], SignatureError> {
    let parsed = [of_curve, GENERIC_SIGNATURE]
        .into_iter()
        .find(|(start, _)| text.starts_with(start))
        .ok_or(Flaw::Unsupported {
            expected: "a signature of the key's curve",
        })
        .and_then(|(_, prefix)| base58::decode_check(text, prefix));
    parsed.map_err(|flaw| SignatureError::malformed(SIGNATURE, flaw))
}

/// What a wallet is given to sign: the tag of packed data (5), the tag of a string (1), a length and the text. Packed
/// strings have four bytes of length; the applications of this network write a zero byte and, in decimal digits, twice
/// the number of bytes.
fn micheline(application: &str, timestamp: &str, buffer: &str) -> Vec<u8> {
    let text = format!("Tezos Signed Message: {application} {timestamp} {buffer}");
    let length = (2 * text.len()).to_string();
    [&[5, 1, 0], length.as_bytes(), text.as_bytes()].concat()
}

/// `2022-09-23T14:41:19.029Z`, cut to milliseconds after rounding to the microseconds that a moment of the network has.
fn timestamp(time: f64) -> Result<String, SignatureError> {
    let format =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    (0.0..=MAX_TIME)
        .contains(&time)
        .then(|| {
            let microseconds = (time.fract() * 1e6).round_ties_even() as i128;
            (time.trunc() as i128 * 1_000_000 + microseconds) * 1000
        })
        .and_then(|nanoseconds| OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok())
        .and_then(|moment| moment.format(format).ok())
        .ok_or_else(|| {
            let expected = "Unix seconds";
            SignatureError::malformed("time", Flaw::Unsupported { expected })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_cut_to_milliseconds() {
        for (time, text) in [
            (0.0, "1970-01-01T00:00:00.000Z"),
            (1661451074.86, "2022-08-25T18:11:14.860Z"),
            (1700000000.9999, "2023-11-14T22:13:20.999Z"),
            (1700000000.9999999, "2023-11-14T22:13:21.000Z"),
        ] {
            assert_eq!(timestamp(time).unwrap(), text);
        }
        for time in [f64::MAX, f64::NAN, -1.0] {
            assert!(timestamp(time).is_err());
        }
    }

    #[test]
    fn the_length_in_a_wrapped_message_is_that_of_the_hex() {
        let message = micheline("a", "t", "buffer");
        assert_eq!(message, b"\x05\x01\x0064Tezos Signed Message: a t buffer");
    }
}
