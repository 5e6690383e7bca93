//! `ccn-lite import`: messages from files into the data directory of a node that does not run.
//!
//! A reader cuts the files into chunks of lines; each chunk is read and checked beside others, on all cores; then one
//! chunk after the other is decided in one commit, in the order of the files. What is committed stays when the process
//! ends, however it does: the next run finds it there and goes on.

mod lines;
mod sources;

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use aleph_message::{ErrorCode, ItemHash, Rejection};
use anyhow::Context;
use clap::Args;
use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::node::Node;
use crate::pipeline::bulk::{self, Decided, Fate, Prepared};
use crate::pipeline::remains::{self, Remains};
use crate::store::{StoreError, messages, now, pending};
use lines::{Chunk, Line, Lines, MAX_LINE};
use sources::Sources;

/// Chunks that wait between the reader and those who check.
const READ_AHEAD: usize = 2;
/// Bytes read at once.
const BUFFER: usize = 1 << 18;
/// Waiting messages tried again in one commit.
const RETRIES: u32 = 256;
/// Lines after which a run without a terminal says how far it is.
const SAY_EVERY: u64 = 100_000;
/// Exit status when a line was refused.
const REFUSED: u8 = 3;
/// Exit status when nothing was refused and something waits.
const WAITING: u8 = 4;

/// What to take.
#[derive(Debug, Args)]
#[command(
    after_help = "Each line is a message as GET /api/v0/messages.json lists it, and as `ccn-lite export` writes it: \
    \n\n  curl \"$NODE/api/v0/messages.json?pagination=0&sortOrder=1\" | jq -c '.messages[]' | ccn-lite import --config FILE -\
    \n\nEvery message is checked as if a client had sent it (hash, signature, content, permission, payment), except that no rate \
    limit holds. Let the oldest come first: what a message needs or is paid with should stand before it. A line that is \
    refused is printed as FILE:LINE: REASON, and the run goes on; a message whose content or file is not here waits, as it \
    does in a running node. What is there already is skipped, so a run that was interrupted is simply started again.\
    \n\nExit status: 0 everything is in force, 1 the run failed, 3 lines were refused, 4 nothing was refused and messages wait."
)]
pub struct ImportArgs {
    /// Configuration file of the node, which must not run.
    #[arg(long)]
    config: PathBuf,
    /// Directory of files that messages name, by their hashes: a flat one, or the `files` of another node. May be given
    /// several times.
    #[arg(long = "files", value_name = "DIRECTORY")]
    directories: Vec<PathBuf>,
    /// Files of messages, one JSON object a line; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    inputs: Vec<PathBuf>,
}

/// A line after its checks.
enum Checked {
    /// To be decided.
    Prepared(Prepared),
    /// What is left of a forgotten message.
    Remains(Remains),
    /// In force or gone already, under the same signature.
    Known,
    /// Not a message.
    Refused(String),
}

/// A chunk after its checks.
struct Ready {
    bytes: u64,
    lines: Vec<(u64, Checked)>,
}

/// What was done so far.
struct Progress {
    bar: ProgressBar,
    lines: u64,
    taken: u64,
    known: u64,
    refused: u64,
}

impl Progress {
    fn say(&self, text: &str) -> anyhow::Result<()> {
        let said = self.bar.suspend(|| writeln!(io::stdout(), "{text}"));
        said.context("cannot write the report")
    }

    fn refuse(&mut self, what: &str, reason: &str) -> anyhow::Result<()> {
        self.refused += 1;
        self.say(&format!("{what}: {reason}"))
    }

    fn read(&mut self, bytes: u64, lines: u64) {
        let before = self.lines;
        self.lines += lines;
        self.bar.inc(bytes);
        self.bar.set_message(format!("{} lines", self.lines));
        if self.bar.is_hidden() && before / SAY_EVERY != self.lines / SAY_EVERY {
            tracing::info!(
                lines = self.lines,
                taken = self.taken,
                known = self.known,
                refused = self.refused,
                "importing"
            );
        }
    }
}

/// A bar over all bytes when the inputs have a size, else one that only counts.
fn bar(inputs: &[PathBuf]) -> anyhow::Result<ProgressBar> {
    if !io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let size = |path: &PathBuf| {
        let meta = std::fs::metadata(path).ok()?;
        meta.is_file().then_some(meta.len())
    };
    let total: Option<u64> = inputs.iter().map(size).sum();
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {msg} {eta}",
        ),
        None => (ProgressBar::no_length(), "{bytes} {bytes_per_sec} {msg}"),
    };
    Ok(bar.with_style(ProgressStyle::with_template(template)?))
}

