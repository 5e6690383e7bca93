//! What owners do with one machine. Answers are bare text, as clients expect.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use aleph_message::ItemHash;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::logs::since;
use super::owner::{self, Owned};
use super::time_text::text;
use super::{ApiError, App, Shared};
use crate::ledger::{self, Source, now_us};
use crate::metrics::history::{INTERVAL, Sample};
use crate::reconcile::kept_workload;

/// How long an answer waits for what was asked to have happened; it goes on either way.
const PATIENCE: Duration = Duration::from_secs(55);
/// The longest time until an expiry, in seconds: ten days, as in older nodes.
const LONGEST_EXPIRY: f64 = 864_000.0;
/// Between two readings of a machine's port wishes that strangers ask for.
const TURN: Duration = Duration::from_secs(1);
/// Of a machine's events, so many are shown.
const EVENTS: u32 = 200;

/// `POST /control/machine/{hash}/stop`: disks stay; pushes do not start it until its owner does.
pub(super) async fn stop(State(app): State<App>, Owned(record): Owned) -> Result<String, ApiError> {
    app.reconciler.stop(&record.hash, true).await?;
    if !is_active(&record.state) {
        return Ok("Already stopped, nothing to do".to_owned());
    }
    app.reconciler
        .settle(&record.hash, PATIENCE, |state| !is_active(state))
        .await;
    Ok(format!("Stopped VM with ref {}", record.hash))
}

/// `POST /control/machine/{hash}/start`: also tries a failed one again.
pub(super) async fn start(
    State(app): State<App>,
    Owned(record): Owned,
) -> Result<String, ApiError> {
    app.reconciler.expire(&record.hash, None).await?;
    app.reconciler
        .run(&record.hash, record.source, true)
        .await?;
    Ok(format!("Started VM with ref {}", record.hash))
}

/// `POST /control/machine/{hash}/pause`: it stands still, memory and all, until it is resumed.
pub(super) async fn pause(
    State(app): State<App>,
    Owned(record): Owned,
) -> Result<String, ApiError> {
    if !app.reconciler.pause(&record.hash).await? {
        let text = format!(
            "VM with ref {} is {}: only a running one can be paused",
            record.hash,
            record.state.word()
        );
        return Err(ApiError::new(StatusCode::CONFLICT, text));
    }
    app.reconciler
        .settle(&record.hash, PATIENCE, |state| {
            *state != ledger::State::Running
        })
        .await;
    Ok(format!("Paused VM with ref {}", record.hash))
}

/// `POST /control/machine/{hash}/resume`
pub(super) async fn resume(
    State(app): State<App>,
    Owned(record): Owned,
) -> Result<String, ApiError> {
    if record.desired != ledger::Desired::Paused {
        let text = format!("VM with ref {} is not paused", record.hash);
        return Err(ApiError::new(StatusCode::CONFLICT, text));
    }
    app.reconciler
        .run(&record.hash, record.source, true)
        .await?;
    app.reconciler
        .settle(&record.hash, PATIENCE, |state| {
            *state != ledger::State::Paused
        })
        .await;
    Ok(format!("Resumed VM with ref {}", record.hash))
}

/// `POST /control/machine/{hash}/reboot`
pub(super) async fn reboot(
    State(app): State<App>,
    Owned(record): Owned,
) -> Result<String, ApiError> {
    if record.state == ledger::State::Paused {
        // What its owner had made stand still runs again.
        app.reconciler
            .run(&record.hash, record.source, false)
            .await?;
    }
    if matches!(record.state, ledger::State::Running | ledger::State::Paused) {
        app.reconciler.reboot(&record.hash);
        return Ok(format!("Rebooted VM with ref {}", record.hash));
    }
    app.reconciler
        .run(&record.hash, record.source, true)
        .await?;
    Ok(format!(
        "Starting VM (was not running) with ref {}",
        record.hash
    ))
}

/// `POST /control/machine/{hash}/erase`: all disks go, the root's too.
pub(super) async fn erase(
    State(app): State<App>,
    Owned(record): Owned,
) -> Result<String, ApiError> {
    app.reconciler.erase(&record.hash, true).await?;
    app.reconciler
        .settle(&record.hash, PATIENCE, |state| {
            *state == ledger::State::Erased
        })
        .await;
    Ok(format!("Erased VM with ref {}", record.hash))
}

/// `POST /control/machine/{hash}/reinstall?erase_volumes=true`: a new root disk from the image, and, unless told
/// otherwise, new volumes; then it runs.
pub(super) async fn reinstall(
    State(app): State<App>,
    Query(query): Query<HashMap<String, String>>,
    Owned(record): Owned,
) -> Result<String, ApiError> {
    let volumes = match query.get("erase_volumes").map(String::as_str) {
        None | Some("true" | "1") => true,
        Some("false" | "0") => false,
        Some(_) => {
            let text = "Query field 'erase_volumes' must be true or false";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, text));
        }
    };
    app.reconciler.reinstall(&record.hash, volumes).await?;
    Ok(format!("Reinstalled VM with ref {}", record.hash))
}

