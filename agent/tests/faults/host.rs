//! A host of its own for the agent as a process: namespaces, a core channel node, and what somebody else sees of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use aleph_message::{ItemHash, Keypair, MessageType, allocation};
use axum::body::Body;
use crn_agent::ledger::{Ledger, Record, State};
use http::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;

use crate::still::{self, Still};
use crate::support::FakeCcn;

/// Set in the namespace.
const HERE: &str = "CRN_TEST_NAMESPACE";
const PATIENCE: Duration = Duration::from_secs(120);

/// Monitors in reserve.
pub const SPARES: usize = 2;

/// Runs `test` again in network and mount namespaces of its own; true there.
pub fn inside(test: &str) -> bool {
    if std::env::var_os(HERE).is_some() {
        return true;
    }
    if let Err(error) = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
    {
        eprintln!("nothing is tested, /dev/kvm does not open: {error}");
        return false;
    }
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let output = command
        .args(["--net", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env(HERE, "1")
        .output()
        .unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{test} failed in its namespace");
    false
}

pub fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output();
    let output = output.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The monitor, built from this workspace.
pub fn vmm() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let output = Command::new(env!("CARGO"))
            .args(["build", "-q", "--locked", "-p", "crn-vmm"])
            .arg("--message-format=json")
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        let messages = String::from_utf8(output.stdout).unwrap();
        let built = messages.lines().find_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            message["executable"].as_str().map(PathBuf::from)
        });
        built.unwrap()
    });
    &PROGRAM
}

/// How often faults are tried.
pub fn rounds() -> u64 {
    std::env::var("AGENT_KILLS").map_or(3, |text| text.parse().unwrap())
}

/// An image that is like no other name's.
pub fn image(name: &str, bytes: usize) -> Vec<u8> {
    let mut image = name.as_bytes().to_vec();
    image.resize(bytes, b'.');
    image
}

/// What the host has of machines, as somebody else sees it.
#[derive(Debug, PartialEq, Eq)]
pub struct Traces {
    pub processes: BTreeSet<String>,
    taps: usize,
    state: BTreeSet<String>,
    run: BTreeSet<String>,
    rules: usize,
    proxies: usize,
}

/// What is not as usual.
#[derive(Default)]
pub struct Setup {
    /// Where the agent finds its core channel node.
    pub ccn: Option<String>,
    /// Those it asks beside it.
    pub others: Vec<String>,
    /// Instead of the monitor.
    pub vmm: Option<PathBuf>,
}

pub struct Host {
    pub dir: tempfile::TempDir,
    pub ccn: FakeCcn,
    pub owner: Keypair,
    scheduler: Keypair,
    pub port: u16,
    pub agent: Option<Child>,
}

impl Host {
    pub async fn new() -> Self {
        Self::with(FakeCcn::start().await, Setup::default()).await
    }

    /// Publishes on `ccn`; what the agent is told is in `setup`.
    pub async fn with(ccn: FakeCcn, setup: Setup) -> Self {
        still::uplink().unwrap();
        let dir = tempfile::Builder::new().prefix("f").tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = Self {
            ccn,
            owner: Keypair::generate(),
            scheduler: Keypair::generate(),
            port: free.local_addr().unwrap().port(),
            agent: None,
            dir,
        };
        let path = |name: &str| host.dir.path().join(name);
        let node = Still {
            listen: ([127, 0, 0, 1], host.port).into(),
            ccn: &setup.ccn.unwrap_or_else(|| host.ccn.url()),
            state: &path("s"),
            run: &path("r"),
            vmm: setup.vmm.as_deref().unwrap_or_else(|| vmm()),
            scheduler: &host.scheduler.address(),
            // A stand-in looks for its run directory in its environment.
            spare: if setup.vmm.is_some() { 0 } else { SPARES },
        };
        let trust = format!("ccns = {:?}\n", setup.others);
        let limits = "[limits]\nhost_memory_mib = 0\nhost_disk_mib = 0\nvcpu_overcommit = 64\ncrashes = 1000\n\
                      [retention]\ncache_mib = 0\n";
        still::configure(host.dir.path(), &node, &trust, limits).unwrap();
        std::fs::create_dir(path("s")).unwrap();
        host
    }

