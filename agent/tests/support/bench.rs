//! A host on which machines are entries in a list. A program's guest is an HTTP server behind a vsock-like socket.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aleph_message::ItemHash;
use crn_agent::config::Config;
use crn_agent::intake::workload::{Body, Resolved, Volume};
use crn_agent::ledger::Kind;
use crn_agent::metrics::history::Counters;
use crn_agent::net::{self, Plan, Pools};
use crn_agent::reconcile::host::{Guest, GuestEvent, HostError, Hypervisor, NetworkOf, Place};
use crn_protocol::control::ExitReason;
use crn_protocol::guest::{GuestConfig, Network, Workload};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc};

pub struct Bench {
    pools: Pools,
    state: PathBuf,
    run: PathBuf,
    running: Arc<Mutex<HashMap<ItemHash, mpsc::Sender<GuestEvent>>>>,
    pub paused: Arc<Mutex<HashSet<ItemHash>>>,
    pub starts: AtomicUsize,
    /// Guests that say nothing after their start.
    pub mute: AtomicUsize,
    pub networks: Mutex<Vec<NetworkOf>>,
    /// Somebody else has changed the rules.
    pub disturbed: Notify,
}

impl Bench {
    pub fn new(config: &Config) -> Self {
        Self {
            pools: Pools::parse(&config.network.ipv4_pool, &config.network.ipv6_pool).unwrap(),
            state: config.state_dir.join("vm"),
            run: config.run_dir.join("vm"),
            running: Arc::default(),
            paused: Arc::default(),
            starts: AtomicUsize::new(0),
            mute: AtomicUsize::new(0),
            networks: Mutex::default(),
            disturbed: Notify::new(),
        }
    }

    pub fn runs(&self, hash: &ItemHash) -> bool {
        self.running.lock().unwrap().contains_key(hash)
    }

    pub fn started(&self) -> usize {
        self.starts.load(Ordering::SeqCst)
    }

    /// The machine ends by itself.
    pub async fn end(&self, hash: &ItemHash, reason: ExitReason) {
        let events = self.running.lock().unwrap().remove(hash).unwrap();
        events
            .send(GuestEvent::Exited {
                reason,
                detail: String::new(),
            })
            .await
            .unwrap();
    }

    /// The guest prints on its console.
    pub fn print(&self, hash: &ItemHash, text: &str) {
        let console = self.disks(hash).join("console.log");
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(console);
        std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
    }

    pub fn disks(&self, hash: &ItemHash) -> PathBuf {
        self.state.join(hash.as_str())
    }
}

struct BenchGuest {
    hash: ItemHash,
    events: mpsc::Receiver<GuestEvent>,
    running: Arc<Mutex<HashMap<ItemHash, mpsc::Sender<GuestEvent>>>>,
    paused: Arc<Mutex<HashSet<ItemHash>>>,
}

impl Guest for BenchGuest {
    fn event(&mut self) -> BoxFuture<'_, GuestEvent> {
        async move {
            let gone = GuestEvent::Exited {
                reason: ExitReason::Stopped,
                detail: String::new(),
            };
            self.events.recv().await.unwrap_or(gone)
        }
        .boxed()
    }

    fn ask_to_stop(&mut self) -> BoxFuture<'_, Result<(), HostError>> {
        assert!(!self.paused.lock().unwrap().contains(&self.hash), "asleep");
        self.running.lock().unwrap().remove(&self.hash);
        async { Ok(()) }.boxed()
    }

    fn pause(&mut self) -> BoxFuture<'_, Result<(), HostError>> {
        self.paused.lock().unwrap().insert(self.hash.clone());
        async { Ok(()) }.boxed()
    }

    fn resume(&mut self) -> BoxFuture<'_, Result<(), HostError>> {
        self.paused.lock().unwrap().remove(&self.hash);
        async { Ok(()) }.boxed()
    }

    fn stop(&mut self) -> BoxFuture<'_, Result<(), HostError>> {
        self.running.lock().unwrap().remove(&self.hash);
        async { Ok(()) }.boxed()
    }
}

