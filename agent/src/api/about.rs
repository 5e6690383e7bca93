//! What the node says about itself, unsigned: lists of machines, usage, configuration, checks.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Html;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::time_text::text;
use super::{ApiError, App, COMPATIBLE_VERSION, Shared, version};
use crate::ledger::{self, PortMapping, Record};
use crate::metrics;
use crate::net::{IPV4_PREFIX, IPV6_PREFIX, Plan};
use crate::reconcile::host::Place;

/// `GET /about/executions/list`: what runs.
pub(super) async fn executions_v1(
    State(app): State<App>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let mut list = Map::new();
    for record in app.ledger.all().await? {
        // One that its owner has paused holds its place as one that runs.
        let here = matches!(record.state, ledger::State::Running | ledger::State::Paused);
        if !here {
            continue;
        }
        let Some((plan, kind)) = place(&app, &record) else {
            continue;
        };
        let networking = json!({ "ipv4": ipv4_network(&plan), "ipv6": ipv6_network(&plan) });
        list.insert(
            record.hash.to_string(),
            json!({ "networking": networking, "vm_type": kind, "awaiting_confidential_init": false }),
        );
    }
    Ok(Json(list))
}

/// `GET /v2/about/executions/list`: every machine that has its place here, stopped ones too.
pub(super) async fn executions_v2(
    State(app): State<App>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let mut list = Map::new();
    for record in app.ledger.all().await? {
        // Clients give up on the whole list when one entry has no addresses.
        let Some((plan, kind)) = place(&app, &record) else {
            continue;
        };
        let ports: Map<_, _> = record.ports.iter().map(mapping).collect();
        let times = &record.times;
        let at = |time: Option<i64>| time.map(text);
        let entry = json!({
            "networking": {
                "ipv4_network": ipv4_network(&plan),
                "host_ipv4": app.host_ipv4.map(|address| address.to_string()).unwrap_or_default(),
                "ipv6_network": ipv6_network(&plan),
                "ipv6_ip": plan.ipv6.to_string(),
                "ipv4_ip": plan.ipv4.to_string(),
                "mapped_ports": ports,
            },
            "status": {
                "defined_at": text(times.defined),
                "preparing_at": at(times.preparing),
                "prepared_at": at(times.prepared),
                "starting_at": at(times.starting),
                "started_at": at(times.started),
                "stopping_at": at(times.stopping),
                "stopped_at": at(times.stopped),
            },
            "running": record.state == ledger::State::Running,
            "awaiting_confidential_init": false,
            "vm_type": kind,
        });
        list.insert(record.hash.to_string(), entry);
    }
    Ok(Json(list))
}

/// A forwarded port as clients read it.
pub(super) fn mapping(port: &PortMapping) -> (String, Value) {
    let mapping = json!({ "host": port.host_port, "tcp": port.tcp, "udp": port.udp });
    (port.guest_port.to_string(), mapping)
}

/// `GET /debug/haproxy`: there is none, which is said as a node whose proxy is down says it (spec crn-api §1.7).
pub(super) async fn haproxy() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, r#"{"status": "no socket"}"#)
}

/// `GET /about/certificates`: this node has no confidential computing (spec crn-api §6).
pub(super) async fn certificates() -> ApiError {
    let text = "Confidential computing setting not enabled on that server";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text)
}

fn place(app: &Shared, record: &Record) -> Option<(Plan, &'static str)> {
    let (kind, slot) = (record.kind?, record.lease?.slot);
    let plan = app
        .host
        .addresses(&record.hash, Place { slot, kind })
        .ok()?;
    Some((plan, kind.word()))
}

fn ipv4_network(plan: &Plan) -> String {
    format!("{}/{IPV4_PREFIX}", plan.ipv4_network)
}

fn ipv6_network(plan: &Plan) -> String {
    format!("{}/{IPV6_PREFIX}", plan.ipv6_network)
}

/// `GET /about/usage/system`
pub(super) async fn usage(State(app): State<App>) -> Result<Json<metrics::Usage>, ApiError> {
    let promised = app.ledger.disk_held().await?;
    let config = Arc::clone(&app.config);
    Ok(Json(
        blocking(move || metrics::usage(&config.state_dir, promised)).await?,
    ))
}

