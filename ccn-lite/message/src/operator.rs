//! Calls signed by a user: a wallet authorises a short-lived P-256 key (`X-SignedPubKey`), and that key signs the
//! call (`X-SignedOperation`).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::{Iso8601, Rfc3339};

use crate::signing::{decode_hex, recover_eip191, verify_ed25519};

/// How far the operation's `time` may be from the receiver's clock.
const MAX_SKEW: time::Duration = time::Duration::minutes(2);

/// Longest header that is looked at, bytes.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Of a signature by the key of an account on ETH, bytes.
const KEY_SIGNATURE: usize = 65;

/// The request a signature must be about.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// `GET`, `POST` or `DELETE`.
    pub method: &'a str,
    /// Path without query.
    pub path: &'a str,
    /// Host name of this node as its clients use it, without port.
    pub domain: &'a str,
    /// The receiver's clock.
    pub now: OffsetDateTime,
}

/// A wallet whose authority over the call has been proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticatedSender {
    /// Address of the wallet, as written in the header.
    pub address: String,
    /// `ETH` or `SOL`.
    pub chain: SignerChain,
}

/// Kinds of wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignerChain {
    /// EIP-191 personal signature.
    Eth,
    /// ed25519 signature.
    Sol,
}

/// A refused call: the HTTP status and the reason to answer with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {reason}")]
pub struct AuthError {
    /// 400 when a header is malformed, 401 when it proves nothing.
    pub status: u16,
    /// Text clients know.
    pub reason: String,
}

impl AuthError {
    fn malformed(reason: &str) -> Self {
        Self {
            status: 400,
            reason: reason.to_owned(),
        }
    }

    fn denied(reason: impl Into<String>) -> Self {
        Self {
            status: 401,
            reason: reason.into(),
        }
    }
}

/// Checks the two headers of a call.
///
/// # Errors
/// With the status and reason to answer.
pub fn authenticate(
    signed_pubkey: Option<&str>,
    signed_operation: Option<&str>,
    call: &Call<'_>,
) -> Result<AuthenticatedSender, AuthError> {
    let pubkey =
        signed_pubkey.ok_or_else(|| AuthError::malformed("Missing X-SignedPubKey header"))?;
    let format_error = || AuthError::malformed("Invalid X-SignedPubKey format");
    let pubkey = parse_json(pubkey).ok_or_else(format_error)?;
    let delegation = Delegation::parse(&pubkey, call.now)?;
    let operation =
        signed_operation.ok_or_else(|| AuthError::malformed("Missing X-SignedOperation header"))?;
    let operation = parse_json(operation).ok_or_else(operation_format)?;
    check_operation(&operation, &delegation.key, call)?;
    Ok(delegation.sender)
}

/// Checks the first frame of a WebSocket: `{"auth": {"X-SignedPubKey": {…}, "X-SignedOperation": {…}}}`. The
/// operation must be about this very call, which is stricter than what nodes used to check.
///
/// # Errors
/// With the status and reason to answer.
pub fn authenticate_frame(
    frame: &Value,
    call: &Call<'_>,
) -> Result<AuthenticatedSender, AuthError> {
    let auth = frame.get("auth").unwrap_or(&Value::Null);
    let pubkey = auth
        .get("X-SignedPubKey")
        .ok_or_else(|| AuthError::malformed("Missing X-SignedPubKey header"))?;
    let delegation = Delegation::parse(pubkey, call.now)?;
    let operation = auth
        .get("X-SignedOperation")
        .ok_or_else(|| AuthError::malformed("Missing X-SignedOperation header"))?;
    check_operation(operation, &delegation.key, call)?;
    Ok(delegation.sender)
}

fn parse_json(text: &str) -> Option<Value> {
    if text.len() > MAX_HEADER_BYTES {
        return None;
    }
    serde_json::from_str(text).ok()
}

fn operation_format() -> AuthError {
    AuthError::malformed("Invalid X-SignedOperation format")
}

/// The bytes of `payload` and the text of `signature`.
fn members(value: &Value) -> Option<(Vec<u8>, &str)> {
    let payload = decode_hex(value.get("payload")?.as_str()?, "payload").ok()?;
    Some((payload, value.get("signature")?.as_str()?))
}

/// What the wallet signed.
struct Delegation {
    sender: AuthenticatedSender,
    key: VerifyingKey,
}