/// Takes what the files hold.
///
/// # Errors
/// When the data directory or a file cannot be used.
pub async fn run(args: ImportArgs) -> anyhow::Result<ExitCode> {
    let node = Node::open(Config::load(&args.config)?).await?;
    let sources = Arc::new(Sources::new(args.directories));
    let mut progress = Progress {
        bar: bar(&args.inputs)?,
        lines: 0,
        taken: 0,
        known: 0,
        refused: 0,
    };
    for input in args.inputs {
        import(&node, &sources, &input, &mut progress)
            .await
            .with_context(|| format!("cannot import {}", input.display()))?;
    }
    settle(&node, &mut progress).await?;
    progress.bar.finish_and_clear();
    let waiting = report_waiting(&node, &progress).await?;
    progress.say(&format!(
        "{} lines: {} messages taken, {} there before, {} refused; {waiting} wait",
        progress.lines, progress.taken, progress.known, progress.refused
    ))?;
    Ok(if progress.refused > 0 {
        REFUSED.into()
    } else if waiting > 0 {
        WAITING.into()
    } else {
        ExitCode::SUCCESS
    })
}

/// Reads `path` beside everything else. The thread ends with the input, or when nobody takes what it reads.
fn read(path: &Path) -> io::Result<mpsc::Receiver<io::Result<Chunk>>> {
    let input: Box<dyn Read + Send> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path)?)
    };
    let mut lines = Lines::new(BufReader::with_capacity(BUFFER, input));
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    std::thread::Builder::new()
        .name("import-reader".into())
        .spawn(move || {
            while let Some(chunk) = lines.chunk().transpose() {
                let failed = chunk.is_err();
                if sender.blocking_send(chunk).is_err() || failed {
                    return;
                }
            }
        })?;
    Ok(receiver)
}

