//! Desired against observed: one task for each machine, and the handle through which the API speaks to them all.
//!
//! A decision is first written into the ledger, then the machine's task is poked; the task reads the ledger, takes the
//! one step that brings the machine nearer to what is wanted, writes down what it reached, and begins again.

mod clock;
pub mod firewall;
pub mod gc;
pub mod host;
pub mod kvm;
mod ports;
mod setback;
mod task;
mod updates;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aleph_message::ItemHash;
use tokio::sync::{Notify, watch};

use self::firewall::Firewall;
use self::host::Hypervisor;
use self::task::Task;
use crate::config::Config;
use crate::content::unused::Keep;
use crate::intake::Intake;
use crate::ledger::{Capacity, Desired, Ledger, LedgerError, Record, Source, State, now_us};
use crate::logs::Logs;
use crate::metrics;
use crate::metrics::history::History;

pub(crate) use self::task::kept_workload;

/// The handle; clones speak to the same tasks.
#[derive(Clone)]
pub struct Reconciler {
    shared: Arc<Shared>,
}

/// What the tasks share.
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) ledger: Ledger,
    pub(crate) intake: Intake,
    pub(crate) host: Arc<dyn Hypervisor>,
    pub(crate) firewall: Firewall,
    pub(crate) logs: Logs,
    pub(crate) history: History,
    /// Told when a machine is given a time to stop at.
    expirations: Notify,
    machines: Mutex<HashMap<ItemHash, Handle>>,
}

#[derive(Clone)]
struct Handle {
    orders: Arc<watch::Sender<Orders>>,
    view: watch::Receiver<View>,
    activity: Arc<Activity>,
}

/// What a task is poked with; what is wanted stands in the ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Orders {
    /// Counts pokes.
    poke: u64,
    /// Counts demands to start anew.
    reboot: u64,
}

/// What a task shows.
#[derive(Debug, Clone)]
struct View {
    /// The last poke it has acted on.
    seen: u64,
    state: State,
    endpoint: Option<Endpoint>,
}

/// Where a program answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The machine's vsock socket.
    pub vsock: PathBuf,
    /// Its message's `resources.seconds`.
    pub seconds: u64,
    /// Its message's `code.ref`.
    pub code: ItemHash,
    /// Its message's `on.http`: whether requests are for it at all.
    pub http: bool,
}

/// Who uses a program now, and when it was last used.
#[derive(Debug, Default)]
struct Activity {
    users: AtomicUsize,
    last_us: AtomicI64,
}

/// A program in use: it is not idle before this is dropped.
#[derive(Debug)]
pub struct InUse {
    /// Where it answers.
    pub endpoint: Endpoint,
    activity: Arc<Activity>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.activity.last_us.store(now_us(), Ordering::Relaxed);
        self.activity.users.fetch_sub(1, Ordering::Release);
    }
}

