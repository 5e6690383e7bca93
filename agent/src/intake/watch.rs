//! What happens in the network to what runs here: a WebSocket brings forgotten messages and new port wishes within
//! seconds, a [`look`] every few seconds finds what is in force no longer, a periodic sweep finds whatever both missed.
//! Every configured node is listened to, and none is believed: what one says makes all of them be asked. So a fact is acted
//! on when the node that completes the quorum tells of it.

mod look;

use std::sync::Arc;
use std::time::Duration;

use aleph_message::{Body, Envelope, ItemHash};
use futures_util::StreamExt as _;
use rand::Rng as _;
use serde_json::Value;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use self::look::{LOOK, Sight};
use super::Intake;
use super::ccn::Ccn;
use crate::ledger::{Ledger, LedgerError, State, now_us};
use crate::reconcile::Reconciler;

/// Between two sweeps.
pub const SWEEP: Duration = Duration::from_secs(60);
/// A connection that is silent this long is taken for dead: the other side pings every 30 s.
const SILENCE: Duration = Duration::from_secs(90);
/// The first and the longest wait before connecting again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The longest frame taken, in bytes.
const MAX_FRAME: usize = 2 * 1024 * 1024;
/// Asked for again at each connection, in seconds: clocks differ a little.
const OVERLAP: i64 = 10;

/// Watches for as long as the process runs.
#[derive(Clone)]
pub struct Watch {
    /// Whom to ask.
    pub intake: Intake,
    /// What is here.
    pub ledger: Ledger,
    /// Whom to tell.
    pub reconciler: Reconciler,
    /// Between two sweeps; [`SWEEP`].
    pub sweep: Duration,
}

impl Watch {
    /// Starts all watches.
    pub fn start(self) {
        let mut sights = Vec::new();
        for node in self.intake.ccn.nodes() {
            let (heard, watch) = (node.clone(), self.clone());
            tokio::spawn(async move { watch.listen_for_ever(&heard).await });
            let sight = Arc::<Sight>::default();
            sights.push(Arc::clone(&sight));
            let (looked_at, watch) = (node.clone(), self.clone());
            tokio::spawn(async move { watch.look_for_ever(&looked_at, &sight).await });
        }
        tokio::spawn(async move { self.sweep_for_ever(&sights).await });
    }

    async fn sweep_for_ever(&self, sights: &[Arc<Sight>]) {
        // By then it is known what is in force, and only the rest is asked about.
        tokio::time::sleep(LOOK.min(self.sweep)).await;
        loop {
            if let Err(error) = self.sweep(sights).await {
                tracing::error!("{}", crate::chain(&error));
            }
            tokio::time::sleep(self.sweep).await;
        }
    }

    /// Finds what no node has told. What it asks, it asks about many machines at a time.
    async fn sweep(&self, sights: &[Arc<Sight>]) -> Result<(), LedgerError> {
        let quorum = self.intake.ccn.quorum();
        if sights.iter().filter(|sight| sight.answers()).count() < quorum {
            // Whatever was asked, nobody could answer.
            return Ok(());
        }
        for (hash, _) in self.ledger.present().await? {
            let having = sights.iter().filter(|sight| sight.has(&hash));
            if having.count() < quorum {
                self.erase_if_gone(&hash).await?;
            }
        }
        self.reconciler.revise_all().await?;
        self.reconciler.refresh_all_ports().await?;
        self.reconciler.amend_all().await
    }

    async fn erase_if_here_and_gone(&self, hash: &ItemHash) -> Result<(), LedgerError> {
        let record = self.ledger.get(hash).await?;
        if record.is_some_and(|record| record.state != State::Erased) {
            self.erase_if_gone(hash).await?;
        }
        Ok(())
    }

