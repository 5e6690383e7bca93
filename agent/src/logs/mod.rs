//! Machines' logs: what a guest prints on its console becomes lines with times in files that are bounded, rotated, and
//! readable for as long as the machine is not erased.
//!
//! What comes in: `console.log`, which the machine's VMM appends to whether an agent runs or not. What goes out: files
//! in `vm/<hash>/log/` ([`store`]) and their lines ([`read`]). One inotify instance watches all consoles, so silent
//! guests cost nothing.

pub mod read;
mod store;

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use aleph_message::ItemHash;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::sync::watch;

use self::store::Store;

/// Output is collected at most this often: a guest that prints a byte at a time does not keep the agent busy.
const PAUSE: Duration = Duration::from_millis(50);

/// All machines' logs; clones share them.
#[derive(Clone)]
pub struct Logs {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    segment_bytes: u64,
    inotify: Arc<OwnedFd>,
    watched: Mutex<HashMap<i32, ItemHash>>,
    machines: Mutex<HashMap<ItemHash, Machine>>,
    /// Counts what was collected; whoever follows a log looks again when it changes.
    grown: watch::Sender<u64>,
}

#[derive(Clone)]
struct Machine {
    console: PathBuf,
    store: Arc<Mutex<Store>>,
}

impl Logs {
    /// Logs below `vm_dir`, each of at most `log_bytes` bytes. One thread collects; it sleeps while no guest prints,
    /// and goes with the process.
    ///
    /// # Errors
    /// inotify_init(2)'s, or when there is no thread to be had.
    pub fn start(vm_dir: &Path, log_bytes: u64) -> io::Result<Self> {
        let inotify = Arc::new(inotify::init(CreateFlags::CLOEXEC)?);
        let inner = Arc::new(Inner {
            dir: vm_dir.to_owned(),
            segment_bytes: log_bytes / store::SEGMENTS,
            inotify: Arc::clone(&inotify),
            watched: Mutex::default(),
            machines: Mutex::default(),
            grown: watch::Sender::new(0),
        });
        let known = Arc::downgrade(&inner);
        std::thread::Builder::new()
            .name("logs".to_owned())
            .spawn(move || collect_for_ever(&known, &inotify))?;
        Ok(Self { inner })
    }

    /// Where a machine's lines are.
    #[must_use]
    pub fn dir(&self, hash: &ItemHash) -> PathBuf {
        self.inner.dir.join(hash.as_str()).join("log")
    }

    /// Changes whenever lines were added to any log.
    #[must_use]
    pub fn grown(&self) -> watch::Receiver<u64> {
        self.inner.grown.subscribe()
    }

    /// Collects a machine's console from now on, beginning with what is there already.
    pub async fn follow(&self, hash: &ItemHash, console: &Path) {
        let (inner, hash, console) = (Arc::clone(&self.inner), hash.clone(), console.to_owned());
        blocking(move || {
            let opened = Store::open(&inner.dir.join(hash.as_str()).join("log"), inner.segment_bytes);
            let store = match opened {
                Ok(store) => Arc::new(Mutex::new(store)),
                Err(error) => return tracing::error!(vm = %hash, "no log is kept: {error}"),
            };
            let machine = Machine {
                console: console.clone(),
                store,
            };
            lock(&inner.machines).insert(hash.clone(), machine);
            match inotify::add_watch(&inner.inotify, &console, WatchFlags::MODIFY) {
                Ok(watched) => {
                    lock(&inner.watched).insert(watched, hash.clone());
                }
                Err(error) => {
                    tracing::error!(vm = %hash, "its console is only collected at its end: {error}");
                }
            }
            // What was written before the watch stood is not told by it.
            inner.collect(&hash, false);
        })
        .await;
    }

    /// Collects the rest of a machine that has ended, its last unfinished line too, and follows it no longer.
    pub async fn finish(&self, hash: &ItemHash) {
        let (inner, hash) = (Arc::clone(&self.inner), hash.clone());
        blocking(move || {
            lock(&inner.watched).retain(|watched, of| {
                if *of == hash {
                    // The kernel has let go of a watch whose file is gone.
                    let _ = inotify::remove_watch(&inner.inotify, *watched);
                }
                *of != hash
            });
            inner.collect(&hash, true);
            lock(&inner.machines).remove(&hash);
        })
        .await;
    }
}

impl Inner {
    /// Blocks.
    fn collect(&self, hash: &ItemHash, ended: bool) {
        let Some(machine) = lock(&self.machines).get(hash).cloned() else {
            return;
        };
        let collected = lock(&machine.store).collect(&machine.console, ended);
        match collected {
            Ok(true) => self.grown.send_modify(|count| *count += 1),
            Ok(false) => {}
            Err(error) => tracing::warn!(vm = %hash, "its console cannot be collected: {error}"),
        }
    }
}

fn collect_for_ever(inner: &Weak<Inner>, inotify: &OwnedFd) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(inotify, &mut buffer);
    loop {
        let (mut written, mut overflow) = (Vec::new(), false);
        loop {
            // Sleeps until there is one.
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(error) => {
                    tracing::error!("consoles are only collected at their ends: {error}");
                    return;
                }
            };
            overflow |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            written.push(event.wd());
            if events.is_buffer_empty() {
                break;
            }
        }
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let mut hashes: Vec<ItemHash> = {
            let watched = lock(&inner.watched);
            if overflow {
                watched.values().cloned().collect()
            } else {
                written
                    .iter()
                    .filter_map(|id| watched.get(id))
                    .cloned()
                    .collect()
            }
        };
        hashes.sort_unstable();
        hashes.dedup();
        std::thread::sleep(PAUSE);
        for hash in &hashes {
            inner.collect(hash, false);
        }
    }
}

async fn blocking(work: impl FnOnce() + Send + 'static) {
    // It fails when the runtime ends, and then nobody reads logs.
    let _ = tokio::task::spawn_blocking(work).await;
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
