//! Where vCPU threads wait while the machine is paused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct State {
    closed: bool,
    waiting: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Gate {
    /// The same as `state.closed`, to be looked at before every entry into the guest.
    closed: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether threads are to wait here.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Waits until the gate is open.
    pub fn wait(&self) {
        let mut state = self.state();
        state.waiting += 1;
        while state.closed {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
    }

    /// Closes it. Threads come when they next look.
    pub fn close(&self) {
        self.state().closed = true;
        self.closed.store(true, Ordering::Release);
    }

    /// Lets them go.
    pub fn open(&self) {
        self.closed.store(false, Ordering::Release);
        self.state().closed = false;
        self.changed.notify_all();
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state().waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_wait_while_it_is_closed() {
        let gate = Gate::default();
        gate.wait();
        gate.close();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| gate.wait());
            }
            while gate.waiting() < 3 {
                std::thread::yield_now();
            }
            assert!(gate.is_closed());
            gate.open();
        });
        assert_eq!((gate.waiting(), gate.is_closed()), (0, false));
    }
}
