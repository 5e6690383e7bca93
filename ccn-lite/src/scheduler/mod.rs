//! The embedded scheduler: decides which compute node runs which machine, tells the nodes, and answers where things are.
//!
//! Comes in: the machines in force and the registry ([`World`]), and what nodes report when asked. Goes out: signed
//! lists of what each node should run, and the scheduler's public API ([`routes`]). Where a machine was placed is
//! remembered by the world, so a restart moves nothing.

mod api;
mod link;
mod observed;
mod place;
mod world;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aleph_message::Keypair;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::outbound::Client;
pub use api::routes;
use link::{Desired, Link};
use observed::Observed;
pub use place::{Decision, place};

/// Decisions are looked over this often even when nothing seems to have changed.
const REVIEW: Duration = Duration::from_secs(60);

/// What a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmKind {
    /// A virtual private server.
    Instance,
    /// A program kept running.
    PersistentProgram,
    /// A program started by requests.
    OnDemandProgram,
}

impl VmKind {
    /// The word of the network.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::PersistentProgram => "persistent_program",
            Self::OnDemandProgram => "microvm",
        }
    }
}

/// A machine to be placed.
#[derive(Clone, Debug, PartialEq)]
pub struct Vm {
    /// Item hash.
    pub hash: String,
    /// What it is.
    pub kind: VmKind,
    /// Who owns it.
    pub owner: String,
    /// Who signed its message.
    pub sender: String,
    /// Unix seconds.
    pub created: f64,
    /// How it is paid.
    pub payment_type: String,
    /// Virtual CPUs.
    pub vcpus: u64,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// What its message demands of the node: `requirements.node`, or null.
    pub node: Value,
    /// Whether it needs confidential computing.
    pub confidential: bool,
}

/// A compute node of the registry.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its hash in the registry.
    pub hash: String,
    /// Base URL without trailing slash.
    pub address: String,
    /// The whole entry.
    pub entry: Value,
}

/// What there is to schedule, and where it was placed before.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Machines in force, oldest first.
    pub vms: Vec<Vm>,
    /// Nodes of the registry that are part of the network.
    pub nodes: Vec<Node>,
    /// Machine to node.
    pub assignments: BTreeMap<String, String>,
}

/// What the scheduler needs of the node it is embedded in.
pub trait World: Send + Sync + 'static {
    /// Trouble reading or writing.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The present state.
    fn snapshot(&self) -> impl Future<Output = Result<Snapshot, Self::Error>> + Send;

    /// Replaces the remembered placements by `assignments`.
    fn assign(
        &self,
        assignments: BTreeMap<String, String>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Tells that machines or the registry may have changed since the last time.
    fn changes(&self) -> watch::Receiver<u64>;

    /// The key that signs for this scheduler.
    fn key(&self) -> &Keypair;
}

/// The last decision and what it was made from.
#[derive(Clone, Debug, Default)]
struct Plan {
    vms: Vec<Vm>,
    nodes: Vec<Node>,
    decision: Decision,
    /// Unix seconds.
    decided: f64,
}

/// What the API, the decider and the links to the nodes share.
#[derive(Default)]
struct Shared {
    plan: Mutex<Arc<Plan>>,
    observed: Mutex<BTreeMap<String, Observed>>,
    /// A node came or went.
    reconsider: Notify,
}

impl Shared {
    fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn observed(&self) -> MutexGuard<'_, BTreeMap<String, Observed>> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handle on the scheduler's state, cheap to clone.
#[derive(Clone, Default)]
pub struct Scheduler(Arc<Shared>);

/// A node's tasks; they end with this value.
struct Running {
    address: String,
    desired: watch::Sender<Desired>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scheduler {
    /// Decides and dispatches until dropped.
    pub async fn run<W: World>(self, world: W) {
        let world = Arc::new(world);
        let client = Client::default();
        let mut links = HashMap::new();
        let mut changes = world.changes();
        loop {
            changes.mark_unchanged();
            if let Err(error) = self.review(&*world, &client, &mut links).await {
                tracing::error!(
                    error = crate::outbound::chain(&error),
                    "cannot schedule; trying again in a minute"
                );
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = self.0.reconsider.notified() => {}
                () = tokio::time::sleep(REVIEW) => {}
            }
        }
    }

    async fn review<W: World>(
        &self,
        world: &W,
        client: &Client,
        links: &mut HashMap<String, Running>,
    ) -> Result<(), W::Error> {
        let Snapshot {
            vms,
            nodes,
            assignments,
        } = world.snapshot().await?;
        let decision = {
            let mut observed = self.0.observed();
            observed.retain(|hash, _| nodes.iter().any(|node| node.hash == *hash));
            place(&vms, &nodes, &assignments, |hash| {
                observed
                    .get(hash)
                    .map(Observed::readiness)
                    .unwrap_or_default()
            })
        };
        if decision.assignments != assignments {
            for (vm, node) in &decision.assignments {
                if assignments.get(vm) != Some(node) {
                    tracing::info!(vm, node, "placed");
                }
            }
            world.assign(decision.assignments.clone()).await?;
        }
        links.retain(|hash, running| {
            nodes
                .iter()
                .any(|node| node.hash == *hash && node.address == running.address)
        });
        for node in &nodes {
            let desired = Desired::of(&node.hash, &vms, &decision);
            match links.get(&node.hash) {
                Some(running) => {
                    running.desired.send_if_modified(|current| {
                        let changed = *current != desired;
                        *current = desired;
                        changed
                    });
                }
                None => {
                    let running = self.connect(node, desired, client, world.key());
                    links.insert(node.hash.clone(), running);
                }
            }
        }
        let plan = Plan {
            vms,
            nodes,
            decision,
            decided: crate::store::now(),
        };
        *self.0.plan.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(plan);
        Ok(())
    }

    fn connect(&self, node: &Node, desired: Desired, client: &Client, key: &Keypair) -> Running {
        let (sender, receiver) = watch::channel(desired);
        let link = Link {
            hash: node.hash.clone(),
            address: node.address.clone(),
            client: client.clone(),
            key: key.clone(),
            scheduler: self.clone(),
            dispatched: Notify::new(),
        };
        let task = tokio::spawn(link.run(receiver)).abort_handle();
        Running {
            address: node.address.clone(),
            desired: sender,
            task,
        }
    }
}
