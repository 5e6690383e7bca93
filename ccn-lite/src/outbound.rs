//! HTTP requests this program makes: one client, bounded answers, bounded waits.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// An answer: its status and its whole body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: http::StatusCode,
    /// Headers.
    pub headers: http::HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The URL or a header is malformed.
    #[error("cannot form the request")]
    Request(#[from] http::Error),
    /// No connection, or it broke.
    #[error("cannot reach the server")]
    Connection(#[from] hyper_util::client::legacy::Error),
    /// The body broke off or is longer than allowed.
    #[error("cannot read the answer")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// The client, cheap to clone.
#[derive(Clone, Debug)]
pub struct Client(hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Body>);

impl Default for Client {
    fn default() -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .build();
        Self(hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector))
    }
}

impl Client {
    /// Sends `request` and reads an answer of at most `max_bytes`, all within `patience` when one is given.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn send(
        &self,
        request: http::Request<Body>,
        max_bytes: usize,
        patience: Option<Duration>,
    ) -> Result<Answer, OutboundError> {
        let exchange = async {
            let (parts, body) = self.0.request(request).await?.into_parts();
            let body = Limited::new(body, max_bytes)
                .collect()
                .await
                .map_err(OutboundError::Body)?;
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body: body.to_bytes(),
            })
        };
        match patience {
            None => exchange.await,
            Some(patience) => tokio::time::timeout(patience, exchange)
                .await
                .map_err(|_| OutboundError::Timeout(patience))?,
        }
    }

    /// `GET url`.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn get(
        &self,
        url: &str,
        max_bytes: usize,
        patience: Duration,
    ) -> Result<Answer, OutboundError> {
        self.send(
            http::Request::get(url).body(Body::empty())?,
            max_bytes,
            Some(patience),
        )
        .await
    }
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
