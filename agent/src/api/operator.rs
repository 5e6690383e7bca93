//! What is the operator's alone: the configuration, the records, events of all machines, garbage collection.
//! An operator shows the token of the node's `operator.token` file, or signs with the node owner's wallet.

use std::collections::HashMap;
use std::convert::Infallible;

use axum::Json;
use axum::extract::{FromRequestParts, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{self, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, stream};
use serde_json::{Map, Value, json};

use super::owner::{self, Owned};
use super::{ApiError, App, allocations, machine};
use crate::intake::Intake;
use crate::ledger::{self, Record};

/// Events read from the ledger at a time.
const EVENTS: u32 = 100;

/// Whoever calls is the operator.
pub(super) struct Operator;

impl FromRequestParts<App> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        if app.operator.in_headers(&parts.headers) {
            return Ok(Self);
        }
        if parts.headers.contains_key("X-SignedPubKey") {
            let sender = owner::sender_once(app, &parts.method, &parts.uri, &parts.headers).await?;
            let node = app.config.node.owner.as_deref();
            if node.is_some_and(|node| node.eq_ignore_ascii_case(&sender.address)) {
                return Ok(Self);
            }
        }
        Err(ApiError::new(StatusCode::UNAUTHORIZED, "401 Invalid token"))
    }
}

/// `GET /about/login?token=`: a cookie for the operator. Measuring clients look for the 401.
pub(super) async fn login(
    State(app): State<App>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    match query.get("token").filter(|token| app.operator.is(token)) {
        Some(token) => {
            let cookie = format!("token={token}; Path=/; HttpOnly; SameSite=Strict");
            let headers = [
                (header::LOCATION, "/about/config".to_owned()),
                (header::SET_COOKIE, cookie),
            ];
            (StatusCode::FOUND, headers).into_response()
        }
        None => (StatusCode::UNAUTHORIZED, Json(json!({ "success": false }))).into_response(),
    }
}

/// `GET /about/config`: every setting; none of them is secret but the token's digest.
pub(super) async fn config(State(app): State<App>, _: Operator) -> Json<Value> {
    let config = &app.config;
    Json(json!({
        "listen": config.listen,
        "domain": config.domain,
        "ccn": config.ccn,
        "state_dir": config.state_dir,
        "run_dir": config.run_dir,
        "node": {
            "hash": config.node.hash,
            "owner": config.node.owner,
            "payment_receiver": config.payment_receiver(),
            "terms_and_conditions": config.node.terms_and_conditions,
        },
        "trust": {
            "allocation_signers": config.trust.allocation_signers,
            "allocation_signer_files": config.trust.allocation_signer_files,
            "settings": config.trust.settings,
            "ccns": config.trust.ccns,
            "quorum": config.trust.quorum,
            "legacy_token": config.trust.legacy_token_sha256.is_some(),
        },
        "network": {
            "interface": config.network.interface,
            "ipv4_pool": config.network.ipv4_pool,
            "ipv6_pool": config.network.ipv6_pool,
            "dns": config.network.dns,
            "host_ports": config.network.host_ports.to_string(),
            "guest_megabits": config.network.guest_megabits,
            "guest_connections": config.network.guest_connections,
        },
        "limits": {
            "host_memory_mib": config.limits.host_memory_mib,
            "vcpu_overcommit": config.limits.vcpu_overcommit,
            "host_disk_mib": config.limits.host_disk_mib,
            "max_file_bytes": config.limits.max_file_bytes,
            "console_bytes": config.limits.console_bytes,
            "log_bytes": config.limits.log_bytes,
            "crashes": config.limits.crashes,
        },
        "program": {
            "start_timeout_seconds": config.program.start_timeout.as_secs(),
            "idle_seconds": config.program.idle.as_secs(),
            "min_timeout_seconds": config.program.min_timeout.as_secs(),
            "timeout_multiplier": config.program.timeout_multiplier,
            "drain_seconds": config.program.drain.as_secs(),
        },
        "sandbox": {
            "cgroups": config.sandbox.cgroups,
            "disk_bytes_per_second": config.sandbox.disk_bytes_per_second,
        },
        "checks": {
            "program": config.checks.program,
            "ipv4": config.checks.ipv4,
            "ipv6": config.checks.ipv6,
            "host": config.checks.host,
        },
        "retention": {
            "program_hours": config.retention.program_hours,
            "stopped_hours": config.retention.stopped_hours,
            "program_quota_percent": config.retention.program_quota_percent,
            "cache_hours": config.retention.cache_hours,
            "cache_mib": config.retention.cache_mib,
        },
    }))
}

