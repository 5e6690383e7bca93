//! Keeps the firewall equal to the ledger: whoever changed what runs or which ports are forwarded asks for a
//! publication and waits until one that began afterwards is done. Many that ask at once are answered by one.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::host::{HostError, Hypervisor, NetworkOf, Place};
use crate::ledger::{Ledger, LedgerError, State};

/// Requests that may wait; more of them wait in line.
const QUEUE: usize = 64;

/// Why the rules are not those of the ledger.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the firewall was not updated: {0}")]
pub struct FirewallError(String);

/// Asks for publications.
#[derive(Debug, Clone)]
pub struct Firewall {
    requests: mpsc::Sender<oneshot::Sender<Result<(), FirewallError>>>,
}

impl Firewall {
    /// Starts the task.
    #[must_use]
    pub fn start(ledger: Ledger, host: Arc<dyn Hypervisor>) -> Self {
        let (requests, mut queue) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            while let Some(first) = queue.recv().await {
                let mut waiting: Vec<oneshot::Sender<_>> = vec![first];
                while let Ok(next) = queue.try_recv() {
                    waiting.push(next);
                }
                let result = publish(&ledger, host.as_ref()).await;
                for one in waiting {
                    // Whoever waited may have gone.
                    let _ = one.send(result.clone());
                }
            }
        });
        Self { requests }
    }

    /// Makes the rules those of the ledger as it is now.
    ///
    /// # Errors
    /// [`FirewallError`]; the rules are what they were.
    pub async fn publish(&self) -> Result<(), FirewallError> {
        let gone = || FirewallError("its task ended".to_owned());
        let (answer, result) = oneshot::channel();
        self.requests.send(answer).await.map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }
}

async fn publish(ledger: &Ledger, host: &dyn Hypervisor) -> Result<(), FirewallError> {
    let networks = networks(ledger)
        .await
        .map_err(|error| FirewallError(crate::chain(&error)))?;
    host.apply(networks)
        .await
        .map_err(|error: HostError| FirewallError(crate::chain(&error)))
}

async fn networks(ledger: &Ledger) -> Result<Vec<NetworkOf>, LedgerError> {
    let records = ledger.all().await?;
    Ok(records
        .into_iter()
        .filter(|record| {
            matches!(
                record.state,
                State::Starting | State::Running | State::Stopping
            )
        })
        .filter(|record| {
            record
                .guest
                .as_ref()
                .is_some_and(|guest| guest.network.is_some())
        })
        .filter_map(|record| {
            let place = Place {
                slot: record.lease?.slot,
                kind: record.kind?,
            };
            Some(NetworkOf {
                hash: record.hash,
                place,
                ports: record.ports,
            })
        })
        .collect())
}
