//! The states a machine goes through, and the one function that says what comes next.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What is wanted of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Desired {
    /// It runs, and is started again when it stops by accident.
    Running,
    /// It stands still with all it has in memory; when that is lost it does not run.
    Paused,
    /// It does not run; its disks stay.
    Stopped,
    /// Nothing of it is left.
    Erased,
}

/// Who brought a machine here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The allocation pushes: a push without it stops it.
    Scheduler,
    /// Its owner, by a notification: pushes do not speak of it.
    Notify,
    /// A request for a program: it stops when idle.
    Request,
}

/// What a machine is; the discriminant is the digit in its IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A program started by requests.
    Microvm,
    /// A program that always runs.
    PersistentProgram,
    /// A machine of its own.
    Instance,
}

/// Where a machine stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Known by its hash, nothing done yet.
    Defined,
    /// Its message and content are being fetched and verified, its disks made.
    Fetching,
    /// All it needs is here; it holds its leases.
    Prepared,
    /// Its VMM runs, the guest has not said that it is ready.
    Starting,
    /// The guest is ready.
    Running,
    /// Its VMM holds it still.
    Paused,
    /// It has been told to stop.
    Stopping,
    /// It does not run; its disks are here.
    Stopped,
    /// Nothing is left of it.
    Erased,
    /// It cannot run, or not now.
    Failed(Failure),
}

/// Why a machine does not run, and when it is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For its owner: the chain of causes in one sentence.
    pub reason: String,
    /// Failures in a row, this one included.
    pub attempts: u32,
    /// Unix microseconds; `None` when trying again cannot help.
    pub retry_at: Option<i64>,
}

/// The next thing to do for a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Fetch and verify message and content, admit it, make its disks.
    Prepare,
    /// Start the VMM and wait for the guest.
    Start,
    /// Hold the guest still.
    Pause,
    /// Let it go on.
    Resume,
    /// Stop the guest, then the VMM.
    Stop,
    /// Take away all that is left of it.
    Erase,
    /// Nothing until something changes.
    Wait,
    /// Nothing until this time (Unix microseconds) or until something changes.
    WaitUntil(i64),
}

impl State {
    /// What a restarted agent makes of a recorded state: work that was cut short begins again.
    #[must_use]
    pub fn after_restart(self) -> Self {
        match self {
            Self::Fetching | Self::Prepared => Self::Defined,
            other => other,
        }
    }

    /// Whether a VMM may exist for it.
    #[must_use]
    pub const fn may_have_process(&self) -> bool {
        matches!(
            self,
            Self::Starting | Self::Running | Self::Paused | Self::Stopping
        )
    }
}

/// Compares what is wanted with what is, at `now` (Unix microseconds).
#[must_use]
pub fn next_step(desired: Desired, state: &State, now: i64) -> Step {
    match (desired, state) {
        (_, State::Erased) => Step::Wait,
        (
            Desired::Erased | Desired::Stopped,
            State::Starting | State::Running | State::Paused | State::Stopping,
        ) => Step::Stop,
        (Desired::Erased, _) => Step::Erase,
        (Desired::Paused, State::Running) => Step::Pause,
        (Desired::Running, State::Paused) => Step::Resume,
        (Desired::Paused, State::Stopping) => Step::Stop,
        (Desired::Stopped | Desired::Paused, _) => Step::Wait,
        (Desired::Running, State::Defined | State::Fetching | State::Stopped) => Step::Prepare,
        (Desired::Running, State::Prepared) => Step::Start,
        (Desired::Running, State::Stopping) => Step::Stop,
        (Desired::Running, State::Starting | State::Running) => Step::Wait,
        (Desired::Running, State::Failed(failure)) => match failure.retry_at {
            Some(at) if at <= now => Step::Prepare,
            Some(at) => Step::WaitUntil(at),
            None => Step::Wait,
        },
    }
}

/// A recorded word that means nothing here.
#[derive(Debug, thiserror::Error)]
#[error("unknown word {0:?}")]
pub struct UnknownWord(String);

