//! `ccn-lite key`: making keys and telling their addresses.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aleph_message::Keypair;
use anyhow::Context;
use clap::{Args, Subcommand};

/// Arguments of `ccn-lite key`.
#[derive(Args, Debug)]
pub struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Subcommand, Debug)]
enum KeyCommand {
    /// Make a new key, readable by its owner only, and print its address.
    New {
        /// File to write; must not exist.
        file: PathBuf,
    },
    /// Print the address of a key.
    Address {
        /// File that holds the key in hex.
        file: PathBuf,
    },
}

/// Runs the command.
///
/// # Errors
/// When the file cannot be used.
pub fn run(args: &KeyArgs) -> anyhow::Result<()> {
    let key = match &args.command {
        KeyCommand::New { file } => create(file)?,
        KeyCommand::Address { file } => read(file)?,
    };
    writeln!(std::io::stdout(), "{}", key.address()).context("cannot write the address")
}

fn create(file: &Path) -> anyhow::Result<Keypair> {
    let key = Keypair::generate();
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut out = options
        .open(file)
        .with_context(|| format!("cannot create {}", file.display()))?;
    writeln!(out, "{}", key.to_secret_hex())
        .and_then(|()| out.sync_all())
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(key)
}

/// Reads a key from a file.
///
/// # Errors
/// When the file cannot be read or holds no key.
pub fn read(file: &Path) -> anyhow::Result<Keypair> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Keypair::from_hex(&text).with_context(|| format!("{} holds no key", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_new_key_is_private_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let key = create(&file).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&file).unwrap().address(), key.address());
        assert!(
            create(&file).is_err(),
            "an existing key is never overwritten"
        );
    }
}