async fn import(
    node: &Node,
    sources: &Arc<Sources>,
    path: &Path,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let chunks = stream::unfold(read(path)?, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    // One more than can be checked at once, so that the next is ready when one is decided.
    let at_once = std::thread::available_parallelism()?.get() + 1;
    let checking = chunks.map(|chunk| {
        let (node, sources) = (node.clone(), sources.clone());
        tokio::spawn(async move { anyhow::Ok(check(&node, &sources, chunk?).await?) })
    });
    let mut ready = std::pin::pin!(checking.buffered(at_once));
    while let Some(chunk) = ready.next().await {
        take(node, path, chunk??, progress).await?;
    }
    Ok(())
}

/// The hash that a line says is its message's, when it can be one.
fn hash_of(value: &Value) -> Option<&str> {
    let hash = value["item_hash"].as_str()?;
    hash.parse::<ItemHash>().is_ok().then_some(hash)
}

fn parse(line: Line) -> (u64, Result<Value, String>) {
    let parsed = match line.text {
        None => Err(format!("line is longer than {MAX_LINE} bytes")),
        Some(text) => {
            serde_json::from_slice(&text).map_err(|error| format!("not a JSON object: {error}"))
        }
    };
    (line.number, parsed)
}

/// Does with a chunk what needs no order.
async fn check(node: &Node, sources: &Arc<Sources>, chunk: Chunk) -> Result<Ready, StoreError> {
    let bytes = chunk.bytes;
    let parsed =
        tokio::task::spawn_blocking(move || chunk.lines.into_iter().map(parse).collect::<Vec<_>>())
            .await
            .map_err(|_| StoreError::Closed)?;
    let (parsed, is_known) = node
        .store
        .read::<_, StoreError, _>(move |conn| {
            let mut is_known = Vec::with_capacity(parsed.len());
            for (_, line) in &parsed {
                let hash = line
                    .as_ref()
                    .ok()
                    .and_then(|value| Some((value, hash_of(value)?)));
                is_known.push(match hash {
                    None => false,
                    Some((value, hash)) => messages::settled_signature(conn, hash)?
                        .is_some_and(|known| known.as_deref() == value["signature"].as_str()),
                });
            }
            Ok((parsed, is_known))
        })
        .await?;
    let contents = parsed
        .iter()
        .zip(&is_known)
        .filter_map(|((_, line), is_known)| {
            let value = line.as_ref().ok().filter(|_| !is_known)?;
            let hash = hash_of(value).filter(|_| value["item_content"].is_null())?;
            Some(hash.to_owned())
        })
        .collect();
    sources.adopt(node, contents).await?;
    let context = node.clone();
    let lines = tokio::task::spawn_blocking(move || {
        let check = |((number, line), is_known): ((u64, Result<Value, String>), bool)| {
            let checked = match line {
                _ if is_known => Checked::Known,
                Err(reason) => Checked::Refused(reason),
                Ok(value) => {
                    let checked = if remains::is_forgotten(&value) {
                        remains::prepare(&value).map(Checked::Remains)
                    } else {
                        bulk::prepare(&context, &value).map(Checked::Prepared)
                    };
                    checked.unwrap_or_else(|rejection| Checked::Refused(rejection.to_string()))
                }
            };
            (number, checked)
        };
        parsed
            .into_iter()
            .zip(is_known)
            .map(check)
            .collect::<Vec<_>>()
    })
    .await
    .map_err(|_| StoreError::Closed)?;
    let stored = lines
        .iter()
        .filter_map(|(_, line)| match line {
            Checked::Prepared(message) => Some(message.stored_file()?.to_owned()),
            _ => None,
        })
        .collect();
    sources.adopt(node, stored).await?;
    Ok(Ready { bytes, lines })
}

/// Decides a chunk and reports about it.
async fn take(
    node: &Node,
    path: &Path,
    chunk: Ready,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    node.guard.check_disk()?;
    let count = chunk.lines.len() as u64;
    let (mut messages, mut forgotten) = (Decided::default(), Decided::default());
    let (mut of_messages, mut of_forgotten) = (Vec::new(), Vec::new());
    let (mut prepared, mut buried) = (Vec::new(), Vec::new());
    let place = |number: u64| format!("{}:{number}", path.display());
    for (number, line) in chunk.lines {
        match line {
            Checked::Known => progress.known += 1,
            Checked::Refused(reason) => progress.refuse(&place(number), &reason)?,
            Checked::Prepared(message) => {
                of_messages.push(number);
                prepared.push(message);
            }
            Checked::Remains(message) => {
                of_forgotten.push(number);
                buried.push(message);
            }
        }
    }
    if !prepared.is_empty() {
        messages = bulk::decide(node, prepared).await?;
    }
    if !buried.is_empty() {
        forgotten.fates = remains::bury(node, buried).await?;
    }
    let woken = messages.woken || !forgotten.fates.is_empty();
    let numbers = of_messages.into_iter().chain(of_forgotten);
    for (number, fate) in numbers.zip(messages.fates.into_iter().chain(forgotten.fates)) {
        match fate {
            Fate::Taken => progress.taken += 1,
            Fate::Known => progress.known += 1,
            Fate::Waiting => {}
            Fate::Refused(rejection) => progress.refuse(&place(number), &rejection.to_string())?,
        }
    }
    if woken {
        settle(node, progress).await?;
    }
    progress.read(chunk.bytes, count);
    Ok(())
}

/// Tries again what waits and is due, as long as that brings something.
async fn settle(node: &Node, progress: &mut Progress) -> anyhow::Result<()> {
    loop {
        let due = node
            .store
            .read::<_, StoreError, _>(|conn| pending::due(conn, now(), RETRIES))
            .await?;
        if due.is_empty() {
            return Ok(());
        }
        let hashes: Vec<String> = due.iter().map(|p| p.item_hash.clone()).collect();
        let mut is_settled = true;
        for (hash, fate) in hashes.iter().zip(bulk::retry(node, due).await?.fates) {
            match fate {
                Fate::Taken => progress.taken += 1,
                Fate::Refused(rejection) => progress.refuse(hash, &rejection.to_string())?,
                Fate::Known | Fate::Waiting => continue,
            }
            is_settled = false;
        }
        if is_settled {
            return Ok(());
        }
    }
}

/// Names every message that waits, and for what; how many there are.
async fn report_waiting(node: &Node, progress: &Progress) -> anyhow::Result<u64> {
    let bar = progress.bar.clone();
    node.store
        .read::<_, Failure, _>(move |conn| {
            let mut count = 0;
            pending::each(conn, |(hash, code, details)| {
                count += 1;
                let reason = code.and_then(ErrorCode::from_i32).map(|code| {
                    Rejection::with_details(code, details.unwrap_or_default()).to_string()
                });
                let reason = reason.unwrap_or_else(|| "its turn".to_owned());
                bar.suspend(|| writeln!(io::stdout(), "{hash} waits: {reason}"))?;
                Ok::<_, Failure>(())
            })?;
            Ok(count)
        })
        .await
        .context("cannot report what waits")
}

/// Why a report ends early.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot write the report")]
    Report(#[from] io::Error),
}
