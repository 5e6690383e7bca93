//! `ccn-lite export`: every message in force as one JSON object a line, and what is left of the forgotten, for another
//! node to take.
//!
//! Works beside a running node: what is written is a snapshot, in the order in which this node got the messages, so that
//! what a message needs stands before it.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use rusqlite::Connection;
use serde_json::Value;

use crate::api::render::{ContentFormat, gone_item, list_item};
use crate::config::Config;
use crate::store::gone::{self, Departure};
use crate::store::messages::{self, Filter};
use crate::store::{StoreError, maintain};

const BUFFER: usize = 1 << 18;

/// What to write and where to.
#[derive(Debug, Args)]
#[command(
    after_help = "`ccn-lite import` takes what this writes. Files, and the contents of messages that are not inline, stand in \
    `files` of the data directory: give a copy of that to `import --files`. Of a \
    forgotten message, what is left is written; what was removed because nobody paid is not."
)]
pub struct ExportArgs {
    /// Configuration file of the node.
    #[arg(long)]
    config: PathBuf,
    /// File to write, complete or not at all; standard output when it is not given.
    #[arg(long, short)]
    output: Option<PathBuf>,
}

/// Why an export ends early.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("cannot read the messages")]
    Store(#[from] StoreError),
    #[error("cannot write them")]
    Write(#[from] io::Error),
}

/// Writes the messages of a node.
///
/// # Errors
/// When something cannot be read or written; then a file of the given name is what it was before.
pub fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    let conn = maintain::open(&config.data_dir.join("ccn-lite.sqlite"))?;
    let Some(path) = &args.output else {
        write(&conn, io::stdout().lock())?;
        return Ok(());
    };
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let context = || format!("cannot write {}", path.display());
    let mut partial = tempfile::NamedTempFile::new_in(parent).with_context(context)?;
    write(&conn, partial.as_file_mut())?;
    partial.as_file().sync_all().with_context(context)?;
    partial.persist(path).with_context(context)?;
    File::open(parent)?.sync_all().with_context(context)
}

fn write(conn: &Connection, output: impl Write) -> Result<(), ExportError> {
    let snapshot = conn.unchecked_transaction().map_err(StoreError::from)?;
    let bar = if io::stderr().is_terminal() {
        ProgressBar::new(messages::count(&snapshot, &Filter::default())?)
            .with_style(style().unwrap_or_else(|_| ProgressStyle::default_bar()))
    } else {
        ProgressBar::hidden()
    };
    let mut output = BufWriter::with_capacity(BUFFER, output);
    let mut line = |message: &Value| -> Result<(), ExportError> {
        serde_json::to_writer(&mut output, message).map_err(io::Error::from)?;
        Ok(output.write_all(b"\n")?)
    };
    messages::each_as_received(&snapshot, |message| {
        bar.inc(1);
        line(&list_item(&message, ContentFormat::Full))
    })?;
    // Behind the FORGETs, which wait for what they name.
    gone::each_forgotten(&snapshot, |message| {
        line(&gone_item(&message, Departure::Forgotten))
    })?;
    output.flush()?;
    bar.finish_and_clear();
    Ok(())
}

fn style() -> Result<ProgressStyle, indicatif::style::TemplateError> {
    ProgressStyle::with_template("{wide_bar} {pos}/{len} messages {eta}")
}