/// Why a program cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// It could not be started; the reason is its owner's.
    #[error("{0}")]
    Failed(String),
    /// It is still not ready.
    #[error("the program was not ready within {0:?}")]
    Slow(Duration),
    /// Its owner stopped it.
    #[error("the program was stopped by its owner")]
    Stopped,
    /// The ledger's reason.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Reconciler {
    /// Finds what an earlier agent left, takes up every machine of the ledger, and takes away what nobody knows.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn start(
        config: Arc<Config>,
        ledger: Ledger,
        intake: Intake,
        host: Arc<dyn Hypervisor>,
        logs: Logs,
    ) -> Result<Self, LedgerError> {
        let firewall = Firewall::start(ledger.clone(), Arc::clone(&host));
        let shared = Shared {
            config,
            ledger,
            intake,
            host,
            firewall,
            logs,
            history: History::default(),
            expirations: Notify::new(),
            machines: Mutex::default(),
        };
        let this = Self {
            shared: Arc::new(shared),
        };
        let records = this.shared.ledger.all().await?;
        this.take_away_strangers(&records).await;
        this.shared.sweep_files(this.shared.keep()).await;
        for record in records {
            if record.state == State::Erased {
                continue;
            }
            let resumed = record.state.clone().after_restart();
            if resumed != record.state {
                this.shared.ledger.enter(&record.hash, &resumed).await?;
            }
            this.poke(&record.hash, false);
        }
        if let Err(error) = this.shared.firewall.publish().await {
            tracing::error!("{error}");
        }
        clock::start(&this);
        Ok(this)
    }

    /// Removes what is on the disk and in the network of machines that the ledger does not know or counts as erased.
    async fn take_away_strangers(&self, records: &[Record]) {
        let known = |hash: &ItemHash| {
            records
                .iter()
                .any(|r| r.hash == *hash && r.state != State::Erased)
        };
        for hash in self.shared.host.leftovers().await {
            if known(&hash) {
                continue;
            }
            tracing::warn!(vm = %hash, "taking away what is left of a machine nobody knows");
            if let Err(error) = task::take_away(&self.shared, &hash, None).await {
                tracing::error!(vm = %hash, "{}", crate::chain(&error));
            }
        }
    }

    /// Records that a machine is wanted and sees to it. `retry` begins a failed one anew.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn run(
        &self,
        hash: &ItemHash,
        source: Source,
        retry: bool,
    ) -> Result<Record, LedgerError> {
        let before = self.shared.ledger.get(hash).await?;
        let record = self.shared.ledger.want_running(hash, source, retry).await?;
        let unchanged = before.is_some_and(|before| {
            before.state == record.state
                && before.desired == record.desired
                && before.source == record.source
        });
        if !unchanged {
            self.poke(hash, false);
        }
        Ok(record)
    }

    /// What guests print.
    #[must_use]
    pub fn logs(&self) -> &Logs {
        &self.shared.logs
    }

    /// What machines use.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.shared.history
    }

    /// Makes the firewall's rules anew.
    ///
    /// # Errors
    /// When they cannot be applied: what was there stays.
    pub async fn renew_rules(&self) -> Result<(), String> {
        let published = self.shared.firewall.publish().await;
        published.map_err(|error| error.to_string())
    }

    /// Records that a machine is to stop; false when it is unknown. `held` keeps pushes from starting it.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn stop(&self, hash: &ItemHash, held: bool) -> Result<bool, LedgerError> {
        let known = self
            .shared
            .ledger
            .want(hash, Desired::Stopped, held)
            .await?;
        if known {
            self.poke(hash, false);
        }
        Ok(known)
    }

    /// Records that nothing of a machine is to be left; false when it is unknown.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn erase(&self, hash: &ItemHash, held: bool) -> Result<bool, LedgerError> {
        let known = self.shared.ledger.want(hash, Desired::Erased, held).await?;
        if known {
            self.poke(hash, false);
        }
        Ok(known)
    }

    /// Starts a running machine anew.
    pub fn reboot(&self, hash: &ItemHash) {
        self.poke(hash, true);
    }

    /// Waits until a machine's task has acted on everything asked of it so far and `done` holds; false when it has
    /// not within `timeout`.
    pub async fn settle(
        &self,
        hash: &ItemHash,
        timeout: Duration,
        done: impl Fn(&State) -> bool,
    ) -> bool {
        let Some((mut view, poke)) = self
            .handle(hash)
            .map(|handle| (handle.view, handle.orders.borrow().poke))
        else {
            return true;
        };
        let reached = view.wait_for(|view| view.seen >= poke && done(&view.state));
        match tokio::time::timeout(timeout, reached).await {
            // The task ends when its machine is erased.
            Ok(Ok(_) | Err(_)) => true,
            Err(_) => false,
        }
    }

    /// What all machines together may hold.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn capacity(&self) -> Result<Capacity, LedgerError> {
        self.shared.capacity().await
    }

    /// A running program, started when it does not run. Whoever asks while it starts waits for the same start.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn program(&self, hash: &ItemHash) -> Result<InUse, Unavailable> {
        if let Some(handle) = self.handle(hash)
            && let Some(in_use) = handle.enter()
        {
            return Ok(in_use);
        }
        if self
            .shared
            .ledger
            .get(hash)
            .await?
            .is_some_and(|record| record.held)
        {
            return Err(Unavailable::Stopped);
        }
        self.shared
            .ledger
            .want_running(hash, Source::Request, false)
            .await?;
        let handle = self.poke(hash, false);
        let poke = handle.orders.borrow().poke;
        let mut view = handle.view.clone();
        let timeout = self.shared.config.program.start_timeout;
        let settled = view.wait_for(|view| {
            view.seen >= poke
                && matches!(
                    view.state,
                    State::Running | State::Failed(_) | State::Erased
                )
        });
        let state = match tokio::time::timeout(timeout, settled).await {
            Err(_) => return Err(Unavailable::Slow(timeout)),
            Ok(Err(_)) => return Err(Unavailable::Failed("it was erased".to_owned())),
            Ok(Ok(view)) => view.state.clone(),
        };
        match state {
            State::Failed(failure) => Err(Unavailable::Failed(failure.reason)),
            _ => handle
                .enter()
                .ok_or_else(|| Unavailable::Failed("it stopped at once".to_owned())),
        }
    }

    fn handle(&self, hash: &ItemHash) -> Option<Handle> {
        self.shared
            .machines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(hash)
            .cloned()
    }

    /// Makes a machine's task look at the ledger again, starting the task when there is none.
    fn poke(&self, hash: &ItemHash, reboot: bool) -> Handle {
        let mut machines = self
            .shared
            .machines
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let handle = machines
            .entry(hash.clone())
            .or_insert_with(|| {
                let (orders, inbox) = watch::channel(Orders::default());
                let seen = View {
                    seen: 0,
                    state: State::Defined,
                    endpoint: None,
                };
                let (outbox, view) = watch::channel(seen);
                let activity = Arc::<Activity>::default();
                let task = Task::new(
                    Arc::clone(&self.shared),
                    hash.clone(),
                    inbox,
                    outbox,
                    Arc::clone(&activity),
                );
                tokio::spawn(task.run());
                Handle {
                    orders: Arc::new(orders),
                    view,
                    activity,
                }
            })
            .clone();
        handle.orders.send_modify(|orders| {
            orders.poke += 1;
            orders.reboot += u64::from(reboot);
        });
        handle
    }
}