/// `GET /about/capability`
pub(super) async fn capability() -> Result<Json<metrics::Capability>, ApiError> {
    Ok(Json(blocking(metrics::capability).await?))
}

/// Work that blocks for a moment.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let ended = |_| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the node is shutting down");
    tokio::task::spawn_blocking(work).await.map_err(ended)
}

/// `GET /status/config`
pub(super) async fn config(State(app): State<App>) -> Json<Value> {
    let config = &app.config;
    Json(json!({
        "DOMAIN_NAME": config.domain,
        "node_hash": config.node.hash,
        "version": COMPATIBLE_VERSION,
        "implementation": { "name": "crn-agent", "version": env!("CARGO_PKG_VERSION") },
        "references": { "API_SERVER": config.ccn, "CHECK_FASTAPI_VM_ID": config.checks.program, "CONNECTOR_URL": null },
        "security": {
            "USE_JAILER": false,
            "PRINT_SYSTEM_LOGS": true,
            "WATCH_FOR_UPDATES": true,
            "ALLOW_VM_NETWORKING": true,
            "USE_DEVELOPER_SSH_KEYS": false,
        },
        "networking": {
            "IPV6_ADDRESS_POOL": config.network.ipv6_pool,
            "IPV6_ALLOCATION_POLICY": "IPv6AllocationPolicy.static",
            "IPV6_SUBNET_PREFIX": IPV6_PREFIX,
            "IPV6_FORWARDING_ENABLED": true,
            "USE_NDP_PROXY": true,
        },
        "debug": { "SENTRY_DSN_CONFIGURED": false, "DEBUG_ASYNCIO": false, "EXECUTION_LOG_ENABLED": false },
        "payment": {
            "PAYMENT_RECEIVER_ADDRESS": config.payment_receiver(),
            "AVAILABLE_PAYMENTS": {},
            "PAYMENT_MONITOR_INTERVAL": 60.0,
        },
        "computing": {
            "ENABLE_QEMU_SUPPORT": true,
            "INSTANCE_DEFAULT_HYPERVISOR": "qemu",
            "ENABLE_CONFIDENTIAL_COMPUTING": false,
            "ENABLE_GPU_SUPPORT": false,
        },
    }))
}

/// `GET /status/check/ipv6`: whether the host has a way to the IPv6 internet, and whether guests' packets are
/// forwarded on it.
pub(super) async fn check_ipv6() -> Result<Json<Value>, ApiError> {
    let (host, forwarding) = blocking(|| {
        let flag =
            std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding").unwrap_or_default();
        (has_ipv6_route(), flag.trim() == "1")
    })
    .await?;
    Ok(Json(json!({ "host": host, "vm": host && forwarding })))
}

/// Connecting a datagram socket looks up the route and sends nothing. 2000::/3 is what is routed globally.
fn has_ipv6_route() -> bool {
    let somewhere = SocketAddr::from((Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1), 9));
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect(somewhere))
        .is_ok()
}

#[derive(Deserialize)]
pub(super) struct Reference {
    reference: Option<String>,
}

/// `GET /status/check/version?reference=1.2.3`
pub(super) async fn check_version(Query(query): Query<Reference>) -> Result<String, ApiError> {
    let bad = || {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "Query field 'reference' must be a version such as 1.2.3",
        )
    };
    let reference = query.reference.ok_or_else(bad)?;
    if version::is_at_least(COMPATIBLE_VERSION, &reference).ok_or_else(bad)? {
        Ok(format!(
            "Up-to-date: version {COMPATIBLE_VERSION} >= {reference}"
        ))
    } else {
        Err(ApiError::new(
            StatusCode::FORBIDDEN,
            format!("Outdated: version {COMPATIBLE_VERSION} < {reference}"),
        ))
    }
}

/// `GET /` on the node's own name.
pub(super) fn index(app: &Shared) -> Html<String> {
    let name = app.config.domain.replace(['<', '>', '&', '"'], "");
    Html(format!(
        "<!doctype html><title>Compute node {name}</title><h1>Compute node {name}</h1>\
         <p><a href=/status/config>configuration</a>, <a href=/about/usage/system>usage</a>, \
         <a href=/v2/about/executions/list>machines</a></p>\n"
    ))
}
