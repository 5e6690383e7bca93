//! The HTTP API. Compatible with what published clients expect of a compute node: paths, shapes, status codes, texts.
//!
//! Own errors are JSON `{"error": …}`; a program's answers are passed through untouched.

mod about;
mod allocations;
mod checks;
mod console;
mod drain;
mod error;
mod logs;
mod machine;
mod operator;
mod owner;
mod programs;
mod prometheus;
mod time_text;
mod version;
mod viewers;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use aleph_message::ItemHash;
use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tokio::time::Instant;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};

pub use self::drain::Drain;
pub use self::error::ApiError;
use self::viewers::{Place, Viewers};
use crate::auth::operator::OperatorToken;
use crate::auth::scheduler::Schedulers;
use crate::config::Config;
use crate::intake::Intake;
use crate::ledger::Ledger;
use crate::reconcile::Reconciler;
use crate::reconcile::host::Hypervisor;

/// The interface's version: that of the implementation whose interface this is. Clients compare it.
pub const COMPATIBLE_VERSION: &str = "1.14.0";
const SERVER: HeaderValue = HeaderValue::from_static("aleph-vm/1.14.0");

/// Of what a library says when it refuses a request, so many bytes are passed on.
const MAX_REFUSAL: usize = 4096;

/// What the handlers share.
pub struct Shared {
    /// The configuration.
    pub config: Arc<Config>,
    /// What runs and what is wanted.
    pub ledger: Ledger,
    /// Messages and what the core channel node knows.
    pub intake: Intake,
    /// The machines.
    pub reconciler: Reconciler,
    /// Addresses and logs.
    pub host: Arc<dyn Hypervisor>,
    /// Who may push allocations.
    pub schedulers: Schedulers,
    /// The address at which forwarded ports are reached.
    pub host_ipv4: Option<Ipv4Addr>,
    /// Who the operator is.
    pub operator: OperatorToken,
    /// Viewers of logs, consoles and events.
    pub viewers: Arc<Viewers>,
    /// What is under way when this agent ends.
    pub drain: Arc<Drain>,
    /// When the port wishes of a machine were last read because somebody said so.
    updates: Mutex<HashMap<ItemHash, Instant>>,
}

impl Shared {
    /// A place for one who goes on looking at a machine, or at all of them.
    fn view(&self, of: Option<&ItemHash>) -> Result<Place, ApiError> {
        let place = self.viewers.take(of);
        place.map_err(|text| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text))
    }
}

/// What a handler is given.
pub type App = Arc<Shared>;

impl Shared {
    /// The state of a fresh API.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        ledger: Ledger,
        intake: Intake,
        reconciler: Reconciler,
        host: Arc<dyn Hypervisor>,
        host_ipv4: Option<Ipv4Addr>,
        operator: OperatorToken,
    ) -> App {
        Arc::new(Self {
            schedulers: Schedulers::new(&config.trust, ledger.clone(), intake.ccn.clone()),
            // A node known by an address is reached at it, whatever its own interface is called.
            host_ipv4: config.domain.parse().ok().or(host_ipv4),
            config,
            ledger,
            intake,
            reconciler,
            host,
            operator,
            viewers: Arc::default(),
            drain: Arc::default(),
            updates: Mutex::default(),
        })
    }
}

