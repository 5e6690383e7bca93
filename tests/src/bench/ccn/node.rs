//! A `ccn-lite` process to measure: started, asked how much it used, stopped.

use std::fs;
use std::io::BufWriter;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{WaitId, WaitIdOptions};

use super::client::Client;
use crate::bench::process::{self, Memory};

/// How long a node may take to serve or to stop.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running node; killed when dropped.
pub struct Node {
    child: Child,
    /// Where it serves.
    pub address: SocketAddr,
    /// From the start of the process until it answered, seconds.
    pub started: f64,
}

/// An address nobody listens at.
pub fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn state(directory: &Path) -> PathBuf {
    directory.join("state")
}

/// The database of a node on `directory`.
pub fn database(directory: &Path) -> PathBuf {
    state(directory).join("ccn-lite.sqlite")
}

/// What an import took.
#[derive(Debug, Clone, Copy)]
pub struct Imported {
    /// CPU time of all threads, seconds.
    pub cpu: f64,
    /// Bytes of memory at most.
    pub peak: u64,
    /// By the clock, seconds.
    pub seconds: f64,
}

/// Has `program` import what `write` writes into the node on `directory`, which was started before and is not running.
pub fn import(
    program: &Path,
    directory: &Path,
    write: impl FnOnce(BufWriter<ChildStdin>) -> anyhow::Result<()>,
) -> anyhow::Result<Imported> {
    let begin = Instant::now();
    let mut child = Command::new(program)
        .args(["import", "--config"])
        .arg(directory.join("ccn-lite.toml"))
        .arg("-")
        .env("RUST_LOG", "warn")
        .stdin(Stdio::piped())
        .stdout(fs::File::create(directory.join("imported"))?)
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let input = child.stdin.take().context("no standard input")?;
    let sampling = Sampling::start(child.id());
    let written = write(BufWriter::with_capacity(1 << 16, input));
    // What it used is there to read until it is waited for.
    let pid = rustix::process::Pid::from_child(&child);
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    rustix::process::waitid(WaitId::Pid(pid), options)?;
    let imported = Imported {
        cpu: process::cpu(child.id())?,
        peak: sampling.peak(),
        seconds: begin.elapsed().as_secs_f64(),
    };
    let status = child.wait()?;
    let report = fs::read_to_string(directory.join("imported"))?;
    ensure!(status.success(), "the import ended with {status}: {report}");
    written?;
    Ok(imported)
}

/// Looks at the memory of a process until it is gone.
struct Sampling(std::thread::JoinHandle<u64>);

impl Sampling {
    fn start(pid: u32) -> Self {
        Self(std::thread::spawn(move || {
            let mut peak = 0;
            // One that has ended has no memory to tell about.
            while let Ok(memory) = process::memory(pid) {
                peak = memory.peak;
                std::thread::sleep(Duration::from_millis(50));
            }
            peak
        }))
    }

    fn peak(self) -> u64 {
        self.0.join().expect("the sampler panicked")
    }
}

impl Node {
    /// Starts `program` on `directory`; `more` is added to its configuration.
    pub fn start(program: &Path, directory: &Path, more: &str) -> anyhow::Result<Self> {
        let address = free_port()?;
        let config = directory.join("ccn-lite.toml");
        let state = state(directory);
        fs::write(
            &config,
            format!(
                "listen = \"{address}\"\ndata_dir = {state:?}\n[scheduler]\nenabled = false\n{more}"
            ),
        )?;
        let log = fs::File::create(directory.join("log"))?;
        let begin = Instant::now();
        let child = Command::new(program)
            .args(["serve", "--config"])
            .arg(&config)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let mut node = Self {
            child,
            address,
            started: 0.0,
        };
        loop {
            if let Ok(mut client) = Client::connect(address)
                && client
                    .get("/api/v0/version")
                    .is_ok_and(|answer| answer.status == 200)
            {
                node.started = begin.elapsed().as_secs_f64();
                return Ok(node);
            }
            if let Some(status) = node.child.try_wait()? {
                bail!(
                    "the node ended with {status}: {}",
                    fs::read_to_string(directory.join("log")).unwrap_or_default()
                );
            }
            if begin.elapsed() > PATIENCE {
                bail!("the node does not serve");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// CPU time used so far by all threads, seconds.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        process::cpu(self.child.id())
    }

    /// Memory of the process.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        process::memory(self.child.id())
    }

    /// Asks it to stop and waits until it did.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begin.elapsed() > PATIENCE {
                bail!("the node does not stop");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
