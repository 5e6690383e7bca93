//! Requests for programs, by path (`/vm/<hash>/…`) or by host name (`<base32 of the hash>.…`): the program is started
//! when it does not run, the request is handed over, the answer passed on untouched.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use aleph_message::ItemHash;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::uri::{PathAndQuery, Uri};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http_body_util::BodyExt as _;

use super::drain::Run;
use super::{ApiError, App, Shared};
use crate::intake::IntakeError;
use crate::ledger::{self, Kind};
use crate::program::{Upstream, forward};
use crate::reconcile::{InUse, Unavailable};

const ITEM_HASH: HeaderName = HeaderName::from_static("aleph-program-itemhash");
const CODE_REF: HeaderName = HeaderName::from_static("aleph-program-code-ref");
/// When a client may ask again for a program that cannot be started now, in seconds.
const RETRY_AFTER: u32 = 5;

/// `ANY /vm/{hash}` and below.
pub(super) async fn by_path(
    State(app): State<App>,
    Path(path): Path<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let Some((_, reference)) = path.into_iter().next() else {
        return ApiError::new(StatusCode::NOT_FOUND, "404: Invalid message reference")
            .into_response();
    };
    let Ok(hash) = reference.parse::<ItemHash>() else {
        let text = format!("Invalid message reference: {reference}");
        return ApiError::new(StatusCode::BAD_REQUEST, text).into_response();
    };
    // The path as it was sent, escapes and all, without what names the program.
    let prefix = "/vm/".len() + reference.len();
    let whole = request.uri().path();
    let path = whole
        .get(prefix..)
        .filter(|rest| !rest.is_empty())
        .unwrap_or("/")
        .to_owned();
    answer(&app, &hash, &path, request).await
}

/// Hands requests whose host name is a program's to the program, whatever their path.
pub(super) async fn by_host(State(app): State<App>, request: Request, next: Next) -> Response {
    let hash =
        host_of(&request).and_then(|host| ItemHash::from_host_label(host.split('.').next()?));
    match hash {
        Some(hash) => {
            let path = request.uri().path().to_owned();
            answer(&app, &hash, &path, request).await
        }
        None => next.run(request).await,
    }
}

/// The host a request is for, without the port.
pub(super) fn host_of(request: &Request) -> Option<&str> {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .or(request.uri().host())?;
    Some(if host.starts_with('[') {
        host
    } else {
        host.split(':').next().unwrap_or(host)
    })
}

/// Passes a request on to a program and its answer back.
pub(super) async fn answer(
    app: &Shared,
    hash: &ItemHash,
    path: &str,
    request: Request,
) -> Response {
    match relay(app, hash, path, request).await {
        Ok(mut response) => {
            if let Ok(value) = HeaderValue::from_str(hash.as_str()) {
                response.headers_mut().insert(ITEM_HASH, value);
            }
            response
        }
        Err(error) => error.into_response(),
    }
}

async fn relay(
    app: &Shared,
    hash: &ItemHash,
    path: &str,
    mut request: Request,
) -> Result<Response, ApiError> {
    let run = app.drain.enter()?;
    check(app, hash).await?;
    let in_use = app
        .reconciler
        .program(hash)
        .await
        .map_err(|error| unavailable(hash, &error))?;
    if !in_use.endpoint.http {
        return Err(no_http());
    }
    let query = request
        .uri()
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let uri = PathAndQuery::try_from(format!("{path}{query}"))
        .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "400: Invalid path"))?;
    *request.uri_mut() = Uri::from(uri);
    let client = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|ConnectInfo(address)| address.ip());
    let limits = &app.config.program;
    let seconds = in_use
        .endpoint
        .seconds
        .saturating_mul(u64::from(limits.timeout_multiplier));
    let vsock = in_use.endpoint.vsock.clone();
    let upstream = Upstream {
        vsock: &vsock,
        client: client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        scheme: "http",
        timeout: limits.min_timeout.max(Duration::from_secs(seconds)),
    };
    match forward(upstream, request).await {
        Ok(mut response) => {
            if let Ok(value) = HeaderValue::from_str(in_use.endpoint.code.as_str()) {
                response.headers_mut().insert(CODE_REF, value);
            }
            Ok(hold(response, (in_use, run)))
        }
        Err(error) => {
            tracing::warn!(vm = %hash, "{}", crate::chain(&error));
            Err(ApiError::new(error.status(), crate::chain(&error)))
        }
    }
}

/// Keeps the program in use until the last byte of its answer is sent.
fn hold(response: Response, in_use: (InUse, Run)) -> Response {
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _ = &in_use;
            frame
        }))
    })
}

/// Whether the hash is a program's. Nothing is started or kept for one that is not.
async fn check(app: &Shared, hash: &ItemHash) -> Result<(), ApiError> {
    let not_a_program = || {
        let text = "400: This message is an instance: it is reached on its own network, not here";
        Err(ApiError::new(StatusCode::BAD_REQUEST, text))
    };
    let known = app
        .ledger
        .get(hash)
        .await?
        .filter(|record| record.state != ledger::State::Erased);
    match known.and_then(|record| record.kind) {
        Some(Kind::Instance) => not_a_program(),
        Some(_) => Ok(()),
        None => {
            let verified = app
                .intake
                .message(hash)
                .await
                .map_err(|error| match error {
                    IntakeError::Unknown(_) | IntakeError::Status { .. } => {
                        ApiError::new(StatusCode::NOT_FOUND, crate::chain(&error))
                    }
                    error => super::allocations::refusal(&error),
                })?;
            match &verified.content.body {
                aleph_message::Body::Program(program) if !program.on.http => Err(no_http()),
                aleph_message::Body::Program(_) => Ok(()),
                aleph_message::Body::Instance(_) => not_a_program(),
                _ => Err(ApiError::new(
                    StatusCode::NOT_FOUND,
                    "404: This message is not a program",
                )),
            }
        }
    }
}

/// A program that only messages are for, or nobody.
fn no_http() -> ApiError {
    let text = "404: This program answers no requests: on.http is false in its message";
    ApiError::new(StatusCode::NOT_FOUND, text)
}

fn unavailable(hash: &ItemHash, error: &Unavailable) -> ApiError {
    tracing::warn!(vm = %hash, "not available: {}", crate::chain(error));
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()).retry_after(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_host_is_a_programs_or_none(host in "[ -~]{0,80}", bytes in any::<[u8; 32]>(), port in any::<u16>()) {
            let found = |host: &str| {
                let request = Request::get("/").header(header::HOST, host).body(Body::empty()).unwrap();
                host_of(&request).and_then(|host| ItemHash::from_host_label(host.split('.').next()?))
            };
            let _ = found(&host);
            let hash: ItemHash = hex::encode(bytes).parse().unwrap();
            let label = hash.host_label().unwrap();
            prop_assert_eq!(found(&format!("{label}.example.org:{port}")), Some(hash));
        }
    }
}
