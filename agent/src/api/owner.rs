//! The owner behind a call on a machine.

use aleph_message::ItemHash;
use aleph_message::operator::{self, AuthError, AuthenticatedSender, Call};
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::{ApiError, App, Shared};
use crate::auth::owner::may_operate;
use crate::ledger::{LedgerError, Record, State};

/// A signed operation is not accepted later than this after it was, in seconds: its time may be two minutes off either
/// way (spec crn-api §1.2).
const STALE_SECONDS: i64 = 240;
const USED_BEFORE: &str = "X-SignedOperation was used before: sign the call again";

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        Self::new(
            StatusCode::from_u16(error.status).unwrap_or(StatusCode::UNAUTHORIZED),
            error.reason,
        )
    }
}

/// The reference in a path.
pub(super) fn hash(text: &str) -> Result<ItemHash, ApiError> {
    text.parse()
        .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, format!("Invalid ref: '{text}'")))
}

/// Who signed the call.
pub(super) fn sender(
    app: &Shared,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<AuthenticatedSender, ApiError> {
    // One that is no text is one that is malformed, not one that is missing.
    let text = |value| str::from_utf8(HeaderValue::as_bytes(value)).unwrap_or_default();
    let header = |name| headers.get(name).map(text);
    let call = call(app, method, uri);
    let sender =
        operator::authenticate(header("X-SignedPubKey"), header("X-SignedOperation"), &call)?;
    check_query(&operation(headers), uri)?;
    Ok(sender)
}

/// The bytes that an ephemeral key has signed.
fn operation(headers: &HeaderMap) -> Vec<u8> {
    let operation = headers
        .get("X-SignedOperation")
        .and_then(|value| serde_json::from_slice::<Value>(value.as_bytes()).ok());
    payload(operation.as_ref()).unwrap_or_default()
}

fn payload(operation: Option<&Value>) -> Option<Vec<u8>> {
    let payload = operation?.get("payload")?.as_str()?;
    hex::decode(payload.strip_prefix("0x").unwrap_or(payload)).ok()
}

/// What is signed beside the path, by clients that do so (spec crn-api §9.3 S4): `query` is the request's, as it is sent.
fn check_query(operation: &[u8], uri: &Uri) -> Result<(), ApiError> {
    let claims: Value = serde_json::from_slice(operation).unwrap_or_default();
    let sent = uri.query().unwrap_or_default();
    match claims.get("query") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(signed)) if signed == sent => Ok(()),
        Some(signed) => Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            format!("Invalid query. Signed: {signed} != requested query: '{sent}'"),
        )),
    }
}

/// The same of the body: `body_sha256` is its digest, 64 hexadecimal digits.
///
/// # Errors
/// 401 when another body was signed than was sent.
pub(super) fn check_body(headers: &HeaderMap, body: &[u8]) -> Result<(), ApiError> {
    let claims: Value = serde_json::from_slice(&operation(headers)).unwrap_or_default();
    let sent = hex::encode(Sha256::digest(body));
    match claims.get("body_sha256") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(signed)) if signed.eq_ignore_ascii_case(&sent) => Ok(()),
        Some(signed) => Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            format!("Invalid body_sha256. Signed: {signed} != sha256 of the body: '{sent}'"),
        )),
    }
}

/// Who signed a call that changes something. A signed call is carried out once.
pub(super) async fn sender_once(
    app: &Shared,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<AuthenticatedSender, ApiError> {
    let sender = sender(app, method, uri, headers)?;
    match used_before(app, &sender, &operation(headers)).await? {
        true => Err(ApiError::new(StatusCode::UNAUTHORIZED, USED_BEFORE)),
        false => Ok(sender),
    }
}

async fn used_before(
    app: &Shared,
    sender: &AuthenticatedSender,
    operation: &[u8],
) -> Result<bool, LedgerError> {
    // Signatures can be written in more ways than one, payloads cannot.
    let mut digest = Sha256::new();
    digest.update(sender.address.to_lowercase().as_bytes());
    digest.update(operation);
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let digest = digest.finalize().into();
    let first = app.ledger.use_once(digest, now + STALE_SECONDS, now).await;
    first.map(|first| !first)
}

/// Who signed the first frame of a WebSocket, `once` when more can be done with it than looking on.
///
/// # Errors
/// The reason as the viewer reads it.
pub(super) async fn frame_sender(
    app: &Shared,
    uri: &Uri,
    frame: &Value,
    once: bool,
) -> Result<AuthenticatedSender, String> {
    let sender = operator::authenticate_frame(frame, &call(app, &Method::GET, uri))
        .map_err(|error| error.reason)?;
    let operation = payload(frame.pointer("/auth/X-SignedOperation")).unwrap_or_default();
    if once {
        match used_before(app, &sender, &operation).await {
            Ok(false) => {}
            Ok(true) => return Err(USED_BEFORE.to_owned()),
            Err(error) => {
                tracing::error!("{}", crate::chain(&error));
                return Err("the node's ledger failed".to_owned());
            }
        }
    }
    Ok(sender)
}

fn call<'a>(app: &'a Shared, method: &'a Method, uri: &'a Uri) -> Call<'a> {
    Call {
        method: method.as_str(),
        path: uri.path(),
        domain: &app.config.domain,
        now: OffsetDateTime::now_utc(),
    }
}

