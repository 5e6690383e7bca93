//! The owner behind a call on a machine.

use aleph_message::ItemHash;
use aleph_message::operator::{self, AuthError, AuthenticatedSender, Call};
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::{ApiError, App, Shared};
use crate::auth::owner::may_operate;
use crate::ledger::{Record, State};

/// A signed operation is not accepted later than this after it was, in seconds: its time may be two minutes off either
/// way (spec crn-api §1.2).
const STALE_SECONDS: i64 = 240;

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
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let call = call(app, method, uri);
    let sender =
        operator::authenticate(header("X-SignedPubKey"), header("X-SignedOperation"), &call)?;
    check_query(&operation(headers), uri)?;
    Ok(sender)
}

/// The bytes that an ephemeral key has signed.
fn operation(headers: &HeaderMap) -> Vec<u8> {
    let payload = headers
        .get("X-SignedOperation")
        .and_then(|value| serde_json::from_slice::<Value>(value.as_bytes()).ok())
        .and_then(|operation| {
            let payload = operation.get("payload")?.as_str()?;
            hex::decode(payload.strip_prefix("0x").unwrap_or(payload)).ok()
        });
    payload.unwrap_or_default()
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
    // Signatures can be written in more ways than one, payloads cannot.
    let mut digest = Sha256::new();
    digest.update(sender.address.to_lowercase().as_bytes());
    digest.update(operation(headers));
    let now = OffsetDateTime::now_utc().unix_timestamp();
    if !app
        .ledger
        .use_once(digest.finalize().into(), now + STALE_SECONDS, now)
        .await?
    {
        return Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "X-SignedOperation was used before: sign the call again",
        ));
    }
    Ok(sender)
}

/// Who signed the first frame of a WebSocket.
pub(super) fn frame_sender(
    app: &Shared,
    uri: &Uri,
    frame: &Value,
) -> Result<AuthenticatedSender, AuthError> {
    operator::authenticate_frame(frame, &call(app, &Method::GET, uri))
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

impl FromRequestParts<App> for Owned {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Path(reference) = Path::<String>::from_request_parts(parts, app)
            .await
            .map_err(|error| ApiError::new(error.status(), error.body_text()))?;
        authorize(app, &reference, parts).await.map(Self)
    }
}

async fn authorize(app: &Shared, reference: &str, parts: &Parts) -> Result<Record, ApiError> {
    let sender = if parts.method == Method::GET {
        sender(app, &parts.method, &parts.uri, &parts.headers)?
    } else {
        sender_once(app, &parts.method, &parts.uri, &parts.headers).await?
    };
    let hash = hash(reference)?;
    let record = machine(app, &hash).await?.ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            format!("No virtual machine with ref {hash}"),
        )
    })?;
    if !may_operate(&app.intake.ccn, &record, &sender).await {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "Unauthorized sender"));
    }
    Ok(record)
}
