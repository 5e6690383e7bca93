//! Background work: pending messages when they are due, and files whose grace is over.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};

use crate::node::Node;
use crate::store::{StoreError, files, now, pending};

/// Pending messages taken at once.
const BATCH: u32 = 256;
/// Pending messages in work at once.
const CONCURRENCY: usize = 32;
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
        // Messages that arrive together share a commit; those that depend on one another wake one another.
        futures_util::stream::iter(due)
            .map(Ok)
            .try_for_each_concurrent(CONCURRENCY, |message| async {
                super::process(node, message).await.map(drop)
            })
            .await?;
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
pub async fn collect(node: Node) {
    let mut timer = tokio::time::interval(COLLECT_EVERY);
    loop {
        timer.tick().await;
        match collect_once(&node).await {
            Ok(()) => {}
            Err(StoreError::Closed) => return,
            Err(error) => tracing::error!(%error, "cannot collect files"),
        }
    }
}

/// The rows go first: a crash between the two leaves orphaned blobs, never a known file without bytes. An upload of the
/// same file may come in between, so a blob loses its name where uploads become known: in the writer.
async fn collect_once(node: &Node) -> Result<(), StoreError> {
    let hashes = node
        .store
        .write::<_, StoreError, _>(|conn| files::collect(conn, now()))
        .await?;
    for hash in hashes {
        let blobs = node.blobs.clone();
        let retired = node
            .store
            .write::<_, StoreError, _>(move |conn| {
                if files::get(conn, &hash)?.is_some() {
                    return Ok(None);
                }
                Ok(match blobs.retire(&hash) {
                    Ok(retired) => Some((hash, retired)),
                    Err(error) => {
                        tracing::warn!(file = hash, %error, "cannot remove file");
                        None
                    }
                })
            })
            .await?;
        if let Some((hash, retired)) = retired {
            tokio::task::spawn_blocking(move || drop(retired))
                .await
                .map_err(|_| StoreError::Closed)?;
            tracing::info!(file = hash, "removed file");
        }
    }
    Ok(())
}
