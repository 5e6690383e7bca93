//! An agent that ends takes no new requests for programs and finishes those it has (spec crn-api §1.0). Machines and
//! whatever else was asked for are in the ledger: there is nothing to wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::StatusCode;
use tokio::sync::watch;

use super::ApiError;

/// Counts the requests that are being answered.
#[derive(Debug, Default)]
pub struct Drain {
    begun: AtomicBool,
    runs: watch::Sender<usize>,
}

/// A request that is being answered, until this is dropped.
#[derive(Debug)]
pub struct Run(Arc<Drain>);

impl Drop for Run {
    fn drop(&mut self) {
        self.0.runs.send_modify(|runs| *runs -= 1);
    }
}

impl Drain {
    /// Lets a request in.
    ///
    /// # Errors
    /// 503 once the end has begun.
    pub fn enter(self: &Arc<Self>) -> Result<Run, ApiError> {
        // Counted before the look, so that whoever waits for the last one cannot miss this one.
        self.runs.send_modify(|runs| *runs += 1);
        let run = Run(Arc::clone(self));
        if self.begun.load(Ordering::SeqCst) {
            let text = "Server is draining, try another node";
            return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text));
        }
        Ok(run)
    }

    /// Lets nobody in any more, and returns when the last answer is sent.
    pub async fn finish(&self) {
        self.begun.store(true, Ordering::SeqCst);
        let mut runs = self.runs.subscribe();
        // The sender is this one's own.
        let _ = runs.wait_for(|runs| *runs == 0).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_end_waits_for_whoever_was_let_in_and_lets_nobody_in() {
        let drain = Arc::<Drain>::default();
        let run = drain.enter().unwrap();
        let waiting = tokio::spawn({
            let drain = Arc::clone(&drain);
            async move { drain.finish().await }
        });
        while !drain.begun.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        assert!(drain.enter().is_err());
        assert!(drain.finish().now_or_never().is_none());
        drop(run);
        tokio::time::timeout(Duration::from_secs(20), waiting)
            .await
            .unwrap()
            .unwrap();
    }
}
