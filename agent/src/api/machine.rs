//! What owners do with one machine. Answers are bare text, as clients expect.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::owner::{self, Owned};
use super::{ApiError, App};
use crate::ledger::{self, Source};

/// How long an answer waits for what was asked to have happened; it goes on either way.
const PATIENCE: Duration = Duration::from_secs(55);

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
    app.reconciler
        .run(&record.hash, record.source, true)
        .await?;
    Ok(format!("Started VM with ref {}", record.hash))
}

/// `POST /control/machine/{hash}/reboot`
pub(super) async fn reboot(
    State(app): State<App>,
    Owned(record): Owned,
) -> Result<String, ApiError> {
    if record.state == ledger::State::Running {
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

/// `POST /control/machine/{hash}/update`, unsigned: reads the owner's port forwarding again.
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
    app.reconciler.refresh_ports(&hash).await?;
    Ok(Json(json!({})))
}

const fn is_active(state: &ledger::State) -> bool {
    use ledger::State as S;
    matches!(
        state,
        S::Fetching | S::Prepared | S::Starting | S::Running | S::Stopping
    )
}