impl Delegation {
    fn parse(header: &Value, now: OffsetDateTime) -> Result<Self, AuthError> {
        let fields_error = || AuthError::malformed("Invalid X-SignedPubKey fields");
        let data_error = || AuthError::malformed("Invalid X-SignedPubKey data");
        if !header.is_object() {
            return Err(AuthError::malformed("Invalid X-SignedPubKey format"));
        }
        let (payload, signature) = members(header).ok_or_else(fields_error)?;
        let claims: Value = serde_json::from_slice(&payload).map_err(|_| data_error())?;
        let claim = |name: &str| claims.get(name).and_then(Value::as_str);
        let key = claims.get("pubkey").and_then(jwk).ok_or_else(data_error)?;
        let address = claim("address").ok_or_else(data_error)?.to_owned();
        let expires = claim("expires").and_then(moment).ok_or_else(data_error)?;
        let chain = match claims.get("chain").map(Value::as_str) {
            None | Some(Some("ETH")) => SignerChain::Eth,
            Some(Some("SOL")) => SignerChain::Sol,
            _ => return Err(data_error()),
        };
        if expires <= now {
            return Err(AuthError::denied("Token expired"));
        }
        let sender = AuthenticatedSender { address, chain };
        if chain == SignerChain::Eth && may_be_a_contracts(signature) {
            return Err(AuthError::denied(format!(
                "Invalid signature: expected the {KEY_SIGNATURE} bytes of an account's key; a wallet that is a contract \
                 (EIP-1271) cannot be verified here"
            )));
        }
        if !is_signed_by(&sender, &payload, signature) {
            return Err(AuthError::denied("Invalid signature"));
        }
        Ok(Self { sender, key })
    }
}

/// Whether this is a signature of no account's key. What a contract accepts as its own only the contract can say
/// (EIP-1271), on a chain that nobody here reads; most of them are of another length.
fn may_be_a_contracts(signature: &str) -> bool {
    decode_hex(signature, "signature").is_ok_and(|bytes| bytes.len() != KEY_SIGNATURE)
}

/// Wallets on SOL sign the hex text of the payload; one published client signs the payload itself.
fn is_signed_by(sender: &AuthenticatedSender, payload: &[u8], signature: &str) -> bool {
    match sender.chain {
        SignerChain::Eth => recover_eip191(payload, signature)
            .is_ok_and(|signer| signer.eq_ignore_ascii_case(&sender.address)),
        SignerChain::Sol => decode_hex(signature, "signature").is_ok_and(|signature| {
            let encoded = hex::encode(payload);
            verify_ed25519(&sender.address, encoded.as_bytes(), &signature)
                || verify_ed25519(&sender.address, payload, &signature)
        }),
    }
}

fn check_operation(header: &Value, key: &VerifyingKey, call: &Call<'_>) -> Result<(), AuthError> {
    let fields_error = || AuthError::malformed("Invalid X-SignedOperation fields");
    if !header.is_object() {
        return Err(operation_format());
    }
    let (payload, signature) = members(header).ok_or_else(fields_error)?;
    let claims: Value = serde_json::from_slice(&payload).map_err(|_| fields_error())?;
    let claim = |name: &str| {
        claims
            .get(name)
            .and_then(Value::as_str)
            .ok_or_else(fields_error)
    };
    let signed_at = moment(claim("time")?).ok_or_else(fields_error)?;
    let (method, path, domain) = (claim("method")?, claim("path")?, claim("domain")?);
    if !matches!(method, "GET" | "POST" | "DELETE") {
        return Err(fields_error());
    }
    if (call.now - signed_at).abs() > MAX_SKEW {
        return Err(AuthError::denied("Token expired"));
    }
    // The spelling of these three, spaces and quotes included, is what existing nodes answer.
    if domain != call.domain {
        let reason = format!(
            "Invalid domain: Signed: '{domain}' != Request: '{}'",
            call.domain
        );
        return Err(AuthError::denied(reason));
    }
    if path != call.path {
        let reason = format!(
            "Invalid path. Signed: '{path}' !=  requested path: '{}'",
            call.path
        );
        return Err(AuthError::denied(reason));
    }
    if method != call.method {
        let reason = format!(
            "Invalid method. Signed: '{method}' !=  request:'{}",
            call.method
        );
        return Err(AuthError::denied(reason));
    }
    let signature = decode_hex(signature, "signature").map_err(|_| fields_error())?;
    let verified = Signature::from_slice(&signature)
        .is_ok_and(|signature| key.verify(&payload, &signature).is_ok());
    if verified {
        Ok(())
    } else {
        Err(AuthError::denied("Signature could not verified"))
    }
}

