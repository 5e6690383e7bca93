//! Signatures and senders out of form: the error names the field, the member of it and the flaw.

use aleph_message::{Chain, Envelope, Flaw, MAX_SIGNATURE_BYTES, SignatureError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::sample;

/// The same message with `value` in the place of a signature, or at the path of a member of it.
fn with_signature(chain: Chain, pointer: Option<&str>, value: Value) -> Envelope {
    let mut envelope = sample(chain);
    envelope.signature = Some(match pointer {
        None => value.as_str().unwrap().to_owned(),
        Some(pointer) => {
            let mut signature: Value =
                serde_json::from_str(envelope.signature.as_deref().unwrap()).unwrap();
            *signature.pointer_mut(pointer).unwrap() = value;
            signature.to_string()
        }
    });
    envelope
}

#[test]
fn malformed_signatures_name_the_member_and_the_flaw() {
    let base58 = |bytes: &[u8]| Value::from(bs58::encode(bytes).into_string());
    let base64 = |bytes: &[u8]| Value::from(STANDARD.encode(bytes));
    let avalanche = |signature: &[u8]| {
        let digest = Sha256::digest(signature);
        base58(&[signature, &digest[28..]].concat())
    };
    let sign = Some("/signature");
    let key = Some("/publicKey");
    let cases = [
        (
            Chain::Eth,
            None,
            json!("0xzz"),
            "signature",
            Flaw::Encoding("hexadecimal"),
        ),
        (
            Chain::Eth,
            None,
            json!("0x00"),
            "signature",
            Flaw::Length { expected: 65 },
        ),
        (
            Chain::Eth,
            None,
            json!("02".repeat(65)),
            "signature",
            Flaw::RecoveryByte(2),
        ),
        (
            Chain::Eth,
            None,
            json!("00".repeat(65)),
            "signature",
            Flaw::Curve("secp256k1"),
        ),
        (
            Chain::Eth,
            None,
            json!("0".repeat(4097)),
            "signature",
            Flaw::TooLong {
                max: MAX_SIGNATURE_BYTES,
            },
        ),
        (
            Chain::Sol,
            None,
            json!("0x00"),
            "signature",
            Flaw::NotAnObject,
        ),
        (
            Chain::Sol,
            None,
            json!("[]"),
            "signature",
            Flaw::NotAnObject,
        ),
        (
            Chain::Sol,
            None,
            json!("{}"),
            "signature.publicKey",
            Flaw::NotText,
        ),
        (
            Chain::Sol,
            key,
            json!(1),
            "signature.publicKey",
            Flaw::NotText,
        ),
        (
            Chain::Sol,
            key,
            json!("0"),
            "signature.publicKey",
            Flaw::Encoding("base58"),
        ),
        (
            Chain::Sol,
            key,
            base58(&[1; 31]),
            "signature.publicKey",
            Flaw::Length { expected: 32 },
        ),
        (
            Chain::Sol,
            sign,
            base58(&[1; 65]),
            "signature.signature",
            Flaw::Length { expected: 64 },
        ),
        (
            Chain::Eclipse,
            sign,
            json!("é"),
            "signature.signature",
            Flaw::Encoding("base58"),
        ),
        (
            Chain::Tezos,
            key,
            json!("é"),
            "signature.publicKey",
            Flaw::Unsupported {
                expected: "edpk, sppk or p2pk",
            },
        ),
        (
            Chain::Tezos,
            key,
            json!("edpk"),
            "signature.publicKey",
            Flaw::Length { expected: 32 },
        ),
        (
            Chain::Tezos,
            sign,
            json!(null),
            "signature.signature",
            Flaw::NotText,
        ),
        (
            Chain::Tezos,
            sign,
            json!("spsig1"),
            "signature.signature",
            Flaw::Unsupported {
                expected: "a signature of the key's curve",
            },
        ),
        (
            Chain::Tezos,
            sign,
            json!("sig1111111"),
            "signature.signature",
            Flaw::Checksum,
        ),
        (
            Chain::Dot,
            Some("/curve"),
            json!("ed25519"),
            "signature.curve",
            Flaw::Unsupported {
                expected: "sr25519",
            },
        ),
        (
            Chain::Dot,
            Some("/data"),
            json!("0xzz"),
            "signature.data",
            Flaw::Length { expected: 64 },
        ),
        (
            Chain::Dot,
            Some("/data"),
            json!("zz".repeat(64)),
            "signature.data",
            Flaw::Encoding("hexadecimal"),
        ),
        (
            Chain::Dot,
            Some("/data"),
            json!("00".repeat(64)),
            "signature.data",
            Flaw::Curve("sr25519"),
        ),
        (
            Chain::Csdk,
            Some("/pub_key"),
            json!({}),
            "signature.pub_key.type",
            Flaw::NotText,
        ),
        (
            Chain::Csdk,
            Some("/pub_key/type"),
            json!("tendermint/PubKeyEd25519"),
            "signature.pub_key.type",
            Flaw::Unsupported {
                expected: "tendermint/PubKeySecp256k1",
            },
        ),
        (
            Chain::Csdk,
            Some("/pub_key/value"),
            json!("*"),
            "signature.pub_key.value",
            Flaw::Encoding("base64"),
        ),
        (
            Chain::Csdk,
            Some("/pub_key/value"),
            base64(&[2; 65]),
            "signature.pub_key.value",
            Flaw::Length { expected: 33 },
        ),
        (
            Chain::Csdk,
            sign,
            base64(&[1; 63]),
            "signature.signature",
            Flaw::Length { expected: 64 },
        ),
        (
            Chain::Csdk,
            sign,
            base64(&[255; 64]),
            "signature.signature",
            Flaw::Curve("secp256k1"),
        ),
        (
            Chain::Avax,
            None,
            json!("0x00"),
            "signature",
            Flaw::Encoding("base58"),
        ),
        (
            Chain::Avax,
            None,
            base58(&[1; 69]),
            "signature",
            Flaw::Checksum,
        ),
        (
            Chain::Avax,
            None,
            base58(&[1; 70]),
            "signature",
            Flaw::Length { expected: 69 },
        ),
        (
            Chain::Avax,
            None,
            avalanche(&[4; 65]),
            "signature",
            Flaw::RecoveryByte(4),
        ),
        (
            Chain::Avax,
            None,
            avalanche(&[0; 65]),
            "signature",
            Flaw::Curve("secp256k1"),
        ),
        (
            Chain::Nuls,
            None,
            json!("0x00"),
            "signature",
            Flaw::Encoding("hexadecimal"),
        ),
        (
            Chain::Nuls,
            None,
            json!("0100"),
            "signature",
            Flaw::Unsupported {
                expected: "a public key and a signature",
            },
        ),
        (
            Chain::Nuls2,
            None,
            json!("*"),
            "signature",
            Flaw::Encoding("base64"),
        ),
        (
            Chain::Nuls2,
            None,
            base64(&[27; 64]),
            "signature",
            Flaw::Length { expected: 65 },
        ),
        (
            Chain::Nuls2,
            None,
            base64(&[31; 65]),
            "signature",
            Flaw::RecoveryByte(31),
        ),
        (
            Chain::Nuls2,
            None,
            base64(&[[27; 1].as_slice(), &[0; 64]].concat()),
            "signature",
            Flaw::Curve("secp256k1"),
        ),
    ];
    for (chain, pointer, value, field, flaw) in cases {
        let envelope = with_signature(chain, pointer, value.clone());
        assert_eq!(
            envelope.check_signature(),
            Err(SignatureError::Malformed { field, flaw }),
            "{chain} {pointer:?} {value}"
        );
    }
}

#[test]
fn malformed_senders_name_the_flaw() {
    let unsupported = |expected| Flaw::Unsupported { expected };
    let cases = [
        (Chain::Dot, "0", Flaw::Encoding("base58")),
        (Chain::Dot, "5", Flaw::Length { expected: 36 }),
        (Chain::Csdk, "cosmos", Flaw::Encoding("bech32")),
        (Chain::Csdk, "é1q", Flaw::Encoding("bech32")),
        (
            Chain::Avax,
            "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
            unsupported("an address of the X or the P chain"),
        ),
        (
            Chain::Nuls2,
            "NULS",
            unsupported("an address beginning with NULSd or tNULSe"),
        ),
    ];
    for (chain, sender, flaw) in cases {
        let mut envelope = sample(chain);
        envelope.sender = sender.to_owned();
        let field = "sender";
        let expected = Err(SignatureError::Malformed { field, flaw });
        assert_eq!(envelope.check_signature(), expected, "{chain} {sender}");
    }
}
