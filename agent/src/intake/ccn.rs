//! The core channel node's public HTTP API, the few calls the agent makes. Nothing that comes back is trusted: replies
//! are capped, messages and files are verified by who asked. Questions about many at once are in [`lists`].

mod lists;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Body as _, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(super) use self::lists::replaces;
pub use self::lists::{Amending, Listed, batches};

/// The longest JSON reply taken, in bytes: a page of messages.
const MAX_JSON: usize = 8 * 1024 * 1024;
/// The longest message content stored as a file, in bytes.
const MAX_CONTENT: usize = 4 * 1024 * 1024;
/// How long a reply's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a JSON reply may take.
const JSON_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of one core channel node.
#[derive(Debug, Clone)]
pub struct Ccn {
    base: String,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    heard: Arc<AtomicBool>,
}

/// Why the node gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CcnError {
    /// The address makes no URL.
    #[error("{url} is no URL")]
    Url {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: http::uri::InvalidUri,
    },
    /// No connection, or it broke.
    #[error("{url} cannot be reached")]
    Connect {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: hyper_util::client::legacy::Error,
    },
    /// The reply broke off or is longer than allowed.
    #[error("the reply from {url} broke off")]
    Body {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("{url} did not answer in time")]
    Timeout {
        /// The address.
        url: String,
    },
    /// Another status than expected.
    #[error("{url} answered {status}")]
    Status {
        /// The address.
        url: String,
        /// Its answer.
        status: StatusCode,
    },
    /// Several nodes, and not enough of them say the same.
    #[error(
        "the core channel nodes do not agree on {what}: {quorum} of {nodes} must, {answered} answered"
    )]
    NoQuorum {
        /// What was asked.
        what: String,
        /// How many answered, one way or another.
        answered: usize,
        /// How many are configured.
        nodes: usize,
        /// How many must agree.
        quorum: usize,
    },
    /// A part of a file came, and not which one.
    #[error("{url} answered with a part of the file and did not say which")]
    Range {
        /// The address.
        url: String,
    },
    /// The reply is not what is documented.
    #[error("the reply from {url} is not understood")]
    Json {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// A file from some byte on.
#[derive(Debug)]
pub struct Part {
    /// The first byte that comes.
    pub start: u64,
    /// The whole file's length in bytes, when the node says it.
    pub total: Option<u64>,
    /// What comes.
    pub body: Incoming,
}

/// `GET /api/v0/messages/{hash}`
#[derive(Debug, Clone, Deserialize)]
pub struct MessageReply {
    /// `processed`, `pending`, `rejected`, `forgotten`, `removing` or `removed`.
    pub status: String,
    /// The message, when there is one to give.
    #[serde(default)]
    pub message: Option<Value>,
}

/// `GET /api/v0/addresses/{address}/balance`
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Balance {
    /// Credits.
    #[serde(default)]
    pub credit_balance: u64,
}

/// `GET /api/v0/price/{hash}`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Price {
    /// In the payment type's unit: tokens, tokens a second, credits a second. Decimal digits.
    pub cost: String,
    /// `hold`, `superfluid` or `credit`.
    pub payment_type: String,
}