    pub async fn start(&mut self) {
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_crn-agent"))
            .arg("--config")
            .arg(self.dir.path().join("agent.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.agent = Some(child.unwrap());
        self.wait("the agent serves", async |host| {
            host.request(Method::GET, "/status/config", String::new(), None)
                .await
                .is_some()
        })
        .await;
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: String,
        authorization: Option<String>,
    ) -> Option<StatusCode> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://127.0.0.1:{}{path}", self.port));
        if let Some(authorization) = authorization {
            request = request.header("Authorization", authorization);
        }
        let request = request.body(Body::from(body)).unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await;
        response.ok().map(|response| response.status())
    }

    pub async fn push(&self, wanted: &BTreeSet<ItemHash>) {
        let (path, body) = (
            "/control/allocations",
            json!({ "instances": wanted }).to_string(),
        );
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let header = allocation::authorization(&self.scheduler, "POST", path, body.as_bytes(), now);
        let status = self.request(Method::POST, path, body, Some(header.unwrap()));
        // The agent may have been killed meanwhile by nobody but this test: it was not.
        assert!(status.await.is_some());
    }

    /// An instance with an image of its own, of so many bytes.
    pub fn instance(&self, name: &str, bytes: usize) -> ItemHash {
        let image = self.ccn.store(&self.owner, &image(name, bytes));
        let content = json!({
            "allow_amend": false,
            "environment": {"internet": true, "hypervisor": "qemu"},
            "resources": {"vcpus": 1, "memory": 32, "seconds": 30},
            "payment": {"chain": "ETH", "type": "hold"},
            "volumes": [],
            "rootfs": {"parent": {"ref": image, "use_latest": false}, "persistence": "host", "size_mib": 12},
        });
        self.ccn
            .publish(&self.owner, MessageType::Instance, content)
    }

    pub fn forget(&self, hash: &ItemHash) {
        self.ccn.set_status(hash, "forgotten");
        let content = json!({"hashes": [hash], "reason": "done"});
        self.ccn.publish(&self.owner, MessageType::Forget, content);
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub async fn wait(&self, what: &str, holds: impl AsyncFn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !holds(self).await {
            if tokio::time::Instant::now() > deadline {
                let log = self.log();
                let end = log.len().saturating_sub(6000);
                panic!("never: {what}\n{:?}\n{}", self.traces(), &log[end..]);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// All monitors: number, and the machine's run directory if it has one.
    fn monitors(&self) -> Vec<(i32, Option<String>)> {
        let run = self.dir.path().join("r");
        let machines = std::fs::read_dir(run.join("vm")).into_iter().flatten();
        // Which of them were in reserve once, only their notes tell.
        let noted: BTreeMap<i32, String> = machines
            .flatten()
            .filter_map(|machine| {
                let note = std::fs::read_to_string(machine.path().join("vmm.pid")).ok()?;
                let pid = note.split(' ').next()?.parse().ok()?;
                Some((pid, machine.file_name().into_string().ok()?))
            })
            .collect();
        let all = procfs::process::all_processes().unwrap().flatten();
        all.filter_map(|process| {
            let environment = process.environ().ok()?;
            let dir = PathBuf::from(environment.get(std::ffi::OsStr::new("CRN_RUN_DIR"))?);
            let dir = dir.strip_prefix(&run).ok()?;
            let born = dir.strip_prefix("vm").ok().and_then(Path::to_str);
            let name = noted.get(&process.pid()).map(String::as_str).or(born);
            let runs = process.stat().ok()?.state != 'Z';
            runs.then(|| (process.pid(), name.map(str::to_owned)))
        })
        .collect()
    }

    /// The processes of machines: number and run directory.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let all = self.monitors().into_iter();
        all.filter_map(|(pid, name)| Some((pid, name?))).collect()
    }

    /// How many monitors have no machine.
    pub fn spares(&self) -> usize {
        let all = self.monitors().into_iter();
        all.filter(|(_, name)| name.is_none()).count()
    }

    pub fn traces(&self) -> Traces {
        let names = |dir: &str| -> BTreeSet<String> {
            let entries = std::fs::read_dir(self.dir.path().join(dir)).into_iter();
            entries
                .flatten()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        };
        Traces {
            processes: self.processes().into_iter().map(|(_, name)| name).collect(),
            taps: run("ip -o link show").matches(": vmtap").count(),
            state: names("s/vm"),
            run: names("r/vm"),
            rules: run("nft list ruleset")
                .matches("comment \"port 22 of")
                .count(),
            proxies: run("ip -6 neigh show proxy").lines().count(),
        }
    }

    /// Whether the host has these instances and no others.
    pub fn has_traces_of(&self, wanted: &BTreeSet<ItemHash>) -> bool {
        let names: BTreeSet<String> = wanted.iter().map(ToString::to_string).collect();
        let count = names.len();
        self.traces()
            == Traces {
                processes: names.clone(),
                taps: count,
                state: names.clone(),
                run: names,
                rules: count,
                proxies: count,
            }
    }

    pub async fn record(&self, hash: &ItemHash) -> Option<Record> {
        let ledger = Ledger::open(&self.dir.path().join("s/agent.sqlite")).unwrap();
        ledger.get(hash).await.unwrap()
    }

    /// Until it has failed for a reason with this in it.
    pub async fn wait_for_failure(&self, hash: &ItemHash, said: &str) {
        self.wait(&format!("a failure that says {said:?}"), async |host| {
            let state = host.record(hash).await.map(|record| record.state);
            matches!(state, Some(State::Failed(failure))
                if failure.reason.contains(said) && failure.retry_at.is_some())
        })
        .await;
    }

    /// Nothing is left of downloads.
    pub fn assert_nothing_half_fetched(&self) {
        for directory in ["s/cache/tmp", "s/cache/partial"] {
            let left = std::fs::read_dir(self.dir.path().join(directory)).unwrap();
            assert_eq!(left.count(), 0, "{directory}");
        }
    }

    /// SIGTERM; what comes of it is the caller's.
    pub fn tell_to_end(&self) {
        let agent = rustix::process::Pid::from_child(self.agent.as_ref().unwrap());
        rustix::process::kill_process(agent, rustix::process::Signal::TERM).unwrap();
    }

    /// Until the host has exactly these machines, and the ledger says so.
    pub async fn settle(&self, wanted: &BTreeSet<ItemHash>) {
        self.wait(
            &format!("{} machines and no more", wanted.len()),
            async |host| host.has_traces_of(wanted) && host.ledger_agrees(wanted).await,
        )
        .await;
        assert_eq!(self.processes().len(), wanted.len(), "one process each");
    }

    async fn ledger_agrees(&self, wanted: &BTreeSet<ItemHash>) -> bool {
        let ledger = Ledger::open(&self.dir.path().join("s/agent.sqlite")).unwrap();
        let records = ledger.all().await.unwrap();
        let running = records
            .iter()
            .filter(|record| record.state == State::Starting);
        let running: BTreeSet<_> = running.map(|record| record.hash.clone()).collect();
        let holding = records.iter().filter(|record| record.lease.is_some());
        running == *wanted
            && holding.count() == wanted.len()
            && records
                .iter()
                .all(|record| wanted.contains(&record.hash) || record.state == State::Erased)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for (pid, _) in self.monitors() {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        if let Some(agent) = &mut self.agent {
            agent.kill().ok();
            agent.wait().ok();
        }
    }
}