impl Handle {
    /// Marks a running program as used.
    fn enter(&self) -> Option<InUse> {
        // Counted before the look, so that a task that finds nobody cannot miss this one.
        self.activity.users.fetch_add(1, Ordering::Acquire);
        let endpoint = {
            let view = self.view.borrow();
            (view.state == State::Running)
                .then(|| view.endpoint.clone())
                .flatten()
        };
        let Some(endpoint) = endpoint else {
            self.activity.users.fetch_sub(1, Ordering::Release);
            return None;
        };
        Some(InUse {
            endpoint,
            activity: Arc::clone(&self.activity),
        })
    }
}

impl Shared {
    /// What is kept of files that no machine uses.
    pub(crate) fn keep(&self) -> Keep {
        Keep {
            hours: self.config.retention.cache_hours,
            mib: self.config.retention.cache_mib,
        }
    }

    /// Takes away files that no machine uses, but for what is to be kept of them; what fails is tried again later.
    /// Whether any went.
    pub(crate) async fn sweep_files(&self, keep: Keep) -> bool {
        let intake = self.intake.clone();
        match tokio::task::spawn_blocking(move || intake.cache().sweep(keep)).await {
            Ok(Ok(0)) | Err(_) => false,
            Ok(Ok(files)) => {
                tracing::info!(files, "files that no machine uses are gone");
                true
            }
            Ok(Err(error)) => {
                tracing::warn!("files that no machine uses stay: {error}");
                false
            }
        }
    }

    /// What all machines together may hold.
    pub(crate) async fn capacity(&self) -> Result<Capacity, LedgerError> {
        let limits = self.config.limits.clone();
        let state_dir = self.config.state_dir.clone();
        let slots = self.host.slots();
        tokio::task::spawn_blocking(move || metrics::capacity(&limits, &state_dir, slots))
            .await
            .map_err(LedgerError::Thread)
    }

    /// Ends a task whose machine is erased, unless something new was asked of it.
    fn retire(&self, hash: &ItemHash, orders: &watch::Receiver<Orders>) -> bool {
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        // Pokes happen under the same lock: nothing can be asked between this look and the removal.
        if orders.has_changed().unwrap_or(false) {
            return false;
        }
        machines.remove(hash);
        true
    }
}
