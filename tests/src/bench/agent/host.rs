//! A node in this namespace: its programs, its messages, what the host has of it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aleph_message::{Envelope, ItemHash, Keypair, MessageType, allocation};
use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::Setup;
use crate::bench::ccn::client::Client;
use crate::bench::ccn::node::{Node, free_port};
use crate::bench::process::{self, Memory};
use crate::still::{self, Still};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// The agent is at rest when nothing changed the firewall for so long.
const QUIET: Duration = Duration::from_secs(3);
/// Monitors in reserve: what an agent keeps that is told nothing.
const SPARES: usize = 2;

pub(super) struct Host {
    directory: PathBuf,
    program: PathBuf,
    address: SocketAddr,
    ccn: Node,
    ccn_program: PathBuf,
    owner: Keypair,
    scheduler: Keypair,
    agent: Option<Child>,
    monitor: Child,
    transactions: Arc<AtomicU64>,
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

impl Host {
    /// An uplink, a core channel node, an agent's configuration.
    pub(super) fn prepare(setup: &Setup) -> anyhow::Result<Self> {
        still::uplink()?;
        let directory = setup.directory.clone();
        fs::remove_dir_all(&directory)?;
        fs::create_dir_all(directory.join("ccn"))?;
        let (owner, scheduler) = (Keypair::generate(), Keypair::generate());
        let account = owner.address();
        let genesis =
            format!("[[genesis.credits]]\naddress = \"{account}\"\namount = 1000000000000000\n");
        let ccn = Node::start(&setup.ccn, &directory.join("ccn"), &genesis)?;
        let address = free_port()?;
        let node = Still {
            listen: address,
            ccn: &format!("http://{}", ccn.address),
            state: &directory.join("state"),
            run: &Self::run_dir(),
            vmm: &setup.vmm,
            scheduler: &scheduler.address(),
            spare: SPARES,
        };
        let limits = "[limits]\nhost_memory_mib = 0\nhost_disk_mib = 0\nvcpu_overcommit = 1000\n";
        still::configure(&directory, &node, "", limits)?;
        let (monitor, transactions) = watch_rules()?;
        Ok(Self {
            program: setup.agent.clone(),
            ccn_program: setup.ccn.clone(),
            address,
            ccn,
            owner,
            scheduler,
            agent: None,
            monitor,
            transactions,
            directory,
        })
    }

    /// So many instances of one image.
    pub(super) fn publish(&self, count: usize) -> anyhow::Result<Vec<ItemHash>> {
        let (image, key) = (self.directory.join("image"), self.directory.join("key"));
        fs::write(&image, [b'.'; 4096])?;
        fs::write(&key, self.owner.to_secret_hex())?;
        let published = Command::new(&self.ccn_program)
            .args(["publish", "--ccn"])
            .arg(format!("http://{}", self.ccn.address))
            .arg("--key-file")
            .args([&key, &image])
            .output()?;
        let published: Value =
            serde_json::from_slice(&published.stdout).context("publish the image")?;
        let image = published["item_hash"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let mut client = Client::connect(self.ccn.address)?;
        (0..count)
            .map(|number| {
                let content = json!({
                    "allow_amend": false,
                    "metadata": {"name": format!("machine {number}")},
                    "authorized_keys": ["ssh-ed25519 AAAA bench"],
                    "environment": {"internet": true, "aleph_api": false, "hypervisor": "qemu",
                                    "reproducible": false, "shared_cache": false},
                    "resources": {"vcpus": 1, "memory": 32, "seconds": 30},
                    "payment": {"chain": "ETH", "type": "credit"},
                    "volumes": [],
                    "rootfs": {"parent": {"ref": image, "use_latest": false}, "persistence": "host",
                               "size_mib": 1},
                });
                self.send(&mut client, MessageType::Instance, content)
            })
            .collect()
    }

    fn send(
        &self,
        client: &mut Client,
        kind: MessageType,
        content: Value,
    ) -> anyhow::Result<ItemHash> {
        let envelope = Envelope::sign(&self.owner, kind, Some("BENCH"), now(), content)
            .map_err(|rejection| anyhow::anyhow!(rejection.reason()))?;
        let body = json!({"sync": true, "message": envelope}).to_string();
        let answer = client.post("/api/v0/messages", &body)?;
        let said = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == 200, "{kind:?}: {} {said}", answer.status);
        Ok(envelope.item_hash)
    }

    pub(super) fn forget(&self, machine: &ItemHash) -> anyhow::Result<()> {
        let content = json!({"hashes": [machine], "reason": "done"});
        let mut client = Client::connect(self.ccn.address)?;
        self.send(&mut client, MessageType::Forget, content)
            .map(drop)
    }

