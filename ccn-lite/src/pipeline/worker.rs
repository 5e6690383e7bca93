//! Background work: pending messages when they are due, and files whose grace is over.

use std::time::Duration;

use crate::node::Node;
use crate::store::{StoreError, files, now, pending};

/// Pending messages taken at once.
const BATCH: u32 = 32;
/// Pause after a database error.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest sleep without looking.
const IDLE: f64 = 60.0;
/// How often files are collected.
const COLLECT_EVERY: Duration = Duration::from_secs(600);

async fn round(node: &Node) -> Result<Duration, StoreError> {
    loop {
        let due = node
            .store
            .read::<_, StoreError, _>(|conn| pending::due(conn, now(), BATCH))
            .await?;
        if due.is_empty() {
            break;
        }
        for message in due {
            super::process(node, message).await?;
        }
    }
    let next = node
        .store
        .read::<_, StoreError, _>(pending::next_due)
        .await?
        .map_or(IDLE, |at| at - now());
    Ok(Duration::from_secs_f64(next.clamp(0.01, IDLE)))
}

/// Processes pending messages for ever.
pub async fn run(node: Node) {
    loop {
        let sleep = match round(&node).await {
            Ok(sleep) => sleep,
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::error!(%error, "cannot process pending messages");
                PAUSE
            }
        };
        tokio::select! {
            () = tokio::time::sleep(sleep) => {}
            () = node.due.notified() => {}
        }
    }
}

/// Removes files nothing holds any more, for ever.
///
/// The row goes first: a crash between the two leaves an orphaned blob, never a known file without bytes.
pub async fn collect(node: Node) {
    let mut timer = tokio::time::interval(COLLECT_EVERY);
    loop {
        timer.tick().await;
        let collected = node
            .store
            .write::<_, StoreError, _>(|conn| files::collect(conn, now()))
            .await;
        let hashes = match collected {
            Ok(hashes) => hashes,
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::error!(%error, "cannot collect files");
                continue;
            }
        };
        let blobs = node.blobs.clone();
        let removal = tokio::task::spawn_blocking(move || {
            for hash in hashes {
                match blobs.remove(&hash) {
                    Ok(()) => tracing::info!(file = hash, "removed file"),
                    Err(error) => tracing::warn!(file = hash, %error, "cannot remove file"),
                }
            }
        });
        if removal.await.is_err() {
            return;
        }
    }
}
