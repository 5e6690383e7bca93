//! `ccn-lite` under load: what a message costs, how lists answer over many of them, what it all takes in memory.
//!
//! The node is the released program on a real socket; the clients are this process. What one message costs is counted in
//! the CPU time of the node alone, which repeats on a machine that others use as well. What is measured by the clock is
//! marked as such: it says something on a quiet machine only.

pub(super) mod client;
mod fanout;
mod lists;
mod load;
pub(super) mod node;

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::report::{Value, unbounded, value};
use node::Node;

/// Connections that publish at once.
const CONNECTIONS: usize = 16;
/// Different list queries asked.
const QUERIES: u64 = 2000;
/// Page of the cursor whose time is taken.
const DEEP_PAGE: u64 = 10_000;
/// Subscribers of the feed.
const SUBSCRIBERS: u64 = 1000;
/// Messages they get.
const FANNED: u64 = 200;

/// What is measured, and with what.
pub struct Setup {
    /// The node, a release build.
    pub program: PathBuf,
    /// Messages to measure with.
    pub messages: u64,
    /// Where the node's data go; what stands there is removed first.
    pub directory: PathBuf,
}

/// Lets this process and its children hold a connection for each subscriber.
fn raise_file_limit() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )?;
    Ok(())
}

/// For people.
pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn start(setup: &Setup) -> anyhow::Result<Node> {
    Node::start(
        &setup.program,
        &setup.directory,
        "[limits]\nmessages_per_minute = 0\nbytes_per_minute = 0\n",
    )
}

fn prepare(directory: &Path) -> anyhow::Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    Ok(fs::create_dir_all(directory)?)
}

/// Measures everything.
pub fn run(setup: &Setup) -> anyhow::Result<Vec<Value>> {
    raise_file_limit()?;
    prepare(&setup.directory)?;
    let senders = load::senders()?;
    let messages = setup.messages;
    let mut values = Vec::new();

    let node = start(setup)?;
    values.push(value(
        "memory, no messages",
        "MiB",
        mib(node.memory()?.resident),
        64.0,
    ));
    let before = node.cpu()?;
    let seconds = load::publish(node.address, 0..messages, CONNECTIONS, &senders, |done| {
        if done % 100_000 == 0 {
            eprintln!("{done} of {messages} messages");
        }
    })?;
    let cpu = node.cpu()? - before;
    values.push(value(
        "CPU per signed POST, 16 connections",
        "µs",
        cpu / messages as f64 * 1e6,
        120.0,
    ));
    values.push(value(
        "clock per durable POST, 16 connections",
        "µs",
        seconds / messages as f64 * 1e6,
        125.0,
    ));
    values.push(value(
        "memory at most during ingest",
        "MiB",
        mib(node.memory()?.peak),
        256.0,
    ));
    node.stop()?;
    // Stopped, it has copied its log into the database.
    let database = fs::metadata(node::database(&setup.directory))?.len();
    values.push(unbounded(
        "database, all messages",
        "bytes a message",
        database as f64 / messages as f64,
    ));

    let node = start(setup)?;
    values.push(value(
        "start to serving, all messages",
        "ms, clock",
        node.started * 1e3,
        1000.0,
    ));
    let before = node.cpu()?;
    let pages = lists::pages(node.address, messages, QUERIES)?;
    let cpu = node.cpu()? - before;
    values.push(value(
        "list with filters, page of 20, p99",
        "ms, clock",
        pages.p99_ms(),
        10.0,
    ));
    values.push(value(
        "list with filters, mean CPU",
        "ms",
        cpu / QUERIES as f64 * 1e3,
        10.0,
    ));
    let depth = DEEP_PAGE.min(messages / 20);
    let deep = lists::cursor(node.address, depth, 100)?;
    values.push(value(
        &format!("cursor at page {depth}, p99"),
        "ms, clock",
        deep.p99_ms(),
        10.0,
    ));
    values.push(value(
        "memory, all messages",
        "MiB",
        mib(node.memory()?.resident),
        64.0,
    ));
    let fanned = fanout::run(node.address, messages..messages + FANNED, SUBSCRIBERS)?;
    eprintln!("{} frames delivered", fanned.delivered);
    values.push(value(
        "frames lost by 1,000 subscribers",
        "frames",
        fanned.lost as f64,
        1.0,
    ));
    node.stop()?;
    fs::remove_dir_all(&setup.directory)?;
    Ok(values)
}