impl Hypervisor for Bench {
    fn slots(&self) -> u16 {
        300
    }

    fn addresses(&self, hash: &ItemHash, place: Place) -> Result<Plan, HostError> {
        let kind = match place.kind {
            Kind::Microvm => net::Kind::Program,
            Kind::PersistentProgram => net::Kind::PersistentProgram,
            Kind::Instance => net::Kind::Instance,
        };
        self.pools
            .plan(place.slot, hash.as_str(), kind)
            .map_err(HostError::during("plan"))
    }

    fn guest_config(&self, resolved: &Resolved, place: Place) -> Result<GuestConfig, HostError> {
        let plan = self.addresses(&resolved.workload.hash, place)?;
        let network: Network = plan.guest(1500, Vec::new());
        let workload = Workload::Instance {
            root: "root".to_owned(),
        };
        Ok(GuestConfig {
            hostname: resolved.workload.hostname(),
            network: Some(network),
            workload,
        })
    }

    fn make_disks<'a>(
        &'a self,
        resolved: &'a Resolved,
        _place: Place,
    ) -> BoxFuture<'a, Result<(), HostError>> {
        let dir = self.disks(&resolved.workload.hash);
        std::fs::create_dir_all(&dir).unwrap();
        let workload = &resolved.workload;
        let names: Vec<_> = workload
            .volumes
            .iter()
            .map(|v| workload.disk_name(v))
            .collect();
        crn_agent::volume::keep_volumes(&dir, &names).unwrap();
        let mut blank = vec![dir.join("root.raw")];
        for (name, volume) in names.iter().zip(&workload.volumes) {
            let path = dir.join(format!("{name}.raw"));
            match volume {
                Volume::Disk {
                    parent: Some(parent),
                    size_mib,
                    ..
                } => {
                    let parent = &resolved.files[&parent.hash].path;
                    crn_agent::volume::prepare_copy(parent, &path, *size_mib).unwrap();
                }
                Volume::Disk { parent: None, .. } => blank.push(path),
                Volume::Image { .. } => {}
            }
        }
        // What is there stays, as on a real host.
        for disk in blank.iter().filter(|disk| !disk.exists()) {
            std::fs::write(disk, "new").unwrap();
        }
        self.print(&resolved.workload.hash, "[    0.1] booting\nlogin:");
        let links = dir.join("files");
        std::fs::create_dir_all(&links).unwrap();
        let files: Vec<_> = resolved.files.values().collect();
        crn_agent::volume::keep_links(&links, files.iter().map(|file| file.path.as_path()))
            .unwrap();
        for file in files {
            file.link_into(&links).unwrap();
        }
        async { Ok(()) }.boxed()
    }

    fn start<'a>(
        &'a self,
        resolved: &'a Resolved,
        _place: Place,
    ) -> BoxFuture<'a, Result<Box<dyn Guest>, HostError>> {
        async move {
            self.starts.fetch_add(1, Ordering::SeqCst);
            let hash = resolved.workload.hash.clone();
            let (sender, events) = mpsc::channel(8);
            if matches!(resolved.workload.body, Body::Program { .. }) {
                serve_program(&self.vsock(&hash));
                // A start takes a while.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            if self.mute.load(Ordering::SeqCst) == 0 {
                sender.send(GuestEvent::Ready).await.unwrap();
            }
            self.running.lock().unwrap().insert(hash.clone(), sender);
            let running = Arc::clone(&self.running);
            Ok(Box::new(BenchGuest {
                hash,
                events,
                running,
                paused: Arc::clone(&self.paused),
            }) as Box<dyn Guest>)
        }
        .boxed()
    }

    fn adopt<'a>(
        &'a self,
        _hash: &'a ItemHash,
        _guest: GuestConfig,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Guest>>, HostError>> {
        // A bench does not outlive its agent, so nothing is ever found again.
        async { Ok(None) }.boxed()
    }

    fn clean<'a>(
        &'a self,
        hash: &'a ItemHash,
        _place: Option<Place>,
    ) -> BoxFuture<'a, Result<(), HostError>> {
        let _ = std::fs::remove_dir_all(self.run.join(hash.as_str()));
        async { Ok(()) }.boxed()
    }

    fn erase<'a>(&'a self, hash: &'a ItemHash) -> BoxFuture<'a, Result<(), HostError>> {
        let _ = std::fs::remove_dir_all(self.disks(hash));
        async { Ok(()) }.boxed()
    }

    fn apply(&self, networks: Vec<NetworkOf>) -> BoxFuture<'_, Result<(), HostError>> {
        *self.networks.lock().unwrap() = networks;
        async { Ok(()) }.boxed()
    }

    fn rules_disturbed(&self) -> BoxFuture<'_, ()> {
        self.disturbed.notified().boxed()
    }

    fn vsock(&self, hash: &ItemHash) -> PathBuf {
        self.run.join(hash.as_str()).join("vsock.sock")
    }

    fn console(&self, hash: &ItemHash) -> PathBuf {
        self.disks(hash).join("console.log")
    }

    fn attach_console<'a>(
        &'a self,
        hash: &'a ItemHash,
    ) -> BoxFuture<'a, Result<UnixStream, HostError>> {
        async move {
            if !self.runs(hash) {
                return Err(HostError::during("attach to its console")(
                    "it does not run",
                ));
            }
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            // A guest that shouts back.
            tokio::spawn(async move {
                theirs.write_all(b"login: ").await.unwrap();
                let mut typed = [0; 64];
                while let Ok(count @ 1..) = theirs.read(&mut typed).await {
                    let shout = typed[..count].to_ascii_uppercase();
                    theirs.write_all(&shout).await.unwrap();
                }
            });
            Ok(ours)
        }
        .boxed()
    }

    fn counters<'a>(&'a self, hash: &'a ItemHash) -> BoxFuture<'a, Option<Counters>> {
        let counters = Counters {
            cpu_us: 1_500_000,
            memory_bytes: 64 << 20,
            ..Counters::default()
        };
        async move { self.runs(hash).then_some(counters) }.boxed()
    }

    fn wipe<'a>(
        &'a self,
        hash: &'a ItemHash,
        volumes: bool,
    ) -> BoxFuture<'a, Result<(), HostError>> {
        assert!(!self.runs(hash), "the disks of a running machine");
        let wiped = crn_agent::volume::wipe(&self.disks(hash), volumes);
        async { wiped.map_err(HostError::during("wipe")) }.boxed()
    }

    fn uses(&self, hash: &ItemHash, file: &ItemHash) -> bool {
        self.disks(hash).join("files").join(file.as_str()).exists()
    }

    fn is_gone<'a>(&'a self, hash: &'a ItemHash) -> BoxFuture<'a, bool> {
        let gone = !self.runs(hash) && !self.disks(hash).exists();
        async move { gone }.boxed()
    }

    fn leftovers(&self) -> BoxFuture<'_, Vec<ItemHash>> {
        let found = std::fs::read_dir(&self.state)
            .into_iter()
            .flatten()
            .flatten();
        let found = found
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        async move { found }.boxed()
    }
}

/// Answers every request with its own first line as the body.
fn serve_program(path: &std::path::Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut greeting = [0; 13];
                stream.read_exact(&mut greeting).await.unwrap();
                assert_eq!(&greeting, b"CONNECT 8080\n");
                stream.write_all(b"OK 8080\n").await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else {
                        return;
                    };
                    head.push(byte);
                }
                let head = String::from_utf8(head).unwrap();
                let line = head.lines().next().unwrap().to_owned();
                let status = if line.contains("/missing") {
                    "404 Not Found"
                } else {
                    "200 OK"
                };
                if line.contains("/slow") {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                }
                let reply = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: text/x-guest\r\nContent-Length: {}\r\n\r\n{line}",
                    line.len()
                );
                stream.write_all(reply.as_bytes()).await.unwrap();
            });
        }
    });
}