/// A machine of the ledger that is not erased.
pub(super) async fn machine(app: &Shared, hash: &ItemHash) -> Result<Option<Record>, ApiError> {
    Ok(app
        .ledger
        .get(hash)
        .await?
        .filter(|record| record.state != State::Erased))
}

/// The machine a path names, when the call is signed by someone who may operate it.
pub(super) struct Owned(pub Record);

/// The same for the machine's log, of which one that is not here is said in other words (spec crn-api §1.9).
pub(super) struct Logged(pub Record);

impl FromRequestParts<App> for Owned {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let unknown = |hash: &ItemHash| format!("No virtual machine with ref {hash}");
        authorize(app, parts, unknown).await.map(Self)
    }
}

impl FromRequestParts<App> for Logged {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let unknown = |_: &ItemHash| "No execution found for this VM".to_owned();
        authorize(app, parts, unknown).await.map(Self)
    }
}

async fn authorize(
    app: &App,
    parts: &mut Parts,
    unknown: impl Fn(&ItemHash) -> String,
) -> Result<Record, ApiError> {
    let Path(reference) = Path::<String>::from_request_parts(parts, app)
        .await
        .map_err(|error| ApiError::new(error.status(), error.body_text()))?;
    let sender = if parts.method == Method::GET {
        sender(app, &parts.method, &parts.uri, &parts.headers)?
    } else {
        sender_once(app, &parts.method, &parts.uri, &parts.headers).await?
    };
    let hash = hash(&reference)?;
    let record = machine(app, &hash)
        .await?
        .ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, unknown(&hash)))?;
    if !may_operate(&app.intake.ccn, &record, &sender).await {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "Unauthorized sender"));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn signing(claims: &Value) -> HeaderMap {
        let payload = hex::encode(claims.to_string());
        let header = json!({ "payload": payload, "signature": "" }).to_string();
        HeaderMap::from_iter([(
            "X-SignedOperation".parse().unwrap(),
            header.parse().unwrap(),
        )])
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(
            header in prop::collection::vec(32u8.., 0..120),
            text in "[ -~]{0,60}",
            body in any::<Vec<u8>>(),
        ) {
            for bytes in [&header[..], text.as_bytes()] {
                let Ok(value) = HeaderValue::from_bytes(bytes) else {
                    continue;
                };
                let headers = HeaderMap::from_iter([("X-SignedOperation".parse().unwrap(), value)]);
                let _ = check_body(&headers, &body);
                let _ = check_query(&operation(&headers), &Uri::from_static("/?a=b"));
            }
        }

        /// S4: what is signed is what was sent, or nothing is signed; nothing in between.
        #[test]
        fn only_what_was_signed_is_accepted(
            signed in "[a-z0-9=&]{0,8}",
            sent in "[a-z0-9=&]{0,8}",
            body in any::<Vec<u8>>(),
            other in any::<Vec<u8>>(),
        ) {
            let digest = hex::encode(Sha256::digest(&body));
            let headers = signing(&json!({ "query": signed, "body_sha256": digest }));
            let uri: Uri = format!("/?{sent}").parse().unwrap();
            prop_assert_eq!(check_query(&operation(&headers), &uri).is_ok(), signed == sent);
            prop_assert!(check_body(&headers, &body).is_ok());
            prop_assert_eq!(check_body(&headers, &other).is_ok(), body == other);
            let nothing = signing(&json!({}));
            prop_assert!(check_query(&operation(&nothing), &uri).is_ok());
        }
    }
}
