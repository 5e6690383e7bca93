//! Viewers of logs, consoles and events: each of them is a connection that may stay for days. There is a place for so many,
//! and no machine's viewers take those of all others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aleph_message::ItemHash;

/// At a time.
const MAX: usize = 256;
/// Of one machine.
const MAX_OF_ONE: usize = 16;

/// Who looks at what.
#[derive(Debug, Default)]
pub struct Viewers {
    machines: Mutex<HashMap<Option<ItemHash>, usize>>,
}

/// A viewer's place, until this is dropped.
#[derive(Debug)]
pub struct Place {
    viewers: Arc<Viewers>,
    of: Option<ItemHash>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut machines = self.viewers.machines();
        if let Some(count) = machines.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                machines.remove(&self.of);
            }
        }
    }
}

impl Viewers {
    /// A place for one more viewer of a machine, or of all of them.
    ///
    /// # Errors
    /// Why there is none.
    pub fn take(self: &Arc<Self>, of: Option<&ItemHash>) -> Result<Place, &'static str> {
        let mut machines = self.machines();
        if machines.values().sum::<usize>() >= MAX {
            return Err("too many viewers on this node");
        }
        let count = machines.entry(of.cloned()).or_default();
        if of.is_some() && *count >= MAX_OF_ONE {
            return Err("too many viewers of this machine");
        }
        *count += 1;
        Ok(Place {
            viewers: Arc::clone(self),
            of: of.cloned(),
        })
    }

    fn machines(&self) -> MutexGuard<'_, HashMap<Option<ItemHash>, usize>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_machines_viewers_leave_places_for_others_and_give_theirs_back() {
        let viewers = Arc::<Viewers>::default();
        let machine = |number: usize| ItemHash::of(number.to_string().as_bytes());
        let take = |number| viewers.take(Some(&machine(number)));
        let mut places: Vec<_> = (0..MAX_OF_ONE).map(|_| take(0).unwrap()).collect();
        assert_eq!(take(0).unwrap_err(), "too many viewers of this machine");
        places.extend((0..MAX - MAX_OF_ONE).map(|n| take(1 + n / MAX_OF_ONE).unwrap()));
        assert_eq!(take(1000).unwrap_err(), "too many viewers on this node");
        assert!(viewers.take(None).is_err());
        places.remove(0);
        assert!(take(0).is_ok());
        drop(places);
        assert!(viewers.machines().is_empty());
    }
}
