//! `CSDK`, the chains made with the Cosmos SDK: secp256k1 over the sha256 of a transaction that only carries the buffer,
//! in the sorted JSON of ledgers (`StdSignDoc` of legacy amino). The signature is JSON,
//! `{"pub_key": {"type": "tendermint/PubKeySecp256k1", "value": base64}, "signature": base64}`, and the sender is the
//! bech32 address of the key, with the prefix of any chain.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secp256k1::ecdsa::Signature;
use secp256k1::{Message, PublicKey, SECP256K1};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Claim, Flaw, SignatureError, bech32_address, json};

/// The amino name of the one kind of key.
const KEY_TYPE: &str = "tendermint/PubKeySecp256k1";

pub(super) fn verify(claim: &Claim<'_>) -> Result<(), SignatureError> {
    let object = json::object(claim.signature)?;
    let field = "signature.pub_key.type";
    if json::text(&object, "/pub_key/type", field)? != KEY_TYPE {
        let flaw = Flaw::Unsupported { expected: KEY_TYPE };
        return Err(SignatureError::malformed(field, flaw));
    }

    let field = "signature.pub_key.value";
    let key: [u8; 33] = base64(&object, "/pub_key/value", field)?;
    let Some((prefix, _)) = claim.sender.split_once('1') else {
        return Err(SignatureError::malformed(
            "sender",
            Flaw::Encoding("bech32"),
        ));
    };
    claim.expect_signer(bech32_address::encode(prefix, &key)?)?;
    let curve = |field| SignatureError::malformed(field, Flaw::Curve("secp256k1"));
    let key = PublicKey::from_slice(&key).map_err(|_| curve(field))?;

    let field = "signature.signature";
    let compact: [u8; 64] = base64(&object, "/signature", field)?;
    let mut signature = Signature::from_compact(&compact).map_err(|_| curve(field))?;
    // Either of the two values of s is good here, and the library takes only the lower.
    signature.normalize_s();
    let digest = Message::from_digest(Sha256::digest(sign_doc(claim)).into());
    SECP256K1
        .verify_ecdsa(digest, &signature, &key)
        .map_err(|_| SignatureError::Forged { field })
}

/// The transaction, written out so that the order of its members depends on nothing.
fn sign_doc(claim: &Claim<'_>) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    format!(
        concat!(
            r#"{{"account_number":"0","chain_id":"signed-message-v1","fee":{{"amount":[],"gas":"0"}},"memo":"","#,
            r#""msgs":[{{"type":"signutil/MsgSignText","value":{{"message":{},"signer":{}}}}}],"sequence":"0"}}"#,
        ),
        quoted(claim.buffer),
        quoted(claim.sender)
    )
}

fn base64<const N: usize>(
    object: &Value,
    pointer: &str,
    field: &'static str,
) -> Result<[u8; N], SignatureError> {
    let malformed = |flaw| SignatureError::malformed(field, flaw);
    STANDARD
        .decode(json::text(object, pointer, field)?)
        .map_err(|_| malformed(Flaw::Encoding("base64")))?
        .try_into()
        .map_err(|_| malformed(Flaw::Length { expected: N }))
}
