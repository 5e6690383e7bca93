//! What the reconcile tasks ask of the host: the one seam between deciding and doing.

use std::path::PathBuf;

use aleph_message::ItemHash;
use crn_protocol::control::ExitReason;
use crn_protocol::guest::GuestConfig;
use futures_util::future::BoxFuture;
use tokio::net::UnixStream;

use crate::intake::workload::Resolved;
use crate::ledger::{Kind, PortMapping};
use crate::metrics::history::Counters;
use crate::net;

/// Why the host could not.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt}")]
pub struct HostError {
    /// What was attempted, in a few words.
    pub attempt: &'static str,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl HostError {
    /// For `map_err`.
    pub fn during<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        attempt: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self {
            attempt,
            source: source.into(),
        }
    }
}

/// What a guest tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEvent {
    /// It answers.
    Ready,
    /// It cannot start its workload, or its workload ended; the machine goes next.
    Failed {
        /// What happened, in one sentence.
        reason: String,
    },
    /// The machine is gone. Nothing comes after.
    Exited {
        /// Why.
        reason: ExitReason,
        /// One sentence, or nothing.
        detail: String,
    },
}

/// A machine that runs.
pub trait Guest: Send + Sync {
    /// The next thing it tells; nothing is lost when the future is dropped.
    fn event(&mut self) -> BoxFuture<'_, GuestEvent>;
    /// Asks the guest to shut down; whether it does is told by an event.
    fn ask_to_stop(&mut self) -> BoxFuture<'_, Result<(), HostError>>;
    /// Holds it still; nothing happens to one that is held already.
    fn pause(&mut self) -> BoxFuture<'_, Result<(), HostError>>;
    /// Lets it go on; nothing happens to one that does.
    fn resume(&mut self) -> BoxFuture<'_, Result<(), HostError>>;
    /// Ends it at once; its process is gone when this returns.
    fn stop(&mut self) -> BoxFuture<'_, Result<(), HostError>>;
}

/// A machine's place on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Names its TAP device and its IPv4 network.
    pub slot: u16,
    /// What it is.
    pub kind: Kind,
}

/// The network of a machine that is starting or running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkOf {
    /// The machine.
    pub hash: ItemHash,
    /// Its place.
    pub place: Place,
    /// Its forwarded ports.
    pub ports: Vec<PortMapping>,
    /// Connections that it begins are not carried.
    pub secluded: bool,
}

/// The host.
pub trait Hypervisor: Send + Sync {
    /// One past the last slot.
    fn slots(&self) -> u16;
    /// The addresses of a machine.
    ///
    /// # Errors
    /// When the pool has no such slot, or the hash is no sha256.
    fn addresses(&self, hash: &ItemHash, place: Place) -> Result<net::Plan, HostError>;
    /// What the guest is told.
    ///
    /// # Errors
    /// As [`Hypervisor::addresses`].
    fn guest_config(&self, resolved: &Resolved, place: Place) -> Result<GuestConfig, HostError>;
    /// Makes the disks that are not there yet.
    fn make_disks<'a>(
        &'a self,
        resolved: &'a Resolved,
        place: Place,
    ) -> BoxFuture<'a, Result<(), HostError>>;
    /// Makes the TAP device and starts the machine. Nothing is left behind when it fails.
    fn start<'a>(
        &'a self,
        resolved: &'a Resolved,
        place: Place,
    ) -> BoxFuture<'a, Result<Box<dyn Guest>, HostError>>;
    /// Finds a machine that an earlier agent started.
    fn adopt<'a>(
        &'a self,
        hash: &'a ItemHash,
        guest: GuestConfig,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Guest>>, HostError>>;
    /// Takes away the TAP device and the sockets of a machine that is gone.
    fn clean<'a>(
        &'a self,
        hash: &'a ItemHash,
        place: Option<Place>,
    ) -> BoxFuture<'a, Result<(), HostError>>;
    /// Takes away its disks and logs.
    fn erase<'a>(&'a self, hash: &'a ItemHash) -> BoxFuture<'a, Result<(), HostError>>;
    /// Makes the firewall's rules those of exactly these machines.
    fn apply(&self, networks: Vec<NetworkOf>) -> BoxFuture<'_, Result<(), HostError>>;
    /// Returns when somebody else has changed the firewall's rules. A host whose rules nobody else can reach never does.
    fn rules_disturbed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
    /// The socket behind which the guest's ports are.
    fn vsock(&self, hash: &ItemHash) -> PathBuf;
    /// The guest's console log.
    fn console(&self, hash: &ItemHash) -> PathBuf;
    /// Connects to a running machine's console: the stream first brings the latest output, then what comes, and takes
    /// what is typed.
    fn attach_console<'a>(
        &'a self,
        hash: &'a ItemHash,
    ) -> BoxFuture<'a, Result<UnixStream, HostError>>;
    /// What a running machine has used since its start; `None` when it does not run.
    fn counters<'a>(&'a self, hash: &'a ItemHash) -> BoxFuture<'a, Option<Counters>>;
    /// Takes away the root disk of a machine that does not run, and with `volumes` all others too: the next start
    /// makes them anew.
    fn wipe<'a>(
        &'a self,
        hash: &'a ItemHash,
        volumes: bool,
    ) -> BoxFuture<'a, Result<(), HostError>>;
    /// Whether a machine has been given this file of the cache.
    fn uses(&self, hash: &ItemHash, file: &ItemHash) -> bool;
    /// Whether nothing of a machine is left on the disk.
    fn is_gone<'a>(&'a self, hash: &'a ItemHash) -> BoxFuture<'a, bool>;
    /// Machines that left files here, whether the ledger knows them or not.
    fn leftovers(&self) -> BoxFuture<'_, Vec<ItemHash>>;
}
