//! The published Python client in a virtual environment of its own, driven as a user drives it: by its commands.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::products::{cache, root};
use super::settings::Ports;

/// The client, pointed at one testbed, with one account's key.
#[derive(Debug)]
pub struct Client {
    program: PathBuf,
    home: PathBuf,
    ports: Ports,
    key: String,
}

impl Client {
    /// Installs the client if this version is not in the cache yet.
    ///
    /// # Errors
    /// When it cannot be installed.
    pub fn new(home: &Path, ports: Ports, private_key: String) -> Result<Self> {
        let requirements = root().join("tests/requirements.txt");
        let text = fs::read(&requirements).context("reading tests/requirements.txt")?;
        let key = hex::encode(&Sha256::digest(&text)[..8]);
        let place = cache().join("client").join(key);
        let program = place.join("bin/aleph");
        if !program.exists() {
            install(&place, &requirements)?;
        }
        fs::create_dir_all(home.join(".aleph-im/private-keys")).context("the client's home")?;
        Ok(Self {
            program,
            home: home.to_owned(),
            ports,
            key: private_key,
        })
    }

    /// Runs one command; the account's key is added.
    ///
    /// # Errors
    /// When it exits with another status than 0, with what it printed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        if !output.status.success() {
            bail!("aleph {}: {}\n{text}", arguments.join(" "), output.status);
        }
        Ok(text)
    }

    /// Runs one command with the account's key, whatever its exit status; a client that hangs is ended.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        self.command(600, arguments)
            .output()
            .context("starting the client")
    }

    /// Runs a command that follows something for ever, until a line of its output contains `wanted`; returns the
    /// lines until then.
    ///
    /// # Errors
    /// When the text has not come after `seconds`, with what has.
    pub fn follow(&self, seconds: u32, arguments: &[&str], wanted: &str) -> Result<String> {
        let mut child = self
            .command(seconds, arguments)
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the client")?;
        let output = child.stdout.take().context("the client's output")?;
        let mut text = String::new();
        let mut found = false;
        for line in BufReader::new(output).lines() {
            let line = line.context("reading the client's output")?;
            text.push_str(&line);
            text.push('\n');
            if line.contains(wanted) {
                found = true;
                break;
            }
        }
        // `timeout` hands the signal on, and it may have ended by itself.
        let _ = Command::new("kill").arg(child.id().to_string()).status();
        child.wait().context("waiting for the client")?;
        if !found {
            bail!("aleph {}: no {wanted:?} in\n{text}", arguments.join(" "));
        }
        Ok(text)
    }

    fn command(&self, seconds: u32, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["--signal=INT", "--kill-after=10", &seconds.to_string()])
            .arg(&self.program)
            .args(arguments)
            .args(["--private-key", &self.key])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.home)
            .env("COLUMNS", "240")
            .env("LC_ALL", "C.UTF-8")
            .env("PYTHONUNBUFFERED", "1")
            .env("ALEPH_CONFIG_HOME", self.home.join(".aleph-im"))
            .env("ALEPH_API_HOST", self.ports.ccn_url())
            .env(
                "ALEPH_CRN_LIST_URL",
                format!("{}/crns.json", self.ports.ccn_url()),
            )
            .current_dir(&self.home);
        command
    }
}

/// Makes the environment under a temporary name and renames it, so that a broken one is never found. The programs
/// inside name their interpreter by the final path, hence the link in between.
fn install(place: &Path, requirements: &Path) -> Result<()> {
    eprintln!("installing the Python client");
    let parent = place.parent().context("the cache")?;
    fs::create_dir_all(parent)?;
    let done = place.join("bin/aleph");
    let _ = fs::remove_dir_all(place);
    for command in [
        Command::new("python3").args(["-m", "venv"]).arg(place),
        Command::new(place.join("bin/pip"))
            .args(["install", "-q", "--disable-pip-version-check", "-r"])
            .arg(requirements),
    ] {
        let output = command
            .output()
            .with_context(|| format!("starting {command:?}"))?;
        if !output.status.success() {
            let _ = fs::remove_dir_all(place);
            bail!(
                "{command:?}: {}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    if !done.exists() {
        bail!("{} was not installed", done.display());
    }
    Ok(())
}

/// The item hash a command's output names after `label`, e.g. `"Item Hash"`.
///
/// # Errors
/// When there is none.
pub fn item_hash(output: &str) -> Result<String> {
    output
        .split(|c: char| !c.is_ascii_hexdigit())
        .filter(|word| word.len() == 64 && word.chars().all(|c| !c.is_ascii_uppercase()))
        .map(str::to_owned)
        .next_back()
        .with_context(|| format!("no item hash in:\n{output}"))
}
