//! The published Python client in a virtual environment of its own, driven as a user drives it: by its commands.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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

    /// Runs one command with the account's key, whatever its exit status.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        self.output_within(600, arguments)
    }

    /// The same, interrupted after some seconds: commands that follow a log end no other way.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output_within(&self, seconds: u32, arguments: &[&str]) -> Result<Output> {
        Command::new("timeout")
            .args(["--signal=INT", "--kill-after=10", &seconds.to_string()])
            .arg(&self.program)
            .args(arguments)
            .args(["--private-key", &self.key])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.home)
            .env("COLUMNS", "240")
            .env("LC_ALL", "C.UTF-8")
            .env("ALEPH_CONFIG_HOME", self.home.join(".aleph-im"))
            .env("ALEPH_API_HOST", self.ports.ccn_url())
            .env(
                "ALEPH_CRN_LIST_URL",
                format!("{}/crns.json", self.ports.ccn_url()),
            )
            .current_dir(&self.home)
            .output()
            .context("starting the client")
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
