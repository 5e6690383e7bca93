//! A `ccn-lite` process to measure: started, asked how much it used, stopped.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::client::Client;

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

/// Bytes of memory in use.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// At most since it started.
    pub peak: u64,
}

fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Node {
    /// Starts `program` on `directory`; `more` is added to its configuration.
    pub fn start(program: &Path, directory: &Path, more: &str) -> anyhow::Result<Self> {
        let address = free_port()?;
        let config = directory.join("ccn-lite.toml");
        let state: PathBuf = directory.join("state");
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
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name, which may hold anything, ends with the last parenthesis.
        let fields: Vec<&str> = text
            .rsplit_once(')')
            .context("no name in stat")?
            .1
            .split_ascii_whitespace()
            .collect();
        // utime and stime are fields 14 and 15 of proc(5).
        let ticks = |index: usize| -> anyhow::Result<u64> {
            Ok(fields.get(index).context("short stat")?.parse()?)
        };
        let hertz = rustix::param::clock_ticks_per_second();
        Ok((ticks(11)? + ticks(12)?) as f64 / hertz as f64)
    }

    /// Memory of the process.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let bytes = |name: &str| -> anyhow::Result<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_ascii_whitespace().next());
            Ok(kib
                .with_context(|| format!("no {name} in status"))?
                .parse::<u64>()?
                << 10)
        };
        Ok(Memory {
            resident: bytes("VmRSS:")?,
            peak: bytes("VmHWM:")?,
        })
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
