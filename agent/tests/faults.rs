//! The agent as a process of its own, with real machines under the host's own KVM, killed at random instants; and a disk
//! that is full. Afterwards ledger, host and guests must agree and nothing may be left over.
//!
//! The guest is four bytes that stand still for ever, so that this also runs where stock kernels do not: it never says
//! that it is ready, and `starting` is as far as a machine comes. Without /dev/kvm nothing is tested.
//! `AGENT_KILLS` is the number of rounds.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use aleph_message::{ItemHash, Keypair, MessageType, allocation};
use axum::body::Body;
use crn_agent::ledger::{Ledger, State};
use http::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use support::FakeCcn;

/// Set in the namespace.
const HERE: &str = "CRN_TEST_NAMESPACE";
const PATIENCE: Duration = Duration::from_secs(120);
/// `cli; hlt; jmp $-1`
const GUEST: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];
/// Where the guest is loaded and entered.
const LOAD: u64 = 0x20_0000;

/// Runs `test` again in network and mount namespaces of its own; true there.
fn inside(test: &str) -> bool {
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

fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output();
    let output = output.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The monitor, built from this workspace.
fn vmm() -> &'static Path {
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

/// An ELF file with the guest in one segment.
fn kernel() -> Vec<u8> {
    let size = GUEST.len() as u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    elf.resize(16, 0);
    // Executable, x86-64, version 1.
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    // Entry, program headers behind this header, no section headers, no flags.
    for word in [LOAD, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend([0; 4]);
    for half in [64u16, 56, 1, 64, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    // Loadable, readable and executable: offset, addresses, sizes, alignment.
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [120, LOAD, LOAD, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(GUEST);
    elf
}

/// What the host has of machines, as somebody else sees it.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    processes: BTreeSet<String>,
    taps: usize,
    state: BTreeSet<String>,
    run: BTreeSet<String>,
    rules: usize,
    proxies: usize,
}

struct Host {
    dir: tempfile::TempDir,
    ccn: FakeCcn,
    owner: Keypair,
    scheduler: Keypair,
    port: u16,
    agent: Option<Child>,
}

impl Host {
    async fn new() -> Self {
        for line in [
            "ip link set lo up",
            "ip link add eth0 type veth peer name peer",
            "ip link set peer up",
            "ip addr add 10.0.2.15/24 dev eth0",
            "ip link set eth0 up",
            "ip route add default via 10.0.2.2",
        ] {
            run(line);
        }
        let dir = tempfile::Builder::new().prefix("f").tempdir().unwrap();
        std::fs::write(dir.path().join("kernel"), kernel()).unwrap();
        std::fs::write(dir.path().join("initramfs"), "none").unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = Self {
            ccn: FakeCcn::start().await,
            owner: Keypair::generate(),
            scheduler: Keypair::generate(),
            port: free.local_addr().unwrap().port(),
            agent: None,
            dir,
        };
        let path = |name: &str| host.dir.path().join(name);
        let config = format!(
            "listen = \"127.0.0.1:{}\"\ndomain = \"127.0.0.1\"\nccn = {:?}\nstate_dir = {:?}\nrun_dir = {:?}\n\
             vmm = {:?}\nkernel = {:?}\ninitramfs = {:?}\n\
             [trust]\nallocation_signers = [{:?}]\n[sandbox]\ncgroups = false\n[network]\nipv6_pool = \"fd00:1::/64\"\n\
             [limits]\nhost_memory_mib = 0\nhost_disk_mib = 0\nvcpu_overcommit = 64\ncrashes = 1000\n\
             [retention]\ncache_mib = 0\n[program]\nstart_timeout_seconds = 3600\n",
            host.port,
            host.ccn.url(),
            path("s"),
            path("r"),
            vmm(),
            path("kernel"),
            path("initramfs"),
            host.scheduler.address(),
        );
        std::fs::write(path("agent.toml"), config).unwrap();
        std::fs::create_dir(path("s")).unwrap();
        host
    }

    async fn start(&mut self) {
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
    fn kill(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    async fn request(
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

    async fn push(&self, wanted: &BTreeSet<ItemHash>) {
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
    fn instance(&self, name: &str, bytes: usize) -> ItemHash {
        let mut image = name.as_bytes().to_vec();
        image.resize(bytes, b'.');
        let image = self.ccn.store(&self.owner, &image);
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

    fn forget(&self, hash: &ItemHash) {
        self.ccn.set_status(hash, "forgotten");
        let content = json!({"hashes": [hash], "reason": "done"});
        self.ccn.publish(&self.owner, MessageType::Forget, content);
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    async fn wait(&self, what: &str, holds: impl AsyncFn(&Self) -> bool) {
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

    /// The processes of machines: number and run directory.
    fn processes(&self) -> Vec<(i32, String)> {
        let run = self.dir.path().join("r/vm");
        let all = procfs::process::all_processes().unwrap().flatten();
        all.filter_map(|process| {
            let environment = process.environ().ok()?;
            let dir = PathBuf::from(environment.get(std::ffi::OsStr::new("CRN_RUN_DIR"))?);
            let name = dir.strip_prefix(&run).ok()?.to_str()?.to_owned();
            (process.stat().ok()?.state != 'Z').then_some((process.pid(), name))
        })
        .collect()
    }

    fn traces(&self) -> Traces {
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

    /// Until the host has exactly these machines, and the ledger says so.
    async fn settle(&self, wanted: &BTreeSet<ItemHash>) {
        let names: BTreeSet<String> = wanted.iter().map(ToString::to_string).collect();
        let expected = Traces {
            processes: names.clone(),
            taps: names.len(),
            state: names.clone(),
            run: names.clone(),
            rules: names.len(),
            proxies: names.len(),
        };
        self.wait(
            &format!("{} machines and no more", wanted.len()),
            async |host| host.traces() == expected && host.ledger_agrees(wanted).await,
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
        for (pid, _) in self.processes() {
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

/// P1, R3, R4, R21: during starts, stops and downloads.
#[tokio::test]
async fn agents_and_machines_killed_at_random_instants_leave_ledger_host_and_guests_agreeing() {
    if !inside(
        "agents_and_machines_killed_at_random_instants_leave_ledger_host_and_guests_agreeing",
    ) {
        return;
    }
    let rounds: u64 = std::env::var("AGENT_KILLS").map_or(3, |text| text.parse().unwrap());
    let mut host = Host::new().await;
    host.start().await;
    host.settle(&BTreeSet::new()).await;
    let mut wanted: BTreeSet<_> = (0..2)
        .map(|n| host.instance(&format!("first {n}"), 1000))
        .collect();
    host.push(&wanted).await;
    host.settle(&wanted).await;
    for round in 0..rounds {
        let mut random = StdRng::seed_from_u64(round);
        let coming = host.instance(&format!("round {round}"), 3 << 20);
        let going = wanted.iter().next().unwrap().clone();
        wanted.insert(coming);
        host.push(&wanted).await;
        for kill in 0..4 {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
            let machines = host.processes();
            if kill % 2 == 1 && !machines.is_empty() {
                let (pid, name) = &machines[random.random_range(0..machines.len())];
                eprintln!("round {round}: machine {} is killed", &name[..8]);
                let pid = rustix::process::Pid::from_raw(*pid).unwrap();
                // It may be on its way out.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            } else {
                eprintln!("round {round}: the agent is killed");
                host.kill();
                host.start().await;
            }
            if kill == 1 {
                // Stopped, and before it has shut down, gone for good.
                wanted.remove(&going);
                host.push(&wanted).await;
                host.forget(&going);
            }
        }
        host.settle(&wanted).await;
        let root = host.dir.path().join("s/vm");
        for hash in &wanted {
            let disk = std::fs::metadata(root.join(hash.as_str()).join("root.raw")).unwrap();
            assert_eq!(
                (disk.len(), disk.permissions().mode() & 0o777),
                (12 << 20, 0o600)
            );
        }
        eprintln!("round {round}: {} machines, as wanted", wanted.len());
    }
    // An orderly end leaves them running, and the next agent has them.
    let before: BTreeSet<_> = host.processes().into_iter().collect();
    let agent = host.agent.as_ref().unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_child(agent),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    let ended = host.agent.take().unwrap().wait().unwrap();
    assert!(ended.success(), "{ended}");
    assert_eq!(
        host.processes().into_iter().collect::<BTreeSet<_>>(),
        before
    );
    host.start().await;
    host.settle(&wanted).await;
    assert_eq!(
        host.processes().into_iter().collect::<BTreeSet<_>>(),
        before
    );

    for hash in &wanted {
        host.forget(hash);
    }
    host.settle(&BTreeSet::new()).await;
    assert_eq!(
        std::fs::read_dir(host.dir.path().join("s/cache/tmp"))
            .unwrap()
            .count(),
        0
    );
}

/// The image fits, its copy does not: nothing is left of what there was no room for, and it starts when there is.
#[tokio::test]
async fn a_machine_for_which_the_disk_is_full_leaves_nothing_and_starts_when_there_is_room() {
    if !inside("a_machine_for_which_the_disk_is_full_leaves_nothing_and_starts_when_there_is_room")
    {
        return;
    }
    let mut host = Host::new().await;
    let state = host.dir.path().join("s");
    run(&format!(
        "mount -t tmpfs -o size=16m none {}",
        state.display()
    ));
    host.start().await;
    let wanted = BTreeSet::from([host.instance("large", 10 << 20)]);
    host.push(&wanted).await;
    let hash = wanted.iter().next().unwrap();
    host.wait("a failure that says why", async |host| {
        let ledger = Ledger::open(&host.dir.path().join("s/agent.sqlite")).unwrap();
        let record = ledger.get(hash).await.unwrap();
        let state = record.map(|record| record.state);
        matches!(state, Some(State::Failed(failure))
            if failure.reason.contains("No space left") && failure.retry_at.is_some())
    })
    .await;
    assert_eq!(host.processes(), []);
    assert!(
        !state
            .join("vm")
            .join(hash.as_str())
            .join("root.raw")
            .exists()
    );
    run(&format!("mount -o remount,size=64m {}", state.display()));
    host.settle(&wanted).await;
    host.forget(hash);
    host.settle(&BTreeSet::new()).await;
}
