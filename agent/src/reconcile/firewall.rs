//! Keeps the firewall equal to the ledger: whoever changed what runs or which ports are forwarded asks for a
//! publication and waits until one that began afterwards is done. Many that ask at once are answered by one. When
//! somebody else takes the rules away or changes them (spec crn-api §9.2 R12), they are put back.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant, sleep_until};

use super::host::{HostError, Hypervisor, NetworkOf, Place};
use crate::ledger::{Ledger, LedgerError};

/// Requests that may wait; more of them wait in line.
const QUEUE: usize = 64;
/// The first and the longest wait between two repairs: whoever changes the rules again and again is answered ever more
/// slowly.
const REPAIRS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// After this long without a repair the next one is made at the first wait again.
const PEACE: Duration = Duration::from_secs(120);

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
            let mut repairs = Repairs::default();
            loop {
                let mut waiting: Vec<oneshot::Sender<_>> = Vec::new();
                let repair = tokio::select! {
                    request = queue.recv() => match request {
                        Some(request) => {
                            waiting.push(request);
                            false
                        }
                        None => return,
                    },
                    () = host.rules_disturbed(), if repairs.due.is_none() => {
                        repairs.plan(Instant::now());
                        continue;
                    }
                    () = repairs.due() => true,
                };
                while let Ok(next) = queue.try_recv() {
                    waiting.push(next);
                }
                // Whatever it was asked for, it repairs too.
                repairs.due = None;
                let result = publish(&ledger, host.as_ref()).await;
                match &result {
                    Ok(()) if repair => {
                        tracing::warn!(
                            "somebody else changed the firewall's rules: they are put back"
                        );
                    }
                    // Whoever asked may not ask again: the ledger's rules are to be the host's some time.
                    Err(error) => {
                        tracing::error!("{error}");
                        repairs.plan(Instant::now());
                    }
                    Ok(()) => {}
                }
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

/// When the rules that somebody changed are put back.
#[derive(Debug, Default)]
struct Repairs {
    due: Option<Instant>,
    last: Option<(Instant, Duration)>,
}

impl Repairs {
    fn plan(&mut self, now: Instant) {
        let wait = match self.last {
            Some((at, wait)) if now.duration_since(at) < PEACE => (wait * 2).min(REPAIRS.1),
            _ => REPAIRS.0,
        };
        self.last = Some((now, wait));
        self.due = Some(now + wait);
    }

    async fn due(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
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
        .filter(|record| record.state.may_have_process())
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
                secluded: record.secluded,
            })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarrel_over_the_rules_slows_down_and_is_forgotten_in_time() {
        let mut repairs = Repairs::default();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..12 {
            repairs.plan(now);
            let due = repairs.due.take().unwrap();
            waits.push(due - now);
            now = due;
        }
        assert_eq!(waits[..3], [100, 200, 400].map(Duration::from_millis));
        assert_eq!(waits[11], REPAIRS.1);
        now += PEACE;
        repairs.plan(now);
        assert_eq!(repairs.due.unwrap() - now, REPAIRS.0);
    }
}
