//! What a user does, step by step: publish, deploy, call, log in. The demo and the end-to-end tests share it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::client::{Client, item_hash};
use super::http::{self, get_json};
use super::products::{product, root};
use super::settings::{Accounts, NODE_HASH, Ports};
use super::ssh::Ssh;

/// How long an instance may take until it lets its owner in; an emulated processor needs minutes.
pub const INSTANCE_DEADLINE: Duration = Duration::from_secs(900);
/// How long a program's first answer may take.
pub const PROGRAM_DEADLINE: Duration = Duration::from_secs(240);

/// A network of one node, its accounts and a user's tools.
#[derive(Debug)]
pub struct Network {
    /// Where it is reached.
    pub ports: Ports,
    /// The user's client.
    pub client: Client,
    /// The user's SSH key.
    pub ssh: Ssh,
    directory: PathBuf,
    operator_key: PathBuf,
}

impl Network {
    /// Prepares a user's tools in `directory`.
    ///
    /// # Errors
    /// When the client or a key cannot be made.
    pub fn new(directory: &Path, ports: Ports, accounts: &Accounts) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let operator_key = directory.join("operator.key");
        fs::write(&operator_key, accounts.operator.to_secret_hex())
            .context("writing the operator's key")?;
        let client = Client::new(
            &directory.join("home"),
            ports,
            format!("0x{}", accounts.user.to_secret_hex()),
        )?;
        Ok(Self {
            ports,
            client,
            ssh: Ssh::new(directory)?,
            directory: directory.to_owned(),
            operator_key,
        })
    }

    /// Publishes a file with the operator's command; returns the STORE message's item hash.
    ///
    /// # Errors
    /// The command's.
    pub fn publish(&self, file: &Path) -> Result<String> {
        let output = Command::new(root().join("target/out/staging/usr/bin/ccn-lite"))
            .args(["publish", "--ccn", &self.ports.ccn_url(), "--key-file"])
            .arg(&self.operator_key)
            .arg(file)
            .output()
            .context("starting ccn-lite publish")?;
        if !output.status.success() {
            bail!(
                "ccn-lite publish: {}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let printed: Value = serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "ccn-lite publish printed {}",
                String::from_utf8_lossy(&output.stdout)
            )
        })?;
        Ok(printed["item_hash"]
            .as_str()
            .context("item_hash in what was printed")?
            .to_owned())
    }

    /// Publishes the Python runtime.
    ///
    /// # Errors
    /// See [`Network::publish`].
    pub fn publish_runtime(&self) -> Result<String> {
        self.publish(&product("python.squashfs")?)
    }

    /// Publishes the Debian image, compressed as distributions publish theirs.
    ///
    /// # Errors
    /// See [`Network::publish`].
    pub fn publish_debian(&self) -> Result<String> {
        self.publish(&product("debian.qcow2")?)
    }

    /// `aleph program upload` of the demo program; returns the PROGRAM message's item hash.
    ///
    /// # Errors
    /// The client's.
    pub fn upload_program(&self, runtime: &str) -> Result<String> {
        let code = self.directory.join("hello");
        let _ = fs::remove_dir_all(&code);
        fs::create_dir_all(&code)?;
        fs::copy(
            root().join("tests/programs/hello/main.py"),
            code.join("main.py"),
        )
        .context("copying the program")?;
        let output = self.client.run(&[
            "program",
            "upload",
            code.to_str().context("a path")?,
            "main:app",
            "--name",
            "hello",
            "--runtime",
            runtime,
            "--compute-units",
            "1",
            "--memory",
            "512",
            "--internet",
            "--skip-volume",
            "--env-vars",
            "DEMO_NAME=first-light",
            "--payment-chain",
            "ETH",
            "--updatable",
            "--print-program-message",
        ])?;
        self.newest("PROGRAM")
            .with_context(|| format!("the client printed:\n{output}"))
    }

    /// `aleph instance create`; returns the INSTANCE message's item hash.
    ///
    /// # Errors
    /// The client's.
    pub fn create_instance(&self, rootfs: &str) -> Result<String> {
        let key = self.ssh.public_key();
        let output = self.client.run(&[
            "instance",
            "create",
            "--payment-type",
            "credit",
            "--payment-chain",
            "ETH",
            "--name",
            "debian",
            "--rootfs",
            rootfs,
            "--compute-units",
            "1",
            "--rootfs-size",
            "20480",
            "--skip-volume",
            "--ssh-pubkey-file",
            key.to_str().context("a path")?,
            "--crn-hash",
            NODE_HASH,
            "--crn-auto-tac",
            "--print-message",
        ])?;
        self.newest("INSTANCE")
            .with_context(|| format!("the client printed:\n{output}"))
    }

    /// The newest message of one type on the network.
    ///
    /// # Errors
    /// When there is none.
    pub fn newest(&self, kind: &str) -> Result<String> {
        let list = get_json(&format!(
            "{}/api/v0/messages.json?msgType={kind}&pagination=1",
            self.ports.ccn_url()
        ))?;
        item_hash(
            list["messages"][0]["item_hash"]
                .as_str()
                .with_context(|| format!("no {kind} on the network"))?,
        )
    }

    /// A URL of a program by path.
    #[must_use]
    pub fn program_url(&self, program: &str, path: &str) -> String {
        format!("{}/vm/{program}{path}", self.ports.crn_url())
    }

    /// GET of a program's route, repeated while the node still fetches what it needs.
    ///
    /// # Errors
    /// The last answer, after [`PROGRAM_DEADLINE`].
    pub fn call_program(&self, program: &str, path: &str) -> Result<Value> {
        let started = Instant::now();
        loop {
            let answer = http::request(
                "GET",
                &self.program_url(program, path),
                &[],
                &[],
                PROGRAM_DEADLINE,
            )?;
            if answer.status == 200 {
                return answer.json();
            }
            if started.elapsed() > PROGRAM_DEADLINE {
                bail!("GET {path}: {} {}", answer.status, answer.text());
            }
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// What the node says of a VM in `/v2/about/executions/list`; null when it does not know it.
    ///
    /// # Errors
    /// When the node does not answer.
    pub fn execution(&self, vm: &str) -> Result<Value> {
        Ok(get_json(&format!(
            "{}/v2/about/executions/list",
            self.ports.crn_url()
        ))?[vm]
            .clone())
    }

    /// Repeats until the node's view of a VM satisfies `wanted`.
    ///
    /// # Errors
    /// The last view, after `deadline`.
    pub fn wait_execution(
        &self,
        vm: &str,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let started = Instant::now();
        loop {
            let view = self.execution(vm)?;
            if wanted(&view) {
                return Ok(view);
            }
            if started.elapsed() > deadline {
                bail!("{vm} is not {what} after {deadline:?}: {view}");
            }
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// The host port that leads to an instance's SSH, once the node says so.
    ///
    /// # Errors
    /// See [`Network::wait_execution`].
    pub fn ssh_port(&self, instance: &str) -> Result<u16> {
        let view = self.wait_execution(instance, "reachable", INSTANCE_DEADLINE, |v| {
            v["networking"]["mapped_ports"]["22"]["host"].is_u64() && v["running"] == true
        })?;
        let port = view["networking"]["mapped_ports"]["22"]["host"]
            .as_u64()
            .unwrap_or_default();
        u16::try_from(port).context("a port number")
    }
}