    /// Erases a machine whose message is no more. Whoever says so, the core channel nodes are asked.
    async fn erase_if_gone(&self, hash: &ItemHash) -> Result<(), LedgerError> {
        match self.intake.status(hash).await {
            Ok(Some(status)) if matches!(status.as_str(), "forgotten" | "removed" | "rejected") => {
                if self.reconciler.erase(hash, false).await? {
                    tracing::info!(vm = %hash, status, "its message is gone: erasing");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(vm = %hash, "status unknown: {}", crate::chain(&error)),
        }
        Ok(())
    }

    async fn listen_for_ever(&self, node: &Ccn) {
        let mut since = now_us() / 1_000_000;
        let mut wait = BACKOFF.0;
        loop {
            let path = format!("/api/ws0/messages?startDate={}", since - OVERLAP);
            let url = node.websocket_url(&path);
            let listened = self.listen(node, &url, &mut since).await;
            if node.is_heard() {
                tracing::warn!(
                    url,
                    "the core channel node's messages are not heard any more"
                );
                node.set_heard(false);
            }
            match listened {
                Ok(()) => wait = BACKOFF.0,
                Err(error) => tracing::debug!("message stream: {error}"),
            }
            // Spread over half the wait, so that nodes do not all come back at once.
            let spread = rand::rng().random_range(0.5..1.0);
            tokio::time::sleep(wait.mul_f64(spread)).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    /// Until the connection ends. `since` follows the messages seen.
    async fn listen(
        &self,
        node: &Ccn,
        url: &str,
        since: &mut i64,
    ) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_FRAME))
            .max_frame_size(Some(MAX_FRAME));
        let connecting = tokio_tungstenite::connect_async_with_config(url, Some(config), false);
        let Ok(connected) = timeout(SILENCE, connecting).await else {
            return Ok(());
        };
        let (mut stream, _) = connected?;
        node.set_heard(true);
        tracing::info!(url, "listening to the core channel node's messages");
        while let Ok(Some(frame)) = timeout(SILENCE, stream.next()).await {
            let Message::Text(text) = frame? else {
                continue;
            };
            let Ok(message) = serde_json::from_str::<Value>(&text) else {
                continue;
            };
            // Times are the senders' own: one from the future must not hide what comes before it.
            if let Some(time) = message.get("time").and_then(Value::as_f64) {
                *since = (*since).max(time as i64).min(now_us() / 1_000_000);
            }
            if let Err(error) = self.heed(&message).await {
                tracing::error!("{}", crate::chain(&error));
            }
        }
        Ok(())
    }

    async fn heed(&self, message: &Value) -> Result<(), LedgerError> {
        let kind = message.get("type").and_then(Value::as_str);
        if !matches!(
            kind,
            Some("FORGET" | "AGGREGATE" | "STORE" | "PROGRAM" | "INSTANCE")
        ) {
            return Ok(());
        }
        // A node that speaks of a machine's own message again may have come to another conclusion about it.
        let own = message.get("item_hash").and_then(Value::as_str);
        if let (Some("PROGRAM" | "INSTANCE"), Some(own)) = (kind, own.and_then(|h| h.parse().ok()))
        {
            self.erase_if_here_and_gone(&own).await?;
        }
        let Ok((envelope, Some(content))) = Envelope::parse_with_content(message) else {
            return Ok(());
        };
        match &content.body {
            Body::Program(_) | Body::Instance(_) => {
                let replaced = content
                    .executable()
                    .and_then(|executable| executable.replaces.as_deref());
                if let Some(original) = replaced.and_then(|text| text.parse().ok()) {
                    self.reconciler.revised(&original).await?;
                    let version = &envelope.item_hash;
                    self.reconciler.retry_as(&original, version).await?;
                }
            }
            Body::Forget(forget) => {
                self.reconciler.withdrawn(&forget.hashes).await?;
                for hash in &forget.hashes {
                    self.erase_if_here_and_gone(hash).await?;
                }
            }
            Body::Aggregate(aggregate) if aggregate.key == "port-forwarding" => {
                for record in self.ledger.all().await? {
                    let own = record.owner.as_deref() == Some(aggregate.base.address.as_str());
                    if own && record.state != State::Erased && record.lease.is_some() {
                        self.reconciler.refresh_ports(&record.hash).await?;
                    }
                }
            }
            Body::Store(store) => {
                if let Some(original) = store
                    .reference
                    .as_deref()
                    .and_then(|text| text.parse().ok())
                {
                    self.reconciler.amended(&original).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}