/// `GET /about/executions/records`: what the ledger holds of every machine, with its message (spec crn-api §1.6).
pub(super) async fn records(State(app): State<App>) -> Result<Json<Vec<Value>>, ApiError> {
    let latest: HashMap<_, _> = app.reconciler.history().latest().into_iter().collect();
    let seconds = |us: u64| us as f64 / 1e6;
    let mut rows = Vec::new();
    for record in app.ledger.all().await? {
        if record.state == ledger::State::Erased {
            continue;
        }
        let counters = latest
            .get(&record.hash)
            .map(|sample| sample.counters)
            .unwrap_or_default();
        let time = |at: Option<i64>| at.map(super::time_text::text);
        let ports: Map<_, _> = record.ports.iter().map(super::about::mapping).collect();
        let (message, original) = contents(&record).unzip();
        rows.push(json!({
            "uuid": record.hash,
            "vm_hash": record.hash,
            "vm_id": record.lease.map(|lease| lease.slot),
            "time_defined": time(Some(record.times.defined)),
            "time_prepared": time(record.times.prepared),
            "time_started": time(record.times.started),
            "time_stopping": time(record.times.stopping),
            "cpu_time_user": seconds(counters.cpu_us),
            "cpu_time_system": null,
            "io_read_count": null,
            "io_write_count": null,
            "io_read_bytes": counters.disk_read_bytes,
            "io_write_bytes": counters.disk_written_bytes,
            "vcpus": record.lease.map(|lease| lease.vcpus),
            "memory": record.lease.map(|lease| lease.memory_mib),
            "network_tap": record.lease.map(|lease| format!("vmtap{}", lease.slot)),
            "message": message,
            "original_message": original,
            "persistent": record.kind.map(|kind| kind != ledger::Kind::Microvm),
            "gpus": "[]",
            "mapped_ports": ports,
        }));
    }
    Ok(Json(rows))
}

/// The content that counts and the one that was first, as JSON texts; nothing before the message is here.
fn contents(record: &Record) -> Option<(String, String)> {
    let kept = Intake::kept(&record.hash, record.message.as_ref()?).ok()?;
    let newest = kept.amendment.as_deref().unwrap_or(&kept);
    Some((newest.content.raw.to_string(), kept.content.raw.to_string()))
}

/// `GET /about/executions/details`: everything the ledger knows, for looking for faults.
pub(super) async fn details(
    State(app): State<App>,
    _: Operator,
) -> Result<Json<Vec<Value>>, ApiError> {
    let detail = |record: Record| {
        let dump = json!({
            "source": record.source.word(),
            "desired": record.desired.word(),
            "held": record.held,
            "state": format!("{:?}", record.state),
            "lease": format!("{:?}", record.lease),
            "times": format!("{:?}", record.times),
            "ports": format!("{:?}", record.ports),
        });
        json!({ record.hash.as_str(): dump })
    };
    Ok(Json(
        app.ledger.all().await?.into_iter().map(detail).collect(),
    ))
}

/// `POST /control/network/recreate`, the scheduler's: the firewall's rules are made anew (spec crn-api §1.8).
pub(super) async fn recreate_network(
    State(app): State<App>,
    request: Request,
) -> Result<Response, ApiError> {
    allocations::scheduled(&app, request).await?;
    if let Err(error) = app.reconciler.renew_rules().await {
        let body = json!({ "success": false, "error": error });
        return Ok((StatusCode::INTERNAL_SERVER_ERROR, Json(body)).into_response());
    }
    let records = app.ledger.all().await?;
    let running: Vec<_> = records
        .iter()
        .filter(|record| record.state.may_have_process())
        .map(|record| record.hash.to_string())
        .collect();
    let body = json!({
        "success": true,
        "removed_chains_count": 0,
        "removed_chains": [],
        "recreated_count": running.len(),
        "failed_count": 0,
        "recreated_vms": running,
        "failed_vms": [],
    });
    Ok(Json(body).into_response())
}

