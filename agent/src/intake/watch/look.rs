//! A core channel node tells nobody that it has rejected or removed a message it had in force: its feed has only what
//! comes into force. So each node is asked every few seconds which of the messages of this host's machines are, a list at a
//! time; one that is no longer among them makes all nodes be asked about it.

use std::collections::HashSet;
use std::time::Duration;

use aleph_message::ItemHash;

use super::Watch;
use crate::intake::ccn::{Ccn, MAX_HASHES};
use crate::ledger::LedgerError;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);

impl Watch {
    /// Looks at what one node has in force for as long as the process runs.
    pub(super) async fn look_for_ever(&self, node: &Ccn) {
        let mut seen = HashSet::new();
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = self.look(node, &mut seen).await {
                tracing::error!("{}", crate::chain(&error));
            }
        }
    }

    /// `seen` are the messages that the node had in force. Only one that leaves them is asked about: a node that leaves
    /// out what the others have makes no work, whatever it leaves out.
    async fn look(&self, node: &Ccn, seen: &mut HashSet<ItemHash>) -> Result<(), LedgerError> {
        let machines = self.ledger.present().await?;
        seen.retain(|hash| machines.contains(hash));
        for hashes in machines.chunks(MAX_HASHES) {
            let found = match node.in_force(hashes).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::debug!("what is in force is not known: {}", crate::chain(&error));
                    return Ok(());
                }
            };
            for hash in hashes {
                if found.contains(hash.as_str()) {
                    seen.insert(hash.clone());
                } else if seen.remove(hash) {
                    self.erase_if_gone(hash).await?;
                }
            }
        }
        Ok(())
    }
}