/// An EC P-256 key in JSON Web Key form.
fn jwk(value: &Value) -> Option<VerifyingKey> {
    if value.get("kty")?.as_str()? != "EC" || value.get("crv")?.as_str()? != "P-256" {
        return None;
    }
    let mut point = vec![4];
    for name in ["x", "y"] {
        let coordinate = URL_SAFE_NO_PAD
            .decode(value.get(name)?.as_str()?.trim_end_matches('='))
            .ok()?;
        if coordinate.len() > 32 {
            return None;
        }
        point.resize(point.len() + 32 - coordinate.len(), 0);
        point.extend(coordinate);
    }
    VerifyingKey::from_sec1_bytes(&point).ok()
}

/// An ISO 8601 moment that names its offset.
fn moment(text: &str) -> Option<OffsetDateTime> {
    let text = text.replacen(' ', "T", 1);
    OffsetDateTime::parse(&text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(&text, &Iso8601::DEFAULT))
        .ok()
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::SigningKey;
    use p256::ecdsa::signature::Signer;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::Keypair;

    const PATH: &str = "/control/machine/abc/stop";

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_767_268_800).unwrap()
    }

    fn call() -> Call<'static> {
        Call {
            method: "POST",
            path: PATH,
            domain: "127.0.0.1",
            now: now(),
        }
    }

    struct Client {
        wallet: Keypair,
        key: SigningKey,
    }

    impl Client {
        fn new() -> Self {
            Self {
                wallet: Keypair::generate(),
                key: SigningKey::from_slice(&[7; 32]).unwrap(),
            }
        }

        fn jwk(&self) -> Value {
            let point = self.key.verifying_key().to_sec1_point(false);
            let bytes = point.as_bytes();
            json!({"kty": "EC", "crv": "P-256",
                "x": URL_SAFE_NO_PAD.encode(&bytes[1..33]), "y": URL_SAFE_NO_PAD.encode(&bytes[33..])})
        }

        fn pubkey(&self, change: impl FnOnce(&mut Value)) -> Value {
            let mut claims = json!({"pubkey": self.jwk(), "alg": "ECDSA", "domain": "elsewhere",
                "address": self.wallet.address(), "chain": "ETH", "expires": "2026-01-02T00:00:00Z"});
            change(&mut claims);
            let payload = claims.to_string();
            json!({"sender": self.wallet.address(), "payload": hex::encode(&payload),
                "signature": self.wallet.sign_eip191(payload.as_bytes()).unwrap()})
        }

        fn operation(&self, change: impl FnOnce(&mut Value)) -> Value {
            let mut claims = json!({"time": "2026-01-01T12:00:00.000Z", "method": "POST", "path": PATH, "domain": "127.0.0.1"});
            change(&mut claims);
            let payload = claims.to_string();
            let signature: Signature = self.key.sign(payload.as_bytes());
            json!({"payload": hex::encode(&payload), "signature": hex::encode(signature.to_bytes())})
        }

        fn call(
            &self,
            pubkey: impl FnOnce(&mut Value),
            operation: impl FnOnce(&mut Value),
        ) -> Result<AuthenticatedSender, AuthError> {
            let (pubkey, operation) = (
                self.pubkey(pubkey).to_string(),
                self.operation(operation).to_string(),
            );
            authenticate(Some(&pubkey), Some(&operation), &call())
        }
    }

    #[test]
    fn a_delegated_call_is_by_the_wallet() {
        let client = Client::new();
        let sender = client.call(|_| (), |_| ()).unwrap();
        assert_eq!(
            sender,
            AuthenticatedSender {
                address: client.wallet.address(),
                chain: SignerChain::Eth
            }
        );
    }

    #[test]
    fn a_frame_must_be_about_the_call() {
        let client = Client::new();
        let frame = |operation| json!({"auth": {"X-SignedPubKey": client.pubkey(|_| ()), "X-SignedOperation": operation}});
        assert!(authenticate_frame(&frame(client.operation(|_| ())), &call()).is_ok());
        let elsewhere =
            client.operation(|claims| claims["path"] = "/control/machine/abc/erase".into());
        assert_eq!(
            authenticate_frame(&frame(elsewhere), &call())
                .unwrap_err()
                .status,
            401
        );
        assert_eq!(
            authenticate_frame(&json!([]), &call()).unwrap_err().status,
            400
        );
    }

    #[test]
    fn each_mistake_has_its_reason() {
        let client = Client::new();
        let reason = |result: Result<AuthenticatedSender, AuthError>| {
            let error = result.unwrap_err();
            (error.status, error.reason)
        };
        let expect = |status, reason: &str| (status, reason.to_owned());
        let good = client.pubkey(|_| ()).to_string();
        assert_eq!(
            reason(authenticate(None, None, &call())),
            expect(400, "Missing X-SignedPubKey header")
        );
        assert_eq!(
            reason(authenticate(Some("{"), None, &call())),
            expect(400, "Invalid X-SignedPubKey format")
        );
        assert_eq!(
            reason(authenticate(Some("{}"), None, &call())),
            expect(400, "Invalid X-SignedPubKey fields")
        );
        assert_eq!(
            reason(authenticate(Some(&good), None, &call())),
            expect(400, "Missing X-SignedOperation header")
        );
        assert_eq!(
            reason(authenticate(Some(&good), Some("x"), &call())),
            expect(400, "Invalid X-SignedOperation format")
        );
        assert_eq!(
            reason(authenticate(Some(&good), Some("{}"), &call())),
            expect(400, "Invalid X-SignedOperation fields")
        );
        let chain = client.call(|claims| claims["chain"] = "BTC".into(), |_| ());
        assert_eq!(reason(chain), expect(400, "Invalid X-SignedPubKey data"));
        let old = client.call(
            |claims| claims["expires"] = "2026-01-01T11:59:59Z".into(),
            |_| (),
        );
        assert_eq!(reason(old), expect(401, "Token expired"));
        let naive = client.call(
            |claims| claims["expires"] = "2026-01-02T11:59:59".into(),
            |_| (),
        );
        assert_eq!(reason(naive), expect(400, "Invalid X-SignedPubKey data"));
        let other = client.call(
            |claims| claims["address"] = Keypair::generate().address().into(),
            |_| (),
        );
        assert_eq!(reason(other), expect(401, "Invalid signature"));
        let mut contract = client.pubkey(|_| ());
        contract["signature"] = "00".repeat(130).into();
        let (status, text) = reason(authenticate(Some(&contract.to_string()), None, &call()));
        assert!(
            status == 401 && text.starts_with("Invalid signature") && text.contains("EIP-1271"),
            "{text}"
        );
        let late = client.call(
            |_| (),
            |claims| claims["time"] = "2026-01-01T12:02:01Z".into(),
        );
        assert_eq!(reason(late), expect(401, "Token expired"));
        let domain = client.call(|_| (), |claims| claims["domain"] = "localhost".into());
        assert_eq!(
            reason(domain),
            expect(
                401,
                "Invalid domain: Signed: 'localhost' != Request: '127.0.0.1'"
            )
        );
        let path = client.call(|_| (), |claims| claims["path"] = "/x".into());
        assert_eq!(
            reason(path),
            expect(
                401,
                "Invalid path. Signed: '/x' !=  requested path: '/control/machine/abc/stop'"
            )
        );
        let method = client.call(|_| (), |claims| claims["method"] = "GET".into());
        assert_eq!(
            reason(method),
            expect(401, "Invalid method. Signed: 'GET' !=  request:'POST")
        );
        let mut forged = client.operation(|_| ());
        forged["signature"] = "00".repeat(64).into();
        assert_eq!(
            reason(authenticate(
                Some(&good),
                Some(&forged.to_string()),
                &call()
            )),
            expect(401, "Signature could not verified")
        );
    }

    #[test]
    fn both_spellings_of_a_sol_signature_are_accepted() {
        use ed25519_dalek::Signer as _;
        let wallet = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
        let address = bs58::encode(wallet.verifying_key().as_bytes()).into_string();
        let client = Client::new();
        let mut header = client.pubkey(|claims| {
            claims["address"] = address.clone().into();
            claims["chain"] = "SOL".into();
        });
        let text = header["payload"].as_str().unwrap().to_owned();
        for message in [text.clone().into_bytes(), hex::decode(&text).unwrap()] {
            header["signature"] = hex::encode(wallet.sign(&message).to_bytes()).into();
            let operation = client.operation(|_| ()).to_string();
            let sender =
                authenticate(Some(&header.to_string()), Some(&operation), &call()).unwrap();
            assert_eq!(
                sender,
                AuthenticatedSender {
                    address: address.clone(),
                    chain: SignerChain::Sol
                }
            );
        }
    }

    proptest! {
        #[test]
        fn any_headers_are_safe(pubkey in "\\PC{0,200}", operation in "\\PC{0,200}", payload in any::<Vec<u8>>()) {
            let _ = authenticate(Some(&pubkey), Some(&operation), &call());
            let header = json!({"payload": hex::encode(payload), "signature": pubkey});
            let _ = authenticate_frame(&json!({"auth": {"X-SignedPubKey": header}}), &call());
        }
    }
}
