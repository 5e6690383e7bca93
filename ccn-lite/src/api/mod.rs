//! The HTTP and WebSocket API clients know: paths, statuses and shapes of the public network's nodes.

mod accounts;
mod aggregates;
mod car;
mod costs;
mod credits;
mod docs;
pub mod error;
mod filter;
mod info;
mod list;
mod measurements;
mod messages;
mod metadata;
mod metrics;
mod money_routes;
mod params;
mod posts;
mod prices;
mod publish;
pub(crate) mod render;
mod routes;
mod storage;
mod upload;
mod websocket;

use aleph_message::ItemHash;
use axum::Router;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use error::ApiError;
use list::paged;
pub use money_routes::admin;
pub use routes::router;

/// 400 unless `text` has the form of an item hash.
fn check_hash(text: &str) -> Result<ItemHash, ApiError> {
    text.parse()
        .map_err(|_| ApiError::bad_request(format!("Invalid message hash: {text:?}")))
}

/// The address of a path segment `{address}.json`.
fn without_json(segment: &str) -> Result<&str, ApiError> {
    segment
        .strip_suffix(".json")
        .ok_or_else(|| ApiError::not_found("404: Not Found"))
}

/// The number of a path segment `{page}.json`.
fn page_number(segment: &str) -> Result<u64, ApiError> {
    without_json(segment)?
        .parse()
        .ok()
        .filter(|page| *page > 0)
        .ok_or_else(|| ApiError::unprocessable("page: counts from 1"))
}

/// Everyone may read and write: authority is in the signatures, so any origin is fine.
async fn cors(request: Request<axum::body::Body>, next: Next) -> Response {
    let asked = request
        .headers()
        .get(header::ACCESS_CONTROL_REQUEST_HEADERS)
        .cloned();
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::OK.into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    let any = HeaderValue::from_static("*");
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any.clone());
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, any.clone());
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, POST, OPTIONS"),
    );
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.unwrap_or(any));
    response
}

/// Wraps every route, the scheduler's too.
pub fn with_cors(router: Router) -> Router {
    router.layer(axum::middleware::from_fn(cors))
}
