//! The HTTP and WebSocket API clients know: paths, statuses and shapes of the public network's nodes.

mod accounts;
mod aggregates;
mod car;
pub mod error;
mod filter;
mod info;
mod list;
mod messages;
mod metadata;
mod metrics;
mod params;
mod posts;
mod prices;
mod publish;
mod render;
mod storage;
mod upload;
mod websocket;

use aleph_message::ItemHash;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::node::Node;
use error::ApiError;
use list::paged;

/// Largest JSON body, as on the public network's nodes.
const MAX_BODY: usize = 1 << 20;

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

/// All routes of the node.
pub fn router(node: Node) -> Router {
    let v0 = Router::new()
        .route("/messages", post(publish::messages))
        .route("/ipfs/pubsub/pub", post(publish::pubsub))
        .route("/p2p/pubsub/pub", post(publish::pubsub))
        .route("/messages.json", get(messages::list))
        .route("/messages/page/{page}", get(messages::list_numbered))
        .route("/messages/hashes", get(messages::hashes))
        .route("/messages/{hash}", get(messages::one))
        .route("/messages/{hash}/content", get(messages::content))
        .route("/messages/{hash}/status", get(messages::status))
        .route(
            "/messages/{hash}/consumed_credits",
            get(messages::consumed_credits),
        )
        .route("/aggregates/{address}", get(aggregates::of_address))
        .route("/aggregates", get(aggregates::list))
        .route("/aggregates.json", get(aggregates::list))
        .route("/posts.json", get(posts::list_v0))
        .route("/posts/page/{page}", get(posts::list_v0_numbered))
        .route(
            "/authorizations/granted/{address}",
            get(aggregates::granted),
        )
        .route(
            "/authorizations/received/{address}",
            get(aggregates::received),
        )
        .route("/addresses/stats.json", get(accounts::stats_v0))
        .route("/addresses/{address}/balance", get(accounts::balance))
        .route("/addresses/{address}/files", get(accounts::files))
        .route("/addresses/{address}/post_types", get(accounts::post_types))
        .route("/addresses/{address}/channels", get(accounts::channels))
        .route(
            "/addresses/{address}/credit_history",
            get(accounts::credit_history),
        )
        .route(
            "/addresses/{address}/credit_history/summary",
            get(accounts::credit_summary),
        )
        .route("/channels/list.json", get(accounts::all_channels))
        .route("/price/estimate", post(prices::estimate))
        .route("/price/{hash}", get(prices::of_message))
        .route("/storage/add_json", post(upload::storage_json))
        .route("/ipfs/add_json", post(upload::ipfs_json))
        .route("/storage/metadata/{hash}", get(storage::metadata))
        .route("/storage/count/{hash}", get(storage::count))
        .route("/storage/limits.json", get(storage::limits))
        .route(
            "/storage/by-message-hash/{hash}",
            get(storage::by_message_hash),
        )
        .route("/storage/by-ref/{ref}", get(storage::by_ref))
        .route(
            "/storage/by-ref/{address}/{ref}",
            get(storage::by_owner_ref),
        )
        .route("/storage/raw/{hash}", get(storage::raw))
        .route("/storage/{hash}", get(storage::base64_json))
        .route("/info/public.json", get(info::public))
        .route("/programs/on/message", get(info::on_message))
        .route("/version", get(info::version))
        .layer(DefaultBodyLimit::max(MAX_BODY));
    let uploads = Router::new()
        .route("/storage/add_file", post(upload::storage_file))
        .route("/ipfs/add_file", post(upload::ipfs_file))
        .route("/ipfs/add_car", post(car::add_car))
        // Enforced while the file streams to disk, by who sends it.
        .layer(DefaultBodyLimit::disable());
    Router::new()
        .nest("/api/v0", v0.merge(uploads))
        .route("/api/v1/posts.json", get(posts::list_v1))
        .route("/api/v1/posts/page/{page}", get(posts::list_v1_numbered))
        .route("/api/v1/addresses/stats.json", get(accounts::stats_v1))
        .route("/api/ws0/messages", get(websocket::messages))
        .route("/version", get(info::version))
        .route("/api/ws0/status", get(websocket::status))
        .route("/metrics", get(metrics::metrics))
        .route("/metrics.json", get(metrics::metrics_json))
        .with_state(node)
}

/// Wraps every route, the scheduler's too.
pub fn with_cors(router: Router) -> Router {
    router.layer(axum::middleware::from_fn(cors))
}
