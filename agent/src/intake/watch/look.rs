//! A core channel node tells nobody that it has rejected or removed a message it had in force: its feed has only what
//! comes into force. So each node is asked every few seconds which of the messages of this host's machines are, a list at a
//! time; one that is no longer among them makes all nodes be asked about it. What each node has in force is remembered, and
//! spares the sweep a question about each machine.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aleph_message::ItemHash;

use super::Watch;
use crate::intake::ccn::{Ccn, CcnError, batches};
use crate::ledger::LedgerError;

/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_secs(5);
/// The longest message, in bytes: one whose length is not known yet is expected to be as long.
const LONGEST: usize = 200_000;

/// What one node had in force when it was last asked.
#[derive(Debug, Default)]
pub(super) struct Sight(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    in_force: HashSet<ItemHash>,
    /// It answered when it was asked last.
    answers: bool,
}

impl Sight {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the node answered when it was asked last.
    pub(super) fn answers(&self) -> bool {
        self.lock().answers
    }

    /// Whether the node is known to have this message in force.
    pub(super) fn has(&self, hash: &ItemHash) -> bool {
        let seen = self.lock();
        seen.answers && seen.in_force.contains(hash)
    }
}

impl Watch {
    /// Looks at what one node has in force for as long as the process runs.
    pub(super) async fn look_for_ever(&self, node: &Ccn, sight: &Sight) {
        loop {
            if let Err(error) = self.look(node, sight).await {
                tracing::error!("{}", crate::chain(&error));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Only a message that the node had in force before is asked about: a node that leaves out what the others have makes no
    /// work, whatever it leaves out.
    async fn look(&self, node: &Ccn, sight: &Sight) -> Result<(), LedgerError> {
        let machines = self.ledger.present().await?;
        let known: HashSet<&ItemHash> = machines.iter().map(|(hash, _)| hash).collect();
        sight.lock().in_force.retain(|hash| known.contains(hash));
        let size = |(hash, bytes): &&(ItemHash, Option<usize>)| {
            (hash.as_str().len(), bytes.unwrap_or(LONGEST))
        };
        for group in batches(&machines, size) {
            let hashes: Vec<_> = group.into_iter().map(|(hash, _)| hash).collect();
            match node.in_force(&hashes).await {
                Ok(found) => {
                    for hash in sight.note(&hashes, &found) {
                        self.erase_if_gone(&hash).await?;
                    }
                }
                Err(error) => {
                    sight.missed(&error);
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl Sight {
    /// Takes in what the node has of `asked`; those that it had before.
    fn note(&self, asked: &[&ItemHash], found: &HashSet<String>) -> Vec<ItemHash> {
        let mut seen = self.lock();
        seen.answers = true;
        let mut gone = Vec::new();
        for hash in asked {
            if found.contains(hash.as_str()) {
                seen.in_force.insert((*hash).clone());
            } else {
                gone.extend(seen.in_force.take(*hash));
            }
        }
        gone
    }

    /// What it had is not known to be so still; nor is it known to be gone.
    fn missed(&self, error: &CcnError) {
        tracing::debug!("what is in force is not known: {}", crate::chain(error));
        self.lock().answers = false;
    }
}