/// `POST /control/machine/{hash}/expire` with `{"timeout": seconds}`: it is stopped then, and its disks stay.
pub(super) async fn expire(
    State(app): State<App>,
    headers: HeaderMap,
    Owned(record): Owned,
    body: String,
) -> Result<String, ApiError> {
    owner::check_body(&headers, body.as_bytes())?;
    let timeout = serde_json::from_str::<Value>(&body)
        .ok()
        .and_then(|body| body.get("timeout")?.as_f64())
        .filter(|timeout| *timeout > 0.0 && *timeout < LONGEST_EXPIRY)
        .ok_or_else(|| {
            let text = "Invalid timeout duration: field 'timeout' must be a number of seconds from 0 to 864000";
            ApiError::new(StatusCode::BAD_REQUEST, text)
        })?;
    let at = now_us().saturating_add((timeout * 1e6) as i64);
    app.reconciler.expire(&record.hash, Some(at)).await?;
    Ok(format!(
        "Expiring VM with ref {} in {timeout:?} seconds",
        record.hash
    ))
}

/// `GET /control/machine/{hash}`: where it stands, what it holds, and what happened to it.
pub(super) async fn status(
    State(app): State<App>,
    Owned(record): Owned,
) -> Result<Json<Value>, ApiError> {
    let failure = match &record.state {
        ledger::State::Failed(failure) => Some(json!({
            "reason": failure.reason,
            "attempts": failure.attempts,
            "retry_at": failure.retry_at.map(text),
        })),
        _ => None,
    };
    let events = app.ledger.events(Some(&record.hash), 0, EVENTS).await?;
    let workload = kept_workload(&record);
    let fetching = match &workload {
        Some(workload) if record.state == ledger::State::Fetching => {
            app.intake.fetching(workload).await
        }
        _ => Vec::new(),
    };
    let unheeded = workload.map(|workload| workload.unheeded);
    let fetching = fetching.iter().map(|(fetching, bytes)| {
        json!({ "ref": fetching.reference, "file": fetching.file, "bytes": bytes })
    });
    let fetching: Vec<_> = fetching.collect();
    let times = &record.times;
    Ok(Json(json!({
        "vm_hash": record.hash,
        "vm_type": record.kind.map(ledger::Kind::word),
        "owner": record.owner,
        "payment": record.payment,
        "state": record.state.word(),
        "desired": record.desired.word(),
        "stopped_by_owner": record.held,
        "failure": failure,
        "fetching": fetching,
        "unheeded": unheeded.unwrap_or_default(),
        "reinstalling": record.wipe.is_some(),
        "expires_at": record.expires.map(text),
        "lease": record.lease.map(|lease| json!({
            "memory_mib": lease.memory_mib, "vcpus": lease.vcpus, "disk_mib": lease.disk_mib,
        })),
        "defined_at": text(times.defined),
        "started_at": times.started.map(text),
        "stopped_at": times.stopped.map(text),
        "events": events.iter().map(event).collect::<Vec<_>>(),
    })))
}

/// An event as clients see it.
pub(super) fn event(event: &ledger::Event) -> Value {
    json!({
        "id": event.id,
        "time": text(event.at),
        "vm_hash": event.vm,
        "state": event.state,
        "reason": event.reason,
    })
}

/// `GET /control/machine/{hash}/metrics?since=`: what it uses now and has used; sums since its start.
pub(super) async fn metrics(
    State(app): State<App>,
    Query(query): Query<HashMap<String, String>>,
    Owned(record): Owned,
) -> Result<Json<Value>, ApiError> {
    let since = since(&query)?;
    let show = |sample: &Sample| {
        let mut shown = json!(sample.counters);
        shown["time"] = text(sample.at).into();
        shown
    };
    let now = app
        .host
        .counters(&record.hash)
        .await
        .map(|counters| Sample {
            at: now_us(),
            counters,
        });
    let history = app.reconciler.history().of(&record.hash, since);
    Ok(Json(json!({
        "vm_hash": record.hash,
        "interval_seconds": INTERVAL.as_secs(),
        "now": now.as_ref().map(show),
        "history": history.iter().map(show).collect::<Vec<_>>(),
    })))
}

/// `POST /control/machine/{hash}/update`, unsigned: reads the owner's port forwarding again, once a second at most however
/// many ask (spec crn-api §9.3 S6).
pub(super) async fn update(
    State(app): State<App>,
    Path(reference): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let hash = owner::hash(&reference)?;
    let record = owner::machine(&app, &hash)
        .await?
        .ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "404: VM not found"))?;
    if record.source == Source::Request || record.lease.is_none() {
        return Ok(Json(
            json!({ "status": "ok", "msg": "VM not starting yet" }),
        ));
    }
    if takes_turn(&app, &hash).await {
        app.reconciler.refresh_ports(&hash).await?;
    }
    Ok(Json(json!({})))
}

/// Waits for a turn to read a machine's port wishes; false when somebody has taken one since this one came, and so reads what
/// this one would.
async fn takes_turn(app: &Shared, hash: &ItemHash) -> bool {
    let came = Instant::now();
    loop {
        let next = {
            let now = Instant::now();
            let mut turns = app.updates.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| now - *turn < TURN);
            match turns.get(hash) {
                None => {
                    turns.insert(hash.clone(), now);
                    return true;
                }
                Some(turn) if *turn >= came => return false,
                Some(turn) => *turn + TURN,
            }
        };
        tokio::time::sleep_until(next).await;
    }
}

const fn is_active(state: &ledger::State) -> bool {
    use ledger::State as S;
    matches!(
        state,
        S::Fetching | S::Prepared | S::Starting | S::Running | S::Paused | S::Stopping
    )
}
