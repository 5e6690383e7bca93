//! Which files are being fetched for whom, so that an owner sees that something happens.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aleph_message::ItemHash;

/// A file that is being fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetching {
    /// The STORE message that a workload names.
    pub reference: ItemHash,
    /// The file it stands for, maybe by a newer message.
    pub file: ItemHash,
}

/// All of them; clones are the same list.
#[derive(Debug, Clone, Default)]
pub(super) struct UnderWay {
    list: Arc<Mutex<Vec<Fetching>>>,
}

/// A place in the list, until this is dropped.
pub(super) struct Entry {
    under_way: UnderWay,
    fetching: Fetching,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut list = self.under_way.list();
        // The same file may be on its way for several; each takes one away.
        if let Some(at) = list.iter().position(|other| *other == self.fetching) {
            list.swap_remove(at);
        }
    }
}

impl UnderWay {
    pub(super) fn enter(&self, fetching: Fetching) -> Entry {
        self.list().push(fetching.clone());
        Entry {
            under_way: self.clone(),
            fetching,
        }
    }

    /// Those that one of these messages stands for, each once.
    pub(super) fn of(&self, references: &[&ItemHash]) -> Vec<Fetching> {
        let mut found: Vec<Fetching> = Vec::new();
        for fetching in self.list().iter() {
            if references.contains(&&fetching.reference) && !found.contains(fetching) {
                found.push(fetching.clone());
            }
        }
        found
    }

    fn list(&self) -> MutexGuard<'_, Vec<Fetching>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