    pub(super) fn push(&self, machines: &[ItemHash]) -> anyhow::Result<()> {
        let (path, body) = (
            "/control/allocations",
            json!({ "instances": machines }).to_string(),
        );
        let header = allocation::authorization(
            &self.scheduler,
            "POST",
            path,
            body.as_bytes(),
            now() as i64,
        )?;
        let headers = format!("authorization: {header}\r\n");
        let mut client = Client::connect(self.address)?;
        let answer = client.post_with(path, &headers, &body)?;
        let said = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == 200, "push: {} {said}", answer.status);
        Ok(())
    }

    /// Starts the agent and returns when it serves.
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.directory.join("log"))?;
        let child = Command::new(&self.program)
            .arg("--config")
            .arg(self.directory.join("agent.toml"))
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        self.agent = Some(child);
        let begin = Instant::now();
        loop {
            if let Ok(mut client) = Client::connect(self.address)
                && client
                    .get("/status/config")
                    .is_ok_and(|answer| answer.status == 200)
            {
                return Ok(());
            }
            ensure!(begin.elapsed() < PATIENCE, "the agent does not serve");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut agent) = self.agent.take() {
            agent.kill()?;
            agent.wait()?;
        }
        Ok(())
    }

    fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.agent.as_ref().context("no agent runs")?.id())
    }

    pub(super) fn cpu(&self) -> anyhow::Result<f64> {
        process::cpu(self.pid()?)
    }

    /// What `perf` counts of the agent for a while, an event each; `None` of what this machine cannot count.
    pub(super) fn count(
        &self,
        events: [&str; 2],
        time: Duration,
    ) -> anyhow::Result<[Option<f64>; 2]> {
        let pid = self.pid()?.to_string();
        let seconds = time.as_secs().to_string();
        let output = Command::new("perf")
            .args(["stat", "-x,", "-e", &events.join(","), "-p", &pid])
            .args(["--", "sleep", &seconds])
            .output();
        let said = match output {
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(_) => {
                // Without it, the time still passes.
                std::thread::sleep(time);
                String::new()
            }
        };
        let counted = |event: &str| {
            let line = said.lines().find(|line| line.contains(event))?;
            line.split(',').next()?.parse().ok()
        };
        Ok(events.map(counted))
    }

    pub(super) fn memory(&self) -> anyhow::Result<Memory> {
        process::memory(self.pid()?)
    }

    fn run_dir() -> PathBuf {
        Path::new("/tmp").join(format!("crn-bench-{}", std::process::id()))
    }

    fn wait(&self, what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !holds() {
            if begin.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                let lines: Vec<_> = log.lines().rev().take(20).collect();
                bail!("never {what}: {lines:#?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Until so many machines have processes, and no more.
    pub(super) fn until_running(&self, count: usize) -> anyhow::Result<()> {
        self.wait(&format!("{count} machines"), || {
            let entries = fs::read_dir(Self::run_dir().join("vm"))
                .into_iter()
                .flatten();
            let found: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
            let launched = found.iter().filter(|path| path.join("vmm.pid").exists());
            launched.count() == count && found.len() == count
        })
    }

    /// Until the agent that has been started last says that it has found so many.
    pub(super) fn until_adopted(&self, count: usize) -> anyhow::Result<()> {
        self.wait(&format!("{count} machines found again"), || {
            let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            log.matches("found running").count() == count
        })
    }

    /// Changes of the firewall so far.
    pub(super) fn transactions(&self) -> anyhow::Result<u64> {
        Ok(self.transactions.load(Ordering::SeqCst))
    }

    /// Until nothing has changed the firewall for a while.
    pub(super) fn quiet(&self) -> anyhow::Result<()> {
        let mut last = (self.transactions()?, Instant::now());
        self.wait("at rest", || {
            let count = self.transactions.load(Ordering::SeqCst);
            if count != last.0 {
                last = (count, Instant::now());
            }
            last.1.elapsed() > QUIET
        })
    }

    /// Ends everything.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        self.kill()?;
        self.monitor.kill()?;
        self.monitor.wait()?;
        let machines = fs::read_dir(Self::run_dir().join("vm"))?;
        for machine in machines.flatten() {
            let note = fs::read_to_string(machine.path().join("vmm.pid"))?;
            let pid = note.split(' ').next().and_then(|pid| pid.parse().ok());
            let pid = pid.and_then(rustix::process::Pid::from_raw);
            let pid = pid.context("a machine's process")?;
            rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        }
        fs::remove_dir_all(Self::run_dir())?;
        self.ccn.stop()?;
        Ok(fs::remove_dir_all(&self.directory)?)
    }
}

/// Counts the transactions that the kernel tells of.
fn watch_rules() -> anyhow::Result<(Child, Arc<AtomicU64>)> {
    let mut child = Command::new("nft")
        .arg("monitor")
        .stdout(Stdio::piped())
        .spawn()
        .context("start nft")?;
    let count = Arc::<AtomicU64>::default();
    let lines = BufReader::new(child.stdout.take().context("nft says nothing")?).lines();
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if line.contains("new generation") {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    Ok((child, count))
}