macro_rules! words {
    ($type:ty { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $type {
            /// The word the ledger and the API use.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
        impl FromStr for $type {
            type Err = UnknownWord;
            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word { $($word => Ok(Self::$variant),)+ other => Err(UnknownWord(other.to_owned())) }
            }
        }
    };
}

words!(Desired { Running = "running", Paused = "paused", Stopped = "stopped", Erased = "erased" });
words!(Source { Scheduler = "scheduler", Notify = "notify", Request = "request" });
words!(Kind { Microvm = "microvm", PersistentProgram = "persistent_program", Instance = "instance" });

impl State {
    /// The word the ledger and the logs use.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Defined => "defined",
            Self::Fetching => "fetching",
            Self::Prepared => "prepared",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Erased => "erased",
            Self::Failed(_) => "failed",
        }
    }

    /// From its word; `failure` completes `failed`.
    ///
    /// # Errors
    /// [`UnknownWord`].
    pub fn from_word(word: &str, failure: Failure) -> Result<Self, UnknownWord> {
        Ok(match word {
            "defined" => Self::Defined,
            "fetching" => Self::Fetching,
            "prepared" => Self::Prepared,
            "starting" => Self::Starting,
            "running" => Self::Running,
            "paused" => Self::Paused,
            "stopping" => Self::Stopping,
            "stopped" => Self::Stopped,
            "erased" => Self::Erased,
            "failed" => Self::Failed(failure),
            other => return Err(UnknownWord(other.to_owned())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(retry_at: Option<i64>) -> State {
        State::Failed(Failure {
            reason: "because".into(),
            attempts: 1,
            retry_at,
        })
    }

    fn all() -> Vec<State> {
        vec![
            State::Defined,
            State::Fetching,
            State::Prepared,
            State::Starting,
            State::Running,
            State::Paused,
            State::Stopping,
            State::Stopped,
            State::Erased,
            failed(Some(5)),
            failed(None),
        ]
    }

    #[test]
    fn a_wanted_machine_walks_from_defined_to_running() {
        assert_eq!(
            next_step(Desired::Running, &State::Defined, 0),
            Step::Prepare
        );
        assert_eq!(
            next_step(Desired::Running, &State::Prepared, 0),
            Step::Start
        );
        assert_eq!(next_step(Desired::Running, &State::Running, 0), Step::Wait);
    }

    #[test]
    fn a_running_machine_is_stopped_before_it_is_erased() {
        assert_eq!(next_step(Desired::Erased, &State::Running, 0), Step::Stop);
        assert_eq!(next_step(Desired::Erased, &State::Stopped, 0), Step::Erase);
        assert_eq!(next_step(Desired::Erased, &State::Erased, 0), Step::Wait);
    }

    #[test]
    fn a_machine_is_paused_while_it_runs_and_resumed_or_stopped_from_there() {
        let paused = State::Paused;
        assert_eq!(next_step(Desired::Paused, &State::Running, 0), Step::Pause);
        assert_eq!(next_step(Desired::Paused, &paused, 0), Step::Wait);
        assert_eq!(next_step(Desired::Running, &paused, 0), Step::Resume);
        assert_eq!(next_step(Desired::Stopped, &paused, 0), Step::Stop);
        assert_eq!(next_step(Desired::Erased, &paused, 0), Step::Stop);
        assert!(paused.may_have_process());
    }

    #[test]
    fn a_failure_waits_for_its_time_and_a_final_one_for_ever() {
        assert_eq!(
            next_step(Desired::Running, &failed(Some(5)), 4),
            Step::WaitUntil(5)
        );
        assert_eq!(
            next_step(Desired::Running, &failed(Some(5)), 5),
            Step::Prepare
        );
        assert_eq!(next_step(Desired::Running, &failed(None), 9), Step::Wait);
        assert_eq!(next_step(Desired::Erased, &failed(None), 9), Step::Erase);
    }

    #[test]
    fn nothing_is_started_that_is_not_wanted() {
        for state in all() {
            for desired in [Desired::Paused, Desired::Stopped, Desired::Erased] {
                assert!(
                    !matches!(
                        next_step(desired, &state, i64::MAX),
                        Step::Prepare | Step::Start
                    ),
                    "{state:?}"
                );
            }
        }
    }

    #[test]
    fn every_state_survives_being_written_down() {
        for state in all() {
            let failure = match &state {
                State::Failed(failure) => failure.clone(),
                _ => Failure {
                    reason: String::new(),
                    attempts: 0,
                    retry_at: None,
                },
            };
            assert_eq!(State::from_word(state.word(), failure).unwrap(), state);
        }
    }
}