/// `GET /control/gc`: what garbage collection would do with each machine now, and why.
pub(super) async fn plan_collection(
    State(app): State<App>,
    _: Operator,
) -> Result<Json<Value>, ApiError> {
    collection(&app, false).await
}

/// `POST /control/gc`: does it.
pub(super) async fn collect(State(app): State<App>, _: Operator) -> Result<Json<Value>, ApiError> {
    collection(&app, true).await
}

async fn collection(app: &App, act: bool) -> Result<Json<Value>, ApiError> {
    let mut shown = Vec::new();
    for decision in app.reconciler.collectable().await? {
        let erased = act && decision.goes && app.reconciler.collect(&decision).await?;
        shown.push(json!({
            "vm_hash": decision.vm,
            "erase": decision.goes,
            "erased": erased,
            "reason": decision.reason,
            "disk_mib": decision.disk_mib,
        }));
    }
    let unreadable = |error: std::io::Error| {
        let text = format!("the cache cannot be read: {error}");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    };
    let unused = app.reconciler.unused_files().await.map_err(unreadable)?;
    if act {
        app.reconciler.sweep_files().await;
    }
    let files = unused.iter().map(|file| {
        json!({
            "file": file.name,
            "bytes": file.bytes,
            "erase": file.goes,
            "reason": file.reason,
        })
    });
    let files: Vec<_> = files.collect();
    Ok(Json(
        json!({ "dry_run": !act, "machines": shown, "files": files }),
    ))
}

type Events = Sse<sse::KeepAliveStream<EventStream>>;
type EventStream = std::pin::Pin<Box<dyn Stream<Item = Result<sse::Event, Infallible>> + Send>>;

/// `GET /control/events`, server-sent events: every machine's changes of state from now on, or since `Last-Event-ID`.
pub(super) async fn events(
    State(app): State<App>,
    _: Operator,
    headers: HeaderMap,
) -> Result<Events, ApiError> {
    stream_events(app, None, &headers)
}

/// `GET /control/machine/{hash}/events`: the same of one machine, for its owner, with those of the past.
pub(super) async fn machine_events(
    State(app): State<App>,
    Owned(record): Owned,
    headers: HeaderMap,
) -> Result<Events, ApiError> {
    stream_events(app, Some(record), &headers)
}

fn stream_events(
    app: App,
    record: Option<Record>,
    headers: &HeaderMap,
) -> Result<Events, ApiError> {
    let place = app.view(record.as_ref().map(|record| &record.hash))?;
    let changes = app.ledger.changes();
    let last = headers
        .get("Last-Event-ID")
        .and_then(|id| id.to_str().ok()?.parse::<i64>().ok());
    let first = if record.is_some() {
        0
    } else {
        *changes.borrow()
    };
    let from = (app, changes, record, last.unwrap_or(first));
    let batches = stream::unfold(from, |(app, mut changes, record, after)| async move {
        loop {
            changes.mark_unchanged();
            let vm = record.as_ref().map(|record| &record.hash);
            let found = app.ledger.events(vm, after, EVENTS).await.ok()?;
            if let Some(last) = found.last() {
                let next = last.id;
                return Some((found, (app, changes, record, next)));
            }
            changes.changed().await.ok()?;
        }
    });
    let events = futures_util::StreamExt::flat_map(batches, |batch| {
        stream::iter(batch.into_iter().map(|event| {
            let data = machine::event(&event).to_string();
            Ok(sse::Event::default()
                .id(event.id.to_string())
                .event("state")
                .data(data))
        }))
    });
    // The place is given back with the stream.
    let events: EventStream = Box::pin(futures_util::StreamExt::map(events, move |event| {
        let _ = &place;
        event
    }));
    Ok(Sse::new(events).keep_alive(sse::KeepAlive::default()))
}
