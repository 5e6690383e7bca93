//! The owner behind a call on a machine.

use aleph_message::ItemHash;
use aleph_message::operator::{self, AuthError, AuthenticatedSender, Call};
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::Value;
use time::OffsetDateTime;

use super::{ApiError, App, Shared};
use crate::auth::owner::may_operate;
use crate::ledger::{Record, State};

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
    Ok(operator::authenticate(
        header("X-SignedPubKey"),
        header("X-SignedOperation"),
        &call,
    )?)
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
    let sender = sender(app, &parts.method, &parts.uri, &parts.headers)?;
    let hash = hash(reference)?;
    let record = machine(app, &hash).await?.ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            format!("No virtual machine with ref {hash}"),
        )
    })?;
    if !may_operate(&app.intake.ccn, &record, &sender).await {
        return Err(ApiError::plain(
            StatusCode::FORBIDDEN,
            "Unauthorized sender",
        ));
    }
    Ok(record)
}
