//! An owner's side of a signed call: the wallet authorises a P-256 key, the key signs the call.

use aleph_message::Keypair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub const DOMAIN: &str = "127.0.0.1";

/// `X-SignedPubKey` and `X-SignedOperation` of a call.
pub fn headers(owner: &Keypair, method: &str, path: &str) -> (Value, Value) {
    bound_headers(owner, method, path, &json!({}))
}

/// The same with more that is signed.
pub fn bound_headers(owner: &Keypair, method: &str, path: &str, bound: &Value) -> (Value, Value) {
    let sign = |payload: &[u8]| owner.sign_eip191(payload).unwrap();
    signed(&owner.address(), "ETH", sign, (method, path), bound)
}

/// How a wallet on Solana writes down what it signs.
#[derive(Clone, Copy)]
pub enum Solana {
    /// As hexadecimal text.
    Hex,
    /// As it is.
    Plain,
}

/// The address of a wallet on Solana.
pub fn solana_address(key: &ed25519_dalek::SigningKey) -> String {
    bs58::encode(key.verifying_key().as_bytes()).into_string()
}

/// The headers of a call whose owner has a wallet on Solana.
pub fn solana_headers(
    key: &ed25519_dalek::SigningKey,
    spelling: Solana,
    method: &str,
    path: &str,
) -> (Value, Value) {
    use ed25519_dalek::Signer as _;
    let sign = |payload: &[u8]| {
        let signature = match spelling {
            Solana::Hex => key.sign(hex::encode(payload).as_bytes()),
            Solana::Plain => key.sign(payload),
        };
        hex::encode(signature.to_bytes())
    };
    signed(
        &solana_address(key),
        "SOL",
        sign,
        (method, path),
        &json!({}),
    )
}

fn signed(
    address: &str,
    chain: &str,
    sign: impl Fn(&[u8]) -> String,
    (method, path): (&str, &str),
    bound: &Value,
) -> (Value, Value) {
    let key = SigningKey::from_slice(&[7; 32]).unwrap();
    let point = key.verifying_key().to_sec1_point(false);
    let coordinate = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (x, y) = (
        coordinate(&point.as_bytes()[1..33]),
        coordinate(&point.as_bytes()[33..65]),
    );
    let now = OffsetDateTime::now_utc();
    let text = |time: OffsetDateTime| time.format(&Rfc3339).unwrap();
    let delegation = json!({
        "pubkey": {"kty": "EC", "crv": "P-256", "x": x, "y": y},
        "alg": "ECDSA", "domain": DOMAIN, "address": address, "chain": chain,
        "expires": text(now + time::Duration::hours(1)),
    })
    .to_string();
    let pubkey = json!({
        "sender": address,
        "payload": hex::encode(&delegation),
        "signature": sign(delegation.as_bytes()),
        "content": {"domain": DOMAIN},
    });
    let mut operation =
        json!({"time": text(now), "method": method, "path": path, "domain": DOMAIN});
    for (name, value) in bound.as_object().unwrap() {
        operation[name] = value.clone();
    }
    let operation = operation.to_string();
    let signature: Signature = key.sign(operation.as_bytes());
    let operation =
        json!({"payload": hex::encode(&operation), "signature": hex::encode(signature.to_bytes())});
    (pubkey, operation)
}
