//! A program's life as a state machine: what happened goes in, what is to be done comes out.

use std::time::Duration;

use crn_protocol::guest::FromGuest;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its exit status.
    pub code: Option<i32>,
    /// Or the signal that ended it.
    pub signal: Option<i32>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The program said that it has started, or its port answers.
    Ready,
    /// The program's main process ended.
    Exited(Exit),
    /// The host, or the power button, asks for an end.
    Shutdown {
        /// Between SIGTERM and SIGKILL.
        grace: Duration,
    },
    /// The time set by the last action has passed.
    Deadline,
    /// No process is left but the init.
    Alone,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Wait,
    /// Tell the host that the program answers.
    ReportReady,
    /// Send SIGTERM; [`Event::Deadline`] is due after `grace`.
    Terminate {
        /// Until [`Event::Deadline`].
        grace: Duration,
    },
    /// Send SIGKILL.
    Kill,
    /// Tell the host this and power off.
    Finish(FromGuest),
}

/// Where the program stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Started, not yet answering.
    Starting,
    /// Answering.
    Serving,
    /// Asked to end.
    Stopping,
}

/// The stage that [`FromGuest::Failed`] names.
pub const STAGE: &str = "start program";

impl Phase {
    /// Takes one event.
    pub fn on(&mut self, event: Event) -> Action {
        match (*self, event) {
            (Self::Starting, Event::Ready) => {
                *self = Self::Serving;
                Action::ReportReady
            }
            (Self::Starting, Event::Exited(exit)) => failed(match exit {
                Exit {
                    signal: Some(signal),
                    ..
                } => format!("the program was ended by signal {signal} before it was ready"),
                Exit { code, .. } => {
                    format!(
                        "the program ended with status {} before it was ready",
                        code.unwrap_or_default()
                    )
                }
            }),
            (Self::Starting, Event::Deadline) => {
                failed("the program was not ready in time".to_owned())
            }
            (_, Event::Exited(exit)) => Action::Finish(FromGuest::Exited {
                code: exit.code,
                signal: exit.signal,
            }),
            (_, Event::Shutdown { grace }) => {
                *self = Self::Stopping;
                Action::Terminate { grace }
            }
            (Self::Stopping, Event::Deadline) => Action::Kill,
            (Self::Serving | Self::Stopping, Event::Ready)
            | (Self::Serving, Event::Deadline)
            | (_, Event::Alone) => Action::Wait,
        }
    }
}

fn failed(error: String) -> Action {
    Action::Finish(FromGuest::Failed {
        stage: STAGE.to_owned(),
        error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);
    const CLEAN: Exit = Exit {
        code: Some(0),
        signal: None,
    };

    #[test]
    fn a_program_that_answers_is_reported_once_and_its_end_told() {
        let mut phase = Phase::Starting;
        assert_eq!(phase.on(Event::Ready), Action::ReportReady);
        assert_eq!(phase.on(Event::Ready), Action::Wait);
        assert_eq!(
            phase.on(Event::Exited(CLEAN)),
            Action::Finish(FromGuest::Exited {
                code: Some(0),
                signal: None
            })
        );
    }

    #[test]
    fn a_program_that_ends_before_it_answers_has_failed() {
        let mut phase = Phase::Starting;
        let action = phase.on(Event::Exited(Exit {
            code: Some(3),
            signal: None,
        }));
        let Action::Finish(FromGuest::Failed { stage, error }) = action else {
            panic!("{action:?}")
        };
        assert_eq!(
            (stage.as_str(), error.as_str()),
            (STAGE, "the program ended with status 3 before it was ready")
        );
    }

    #[test]
    fn a_program_that_never_answers_has_failed() {
        assert!(matches!(
            Phase::Starting.on(Event::Deadline),
            Action::Finish(FromGuest::Failed { .. })
        ));
    }

    #[test]
    fn a_shutdown_terminates_then_kills() {
        let mut phase = Phase::Serving;
        assert_eq!(
            phase.on(Event::Shutdown { grace: GRACE }),
            Action::Terminate { grace: GRACE }
        );
        assert_eq!(phase.on(Event::Deadline), Action::Kill);
        let killed = Exit {
            code: None,
            signal: Some(9),
        };
        assert_eq!(
            phase.on(Event::Exited(killed)),
            Action::Finish(FromGuest::Exited {
                code: None,
                signal: Some(9)
            })
        );
    }

    #[test]
    fn a_shutdown_during_the_start_is_no_failure() {
        let mut phase = Phase::Starting;
        assert_eq!(
            phase.on(Event::Shutdown { grace: GRACE }),
            Action::Terminate { grace: GRACE }
        );
        assert!(matches!(
            phase.on(Event::Exited(CLEAN)),
            Action::Finish(FromGuest::Exited { .. })
        ));
    }
}
