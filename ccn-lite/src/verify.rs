//! `ccn-lite verify`: whether everything the database says is true, as far as it can be proved.
//!
//! The database itself, every message (hash, signature, and that its columns say what its content says), every file
//! (bytes against hash and size), and the relations between them. Works beside a running node: what is looked at is a
//! snapshot.

use std::path::PathBuf;

use aleph_message::Envelope;
use anyhow::Context;
use clap::Args;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::config::Config;
use crate::files::Blobs;
use crate::store::messages::{self, Message};
use crate::store::{accounts, files, maintain};

/// What to check.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Configuration file of the node.
    #[arg(long)]
    config: PathBuf,
    /// Leave the files' bytes alone, which takes most of the time.
    #[arg(long)]
    skip_files: bool,
}

/// What was looked at, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Report {
    /// Messages looked at.
    pub messages: u64,
    /// Files looked at.
    pub files: u64,
    /// One line each.
    pub flaws: Vec<String>,
}

/// Checks everything and says what is wrong.
///
/// # Errors
/// When something is wrong, or nothing can be read.
pub fn run(args: &VerifyArgs) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    let conn = maintain::open(&config.data_dir.join("ccn-lite.sqlite"))?;
    // Looked at, not opened: an upload of the running node is not what an interrupted one left.
    let blobs = Blobs::at(&config.data_dir.join("files"));
    let report = verify(&conn, &blobs, !args.skip_files)?;
    for flaw in &report.flaws {
        println!("{flaw}");
    }
    println!(
        "{} messages and {} files checked, {} flaws",
        report.messages,
        report.files,
        report.flaws.len()
    );
    anyhow::ensure!(report.flaws.is_empty(), "the node's data are damaged");
    Ok(())
}

/// Checks a database and the files beside it, in one snapshot.
///
/// # Errors
/// When the database cannot be read.
pub fn verify(conn: &Connection, blobs: &Blobs, with_bytes: bool) -> anyhow::Result<Report> {
    let snapshot = conn.unchecked_transaction()?;
    let mut report = Report {
        flaws: maintain::check(&snapshot).context("cannot check the database")?,
        ..Report::default()
    };
    messages::each(&snapshot, |message| {
        report.messages += 1;
        if let Err(flaw) = check_message(&message, blobs) {
            report
                .flaws
                .push(format!("message {}: {flaw}", message.item_hash));
        }
    })?;
    for hash in messages::with_wrong_status(&snapshot)? {
        report
            .flaws
            .push(format!("message {hash}: its status says something else"));
    }
    for (hash, size, kind) in files::all(&snapshot)? {
        report.files += 1;
        if let Err(flaw) = check_file(blobs, &hash, size, &kind, with_bytes) {
            // Collected since the snapshot was taken, or really gone.
            let known = files::get(conn, &hash)?.is_some();
            if known {
                report.flaws.push(format!("file {hash}: {flaw}"));
            }
        }
    }
    for (owner, payment_type) in accounts::wrong_totals(&snapshot)? {
        report.flaws.push(format!(
            "costs of {owner}: the total for {payment_type} is not their sum"
        ));
    }
    report.flaws.extend(maintain::relations(&snapshot)?);
    Ok(report)
}

fn check_message(message: &Message, blobs: &Blobs) -> Result<(), String> {
    let raw = json!({
        "item_hash": message.item_hash,
        "type": message.kind,
        "chain": message.chain,
        "sender": message.sender,
        "signature": message.signature,
        "item_type": message.item_type,
        "item_content": message.item_content,
        "time": message.time,
        "channel": message.channel,
    });
    let envelope = Envelope::parse(&raw).map_err(|rejection| rejection.reason())?;
    envelope
        .verify_signature()
        .map_err(|rejection| rejection.reason())?;
    let text = match &message.item_content {
        Some(text) => text.clone(),
        None => {
            let bytes = blobs
                .read(&message.item_hash, crate::files::MAX_CONTENT_BYTES)
                .map_err(|error| format!("its content cannot be read: {error}"))?
                .ok_or("its content is not among the files")?;
            String::from_utf8(bytes).map_err(|_| "its content is not text")?
        }
    };
    let content = envelope
        .parse_content(&text)
        .map_err(|rejection| rejection.reason())?;
    let stored: &Value = &message.content;
    if content.raw != *stored {
        return Err("the content kept is not the content signed".into());
    }
    if content.address() != message.owner {
        return Err(format!(
            "belongs to {}, not {}",
            content.address(),
            message.owner
        ));
    }
    Ok(())
}

fn check_file(
    blobs: &Blobs,
    hash: &str,
    size: u64,
    kind: &str,
    with_bytes: bool,
) -> Result<(), String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    if !blobs.exists(hash).map_err(unreadable)? {
        return Err("is missing".into());
    }
    // The size of a directory is that of everything in it.
    if kind == "file" {
        let actual = blobs.size(hash).map_err(unreadable)?.ok_or("is missing")?;
        if actual != size {
            return Err(format!("has {actual} bytes, not {size}"));
        }
    }
    if !with_bytes {
        return Ok(());
    }
    match blobs.is_intact(hash).map_err(unreadable)? {
        true => Ok(()),
        false => Err("its bytes do not have this hash".into()),
    }
}
