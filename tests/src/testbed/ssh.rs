//! SSH into instances with a key of the testbed's own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Instances come and go on the same address and port, so host keys are not remembered; a machine that is just starting
/// or going away is given up soon.
const OPTIONS: [&str; 16] = [
    "-o",
    "StrictHostKeyChecking=no",
    "-o",
    "UserKnownHostsFile=/dev/null",
    "-o",
    "LogLevel=ERROR",
    "-o",
    "BatchMode=yes",
    "-o",
    "ConnectTimeout=20",
    "-o",
    "IdentitiesOnly=yes",
    "-o",
    "ServerAliveInterval=10",
    "-o",
    "ServerAliveCountMax=3",
];

/// A key pair and how it is used.
#[derive(Debug)]
pub struct Ssh {
    key: PathBuf,
}

impl Ssh {
    /// Makes a key pair in `directory`.
    ///
    /// # Errors
    /// ssh-keygen's.
    pub fn new(directory: &Path) -> Result<Self> {
        let key = directory.join("ssh-key");
        if !key.exists() {
            let status = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "testbed", "-f"])
                .arg(&key)
                .status()
                .context("starting ssh-keygen")?;
            if !status.success() {
                bail!("ssh-keygen: {status}");
            }
        }
        Ok(Self { key })
    }

    /// The public key's file.
    #[must_use]
    pub fn public_key(&self) -> PathBuf {
        self.key.with_extension("pub")
    }

    /// The command a person would type.
    #[must_use]
    pub fn command_line(&self, port: u16) -> String {
        format!("ssh -i {} -p {port} root@127.0.0.1", self.key.display())
    }

    /// Runs one command in the instance.
    ///
    /// # Errors
    /// When it cannot be reached or the command fails.
    pub fn run(&self, port: u16, command: &str) -> Result<String> {
        let output = Command::new("ssh")
            .arg("-i")
            .arg(&self.key)
            .args(["-p", &port.to_string()])
            .args(OPTIONS)
            .args(["root@127.0.0.1", command])
            .output()
            .context("starting ssh")?;
        if !output.status.success() {
            bail!(
                "ssh {command:?}: {}\n{}{}",
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Copies a file into the instance.
    ///
    /// # Errors
    /// scp's.
    pub fn copy(&self, port: u16, from: &Path, to: &str) -> Result<()> {
        let output = Command::new("scp")
            .arg("-i")
            .arg(&self.key)
            .args(["-P", &port.to_string()])
            .args(OPTIONS)
            .arg(from)
            .arg(format!("root@127.0.0.1:{to}"))
            .output()
            .context("starting scp")?;
        if !output.status.success() {
            bail!(
                "scp {} {to}: {}\n{}",
                from.display(),
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// Repeats until the instance lets us in: nothing tells the outside that sshd inside has started.
    ///
    /// # Errors
    /// The last attempt's, after `deadline`.
    pub fn wait(&self, port: u16, command: &str, deadline: Duration) -> Result<String> {
        let started = Instant::now();
        loop {
            match self.run(port, command) {
                Ok(output) => return Ok(output),
                Err(error) if started.elapsed() > deadline => return Err(error),
                Err(_) => thread::sleep(Duration::from_secs(2)),
            }
        }
    }
}