impl Ccn {
    /// A client for the node at `base`, an http or https URL without a trailing slash.
    #[must_use]
    pub fn new(base: &str) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(Duration::from_secs(10)));
        http.set_keepalive(Some(Duration::from_secs(30)));
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        Self {
            base: base.to_owned(),
            client: Client::builder(TokioExecutor::new()).build(https),
            heard: Arc::default(),
        }
    }

    /// Its address.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Whether its messages are being listened to now.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// Notes whether its messages are being listened to.
    pub(super) fn set_heard(&self, heard: bool) {
        self.heard.store(heard, Ordering::Relaxed);
    }

    /// The node's URL for `path`, with the scheme of a WebSocket.
    #[must_use]
    pub fn websocket_url(&self, path: &str) -> String {
        // http → ws, https → wss.
        format!(
            "ws{}{path}",
            self.base.strip_prefix("http").unwrap_or(&self.base)
        )
    }

    /// The reply to a GET, of the bytes from `offset` on when that is asked, whatever its status.
    async fn get(&self, path: &str, offset: u64) -> Result<Response<Incoming>, CcnError> {
        let url = format!("{}{path}", self.base);
        let uri: Uri = url.parse().map_err(|source| CcnError::Url {
            url: url.clone(),
            source,
        })?;
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = uri;
        if offset > 0
            && let Ok(range) = HeaderValue::try_from(format!("bytes={offset}-"))
        {
            request.headers_mut().insert(header::RANGE, range);
        }
        match tokio::time::timeout(HEAD_TIMEOUT, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(source)) => Err(CcnError::Connect { url, source }),
            Err(_) => Err(CcnError::Timeout { url }),
        }
    }

    async fn bytes(&self, path: &str, cap: usize) -> Result<Option<Bytes>, CcnError> {
        let response = self.get(path, 0).await?;
        let url = || format!("{}{path}", self.base);
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => return Err(CcnError::Status { url: url(), status }),
        }
        match tokio::time::timeout(
            JSON_TIMEOUT,
            Limited::new(response.into_body(), cap).collect(),
        )
        .await
        {
            Ok(Ok(body)) => Ok(Some(body.to_bytes())),
            Ok(Err(source)) => Err(CcnError::Body { url: url(), source }),
            Err(_) => Err(CcnError::Timeout { url: url() }),
        }
    }

    async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, CcnError> {
        let Some(bytes) = self.bytes(path, MAX_JSON).await? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| CcnError::Json {
                url: format!("{}{path}", self.base),
                source,
            })
    }

    /// A message and its status; `None` when unknown.
    ///
    /// # Errors
    /// [`CcnError`].
    pub async fn message(&self, hash: &str) -> Result<Option<MessageReply>, CcnError> {
        self.json(&format!("/api/v0/messages/{hash}")).await
    }

    /// The content of a message that is not inline.
    ///
    /// # Errors
    /// [`CcnError`].
    pub async fn content(&self, hash: &str) -> Result<Option<Bytes>, CcnError> {
        self.bytes(&format!("/api/v0/storage/raw/{hash}"), MAX_CONTENT)
            .await
    }

    /// A file as a stream, from `offset` on if the node can do that; `None` when unknown.
    ///
    /// # Errors
    /// [`CcnError`].
    pub async fn file(&self, hash: &str, offset: u64) -> Result<Option<Part>, CcnError> {
        let path = format!("/api/v0/storage/raw/{hash}");
        let response = self.get(&path, offset).await?;
        let length = response.body().size_hint().exact();
        let part = match response.status() {
            StatusCode::OK => Part {
                start: 0,
                total: length,
                body: response.into_body(),
            },
            StatusCode::PARTIAL_CONTENT => {
                let range = response.headers().get(header::CONTENT_RANGE);
                let start = range.and_then(|range| first_byte(range.to_str().ok()?));
                let Some(start) = start else {
                    return Err(CcnError::Range {
                        url: format!("{}{path}", self.base),
                    });
                };
                Part {
                    start,
                    total: length.map(|length| start.saturating_add(length)),
                    body: response.into_body(),
                }
            }
            StatusCode::NOT_FOUND => return Ok(None),
            status => {
                return Err(CcnError::Status {
                    url: format!("{}{path}", self.base),
                    status,
                });
            }
        };
        Ok(Some(part))
    }

    /// The value of one of an address's aggregates; `None` when there is none.
    ///
    /// # Errors
    /// [`CcnError`].
    pub async fn aggregate(&self, address: &str, key: &str) -> Result<Option<Value>, CcnError> {
        #[derive(Deserialize)]
        struct Reply {
            data: serde_json::Map<String, Value>,
        }
        let address = query_value(address);
        let reply: Option<Reply> = self
            .json(&format!("/api/v0/aggregates/{address}.json?keys={key}"))
            .await?;
        Ok(reply.and_then(|mut reply| reply.data.remove(key)))
    }

    /// What an address owns; nothing when unknown.
    ///
    /// # Errors
    /// [`CcnError`].
    pub async fn balance(&self, address: &str) -> Result<Balance, CcnError> {
        let address = query_value(address);
        Ok(self
            .json(&format!("/api/v0/addresses/{address}/balance"))
            .await?
            .unwrap_or_default())
    }

    /// What a message costs; `None` when unknown.
    ///
    /// # Errors
    /// [`CcnError`].
    pub async fn price(&self, hash: &str) -> Result<Option<Price>, CcnError> {
        self.json(&format!("/api/v0/price/{hash}")).await
    }
}

/// The first byte of a `Content-Range` (RFC 9110 §14.4): `bytes 5-9/10`, `bytes 5-9/*`.
fn first_byte(range: &str) -> Option<u64> {
    let (first, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    first.trim().parse().ok()
}

/// Percent-encodes what is not a letter, a digit or one of `-._~`: addresses come out of strangers' messages.
fn query_value(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_part_begins_where_it_says() {
        assert_eq!(first_byte("bytes 5-9/10"), Some(5));
        assert_eq!(first_byte("bytes 5-9/*"), Some(5));
        for text in ["", "bytes */10", "bytes -5/10", "items 5-9/10", "5-9/10"] {
            assert_eq!(first_byte(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_range_is_read_or_refused(text in "(bytes )?.{0,24}", first in any::<u64>(), rest in "[0-9*/]{0,12}") {
            let _ = first_byte(&text);
            prop_assert_eq!(first_byte(&format!("bytes {first}-{rest}")), Some(first));
        }

        /// An address is any text that a stranger has signed.
        #[test]
        fn an_address_stays_one_value_of_a_query(text in ".{0,24}") {
            let encoded = query_value(&text);
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
            prop_assert!(encoded.bytes().all(is_plain));
            let uri: Uri = format!("http://ccn/api?a={encoded}&b=1").parse().unwrap();
            prop_assert_eq!(uri.query().unwrap().split('&').count(), 2);
        }
    }
}
