//! A running machine as the reconcile tasks see it.

use std::time::Duration;

use crn_protocol::control::ExitReason;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::STOP_DEADLINE;
use crate::ledger::Kind;
use crate::machine::{Machine, MachineEvent};
use crate::reconcile::host::{Guest, GuestEvent, HostError};

/// How long a program has between SIGTERM and SIGKILL.
const PROGRAM_GRACE: Duration = Duration::from_secs(3);

pub(super) struct KvmGuest {
    pub(super) kind: Kind,
    pub(super) machine: Machine,
    pub(super) events: mpsc::Receiver<MachineEvent>,
}

impl Guest for KvmGuest {
    fn event(&mut self) -> BoxFuture<'_, GuestEvent> {
        async move {
            match self.events.recv().await {
                Some(MachineEvent::GuestReady) => GuestEvent::Ready,
                Some(MachineEvent::GuestFailed { stage, error }) => GuestEvent::Failed {
                    reason: format!("the guest could not {stage}: {error}"),
                },
                Some(MachineEvent::ProgramExited { code, signal }) => GuestEvent::Failed {
                    reason: match (code, signal) {
                        (Some(code), _) => format!("the program ended with status {code}"),
                        (None, Some(signal)) => format!("the program was ended by signal {signal}"),
                        (None, None) => "the program ended".to_owned(),
                    },
                },
                Some(MachineEvent::Exited { reason, detail }) => {
                    GuestEvent::Exited { reason, detail }
                }
                None => GuestEvent::Exited {
                    reason: ExitReason::Failed,
                    detail: "its events ended".to_owned(),
                },
            }
        }
        .boxed()
    }

    fn ask_to_stop(&mut self) -> BoxFuture<'_, Result<(), HostError>> {
        async move {
            match self.kind {
                Kind::Instance => self.machine.power_button().await,
                Kind::Microvm | Kind::PersistentProgram => {
                    self.machine.shutdown_program(PROGRAM_GRACE).await
                }
            }
            .map_err(HostError::during("ask it to shut down"))
        }
        .boxed()
    }

    fn pause(&mut self) -> BoxFuture<'_, Result<(), HostError>> {
        async move {
            let paused = self.machine.pause().await;
            paused.map_err(HostError::during("hold it still"))
        }
        .boxed()
    }

    fn resume(&mut self) -> BoxFuture<'_, Result<(), HostError>> {
        async move {
            let resumed = self.machine.resume().await;
            resumed.map_err(HostError::during("let it go on"))
        }
        .boxed()
    }

    fn stop(&mut self) -> BoxFuture<'_, Result<(), HostError>> {
        async move {
            self.machine
                .stop(STOP_DEADLINE)
                .await
                .map_err(HostError::during("end its machine"))
        }
        .boxed()
    }
}
