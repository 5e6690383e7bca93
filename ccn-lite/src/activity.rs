//! What goes on in a running node, counted for its metrics. Nothing is decided by these numbers but how many sockets are
//! served at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number of things under way.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

/// One of them, as long as it lives.
#[derive(Debug)]
pub struct Held(Arc<Gauge>);

impl Gauge {
    /// How many there are.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more.
    pub fn hold(self: &Arc<Self>) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(self.clone())
    }

    /// One more unless there are `most`.
    fn hold_below(self: &Arc<Self>, most: u64) -> Option<Held> {
        let add = |held| (held < most).then_some(held + 1);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .is_ok()
            .then(|| Held(self.clone()))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// WebSockets of one kind.
#[derive(Debug, Default)]
pub struct Sockets {
    open: Arc<Gauge>,
    refused: AtomicU64,
}

impl Sockets {
    /// Sockets of one kind served at once.
    pub const MOST: u64 = 4096;

    /// A place for one more; none when all are taken.
    pub fn take(&self) -> Option<Held> {
        let seat = self.open.hold_below(Self::MOST);
        if seat.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        seat
    }

    /// How many are served.
    pub fn open(&self) -> u64 {
        self.open.get()
    }

    /// How many found no place since the node started.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// All of it.
#[derive(Debug, Default)]
pub struct Activity {
    /// Messages being checked and decided.
    pub deciding: Arc<Gauge>,
    /// Listeners to messages.
    pub feeds: Sockets,
    /// Listeners to metrics.
    pub statuses: Sockets,
    frames: AtomicU64,
}

impl Activity {
    /// A new message was sent to a listener.
    pub fn sent(&self) {
        self.frames.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was since the node started.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_beyond_the_most_are_refused_until_one_closes() {
        let sockets = Sockets::default();
        let mut seats: Vec<_> = (0..Sockets::MOST)
            .map(|_| sockets.take().unwrap())
            .collect();
        assert!(sockets.take().is_none());
        assert_eq!((sockets.open(), sockets.refused()), (Sockets::MOST, 1));
        seats.pop();
        assert!(sockets.take().is_some());
        assert_eq!((sockets.open(), sockets.refused()), (Sockets::MOST - 1, 1));
    }
}
