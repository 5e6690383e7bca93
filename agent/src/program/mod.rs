//! HTTP/1.1 to a program's guest over vsock: one connection a request, bodies streamed both ways, upgrades carried on.
//!
//! What comes in: a client's request, its URI already what the program is to see. What goes out: the program's answer,
//! or a [`ProgramError`] that says which of 502 and 504 it is. The guest is hostile: hyper caps heads, and nothing of a
//! body is kept.

mod headers;

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use crn_protocol::guest::HTTP_PORT;
use http::{Request, Response, StatusCode, Uri, Version};
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::machine::vsock;

/// The longest head of an answer, in bytes.
const HEAD_BYTES: usize = 64 * 1024;

/// One request's way to the guest.
#[derive(Debug, Clone, Copy)]
pub struct Upstream<'a> {
    /// [`crate::machine::Machine::vsock`].
    pub vsock: &'a Path,
    /// The client, for `X-Forwarded-For`.
    pub client: IpAddr,
    /// `http` or `https`, for `X-Forwarded-Proto`.
    pub scheme: &'static str,
    /// From now until the head of the answer.
    pub timeout: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// No head of an answer in time: 504.
    #[error("the program did not answer within {0:?}")]
    Timeout(Duration),
    /// The guest cannot be reached: 502.
    #[error("cannot connect to the program")]
    Connect(#[source] io::Error),
    /// The connection broke before the head of an answer, or the answer was not HTTP: 502.
    #[error("the program closed the connection without an answer")]
    Closed(#[source] hyper::Error),
    /// The program switched protocols unasked: 502.
    #[error("the program switched protocols unasked")]
    Upgrade,
}

impl ProgramError {
    /// The status for the client.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Connect(_) | Self::Closed(_) | Self::Upgrade => StatusCode::BAD_GATEWAY,
        }
    }
}

/// Sends `request` (the Host header is kept) and returns the answer as soon as its head is there. WebSocket and other
/// upgrades are carried on in the background.
///
/// # Errors
/// [`ProgramError`].
pub async fn forward(
    upstream: Upstream<'_>,
    mut request: Request<Body>,
) -> Result<Response<Body>, ProgramError> {
    let upgrade = headers::upgrade(request.headers());
    let client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let host = request.uri().authority().cloned();
    headers::for_program(
        request.headers_mut(),
        host,
        upgrade,
        upstream.client,
        upstream.scheme,
    );
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or(Uri::from_static("/"), Uri::from);
    *request.version_mut() = Version::HTTP_11;

    let mut response = tokio::time::timeout(upstream.timeout, send(upstream.vsock, request))
        .await
        .map_err(|_| ProgramError::Timeout(upstream.timeout))??;

    let switched = headers::upgrade(response.headers());
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (Some(client), Some(protocol)) = (client, switched) else {
            return Err(ProgramError::Upgrade);
        };
        tokio::spawn(join(client, hyper::upgrade::on(&mut response)));
        headers::for_client(response.headers_mut(), Some(protocol));
    } else {
        headers::for_client(response.headers_mut(), None);
    }
    Ok(response)
}

async fn send(vsock: &Path, request: Request<Body>) -> Result<Response<Body>, ProgramError> {
    let stream = vsock::connect(vsock, HTTP_PORT)
        .await
        .map_err(ProgramError::Connect)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(ProgramError::Closed)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a program");
        }
    });
    let response = sender
        .send_request(request)
        .await
        .map_err(ProgramError::Closed)?;
    Ok(response.map(Body::new))
}

async fn join(client: OnUpgrade, program: OnUpgrade) {
    let (client, program) = match tokio::try_join!(client, program) {
        Ok(both) => both,
        Err(error) => return tracing::debug!(%error, "upgrade"),
    };
    if let Err(error) =
        tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(program)).await
    {
        tracing::debug!(%error, "upgraded connection");
    }
}

#[cfg(test)]
mod tests;