/// All routes.
pub fn router(app: App) -> Router {
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request())
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .allow_credentials(true)
        .expose_headers(ExposeHeaders::list([
            header::CONTENT_TYPE,
            header::CONTENT_LENGTH,
            header::LOCATION,
            header::RETRY_AFTER,
            header::SERVER,
        ]));
    let open = Router::new()
        .route("/about/login", get(operator::login))
        .route("/about/executions/list", get(about::executions_v1))
        .route("/v2/about/executions/list", get(about::executions_v2))
        .route("/about/executions/records", get(operator::records))
        .route("/about/executions/details", get(operator::details))
        .route("/about/config", get(operator::config))
        .route("/about/usage/system", get(about::usage))
        .route("/about/capability", get(about::capability))
        .route("/about/certificates", get(about::certificates))
        .route("/status/config", get(about::config))
        .route("/debug/haproxy", get(about::haproxy))
        .route("/status/check/fastapi", get(checks::fastapi))
        .route("/status/check/fastapi/legacy", get(checks::fastapi_legacy))
        .route("/status/check/host", get(checks::host))
        .route("/status/check/ipv6", get(about::check_ipv6))
        .route("/status/check/version", get(about::check_version))
        .route("/control/allocation/notify", post(allocations::notify))
        .route("/control/reserve_resources", post(allocations::reserve))
        .route("/control/machine/{hash}/update", post(machine::update))
        .route("/control/{hash}/update", post(machine::update))
        .route("/control/machine/{hash}/stop", post(machine::stop))
        .route("/control/machine/{hash}/start", post(machine::start))
        .route("/control/machine/{hash}/pause", post(machine::pause))
        .route("/control/machine/{hash}/resume", post(machine::resume))
        .route("/control/machine/{hash}/reboot", post(machine::reboot))
        .route("/control/machine/{hash}/erase", post(machine::erase))
        .route(
            "/control/machine/{hash}/reinstall",
            post(machine::reinstall),
        )
        .route("/control/machine/{hash}/expire", post(machine::expire))
        .route("/control/machine/{hash}", get(machine::status))
        .route("/control/machine/{hash}/metrics", get(machine::metrics))
        .route(
            "/control/machine/{hash}/events",
            get(operator::machine_events),
        )
        .route("/control/machine/{hash}/console", get(console::attach))
        .route("/control/events", get(operator::events))
        .route(
            "/control/gc",
            get(operator::plan_collection).post(operator::collect),
        )
        .route("/control/machine/{hash}/logs", get(logs::history))
        .route("/control/machine/{hash}/stream_logs", get(logs::stream))
        .route_layer(middleware::from_fn(json_errors))
        .route_layer(cors);
    let closed = Router::new()
        .route("/control/allocations", post(allocations::push))
        .route(
            "/control/network/recreate",
            post(operator::recreate_network),
        )
        .route("/metrics", get(prometheus::prometheus))
        .route_layer(middleware::from_fn(json_errors));
    Router::new()
        .merge(open)
        .merge(closed)
        .route("/vm/{hash}", axum::routing::any(programs::by_path))
        .route("/vm/{hash}/", axum::routing::any(programs::by_path))
        .route("/vm/{hash}/{*path}", axum::routing::any(programs::by_path))
        .fallback(fallback)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            programs::by_host,
        ))
        .layer(middleware::from_fn(server_header))
        .with_state(app)
}

/// What the libraries refuse by themselves, another method or a query that is none, is said as everything else is.
async fn json_errors(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let is_json = response.headers().get(header::CONTENT_TYPE);
    let is_json = is_json.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, MAX_REFUSAL).await.unwrap_or_default();
    let text = match String::from_utf8_lossy(&text).trim() {
        "" => format!(
            "{}: {}",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default()
        ),
        text => text.to_owned(),
    };
    let mut response = ApiError::new(status, text).into_response();
    for (name, value) in &parts.headers {
        if !response.headers().contains_key(name) && name != header::CONTENT_LENGTH {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}

async fn server_header(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::SERVER, SERVER);
    response
}

async fn fallback(State(app): State<App>, request: Request) -> Response {
    let path = request.uri().path();
    // Whatever else is sent is for a program that does not exist, as at older nodes (spec crn-api §1.1, rows 44 and 47).
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let own = ["/about/", "/control/", "/status/"];
    if is_read && own.iter().any(|prefix| path.starts_with(prefix)) {
        return ApiError::new(StatusCode::NOT_FOUND, "404: Not Found").into_response();
    }
    let own_name = |host: &str| host == app.config.domain;
    if is_read && path == "/" && programs::host_of(&request).is_none_or(own_name) {
        return about::index(&app).into_response();
    }
    ApiError::new(StatusCode::NOT_FOUND, "404: Invalid message reference").into_response()
}
