//! Where vCPU threads wait while the machine is paused, and are asked for their state.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Nothing that a thread does for an answer takes longer.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct State<A> {
    closed: bool,
    waiting: usize,
    /// How often an answer has been asked for.
    asked: u64,
    answers: Vec<A>,
}

/// See the module. Threads answer with an `A`.
#[derive(Debug)]
pub struct Gate<A> {
    /// The same as `state.closed`, to be looked at before every entry into the guest.
    closed: AtomicBool,
    state: Mutex<State<A>>,
    changed: Condvar,
}

impl<A> Default for Gate<A> {
    fn default() -> Self {
        Self {
            closed: AtomicBool::new(false),
            state: Mutex::new(State {
                closed: false,
                waiting: 0,
                asked: 0,
                answers: Vec::new(),
            }),
            changed: Condvar::new(),
        }
    }
}

impl<A> Gate<A> {
    fn state(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether threads are to wait here.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Waits until the gate is open; answers whenever it is asked meanwhile.
    pub fn wait(&self, answer: impl Fn() -> A) {
        let mut state = self.state();
        state.waiting += 1;
        let mut answered = state.asked;
        while state.closed {
            if state.asked != answered {
                answered = state.asked;
                drop(state);
                let one = answer();
                state = self.state();
                state.answers.push(one);
                self.changed.notify_all();
                continue;
            }
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

    /// Asks all who wait, and returns their answers, in no order.
    #[must_use]
    pub fn ask(&self) -> Vec<A> {
        let mut state = self.state();
        state.asked += 1;
        state.answers.clear();
        self.changed.notify_all();
        let missing = |state: &mut State<A>| state.answers.len() < state.waiting;
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, PATIENCE, missing)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.answers)
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
        gate.wait(|| 0);
        gate.close();
        std::thread::scope(|scope| {
            for number in 1..4 {
                let gate = &gate;
                scope.spawn(move || gate.wait(|| number));
            }
            while gate.waiting() < 3 {
                std::thread::yield_now();
            }
            assert!(gate.is_closed());
            for _ in 0..2 {
                assert_eq!(gate.ask().into_iter().sum::<u8>(), 1 + 2 + 3);
            }
            gate.open();
        });
        assert_eq!((gate.waiting(), gate.is_closed()), (0, false));
    }
}
