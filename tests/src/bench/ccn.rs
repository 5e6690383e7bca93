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

use aleph_message::Keypair;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::report::{Value, unbounded, value};
use lists::Latencies;
use node::Node;

/// Connections that publish at once.
const CONNECTIONS: usize = 16;
/// Different queries asked of each combination of filters.
const QUERIES: u64 = 20;
/// Lists that are asked for.
const ROUTES: [(&str, &str); 2] = [
    ("/api/v0/messages.json", "messages"),
    ("/api/v1/posts.json", "posts"),
];
/// Messages published by HTTP, on top of those imported.
const POSTED: u64 = 20_000;
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

/// The first pages of lists, with every combination of filters.
fn measure_lists(
    node: &Node,
    route: &str,
    what: &str,
    messages: u64,
    values: &mut Vec<Value>,
) -> anyhow::Result<()> {
    let all = lists::pages(node, route, messages, QUERIES)?;
    let together = Latencies::of(all.iter().map(|combination| &combination.latencies));
    values.push(value(
        &format!("{what}, page of 20, all combinations, p99"),
        "ms, clock",
        together.p99_ms(),
        10.0,
    ));
    let cpu: f64 = all.iter().map(|combination| combination.cpu_ms).sum();
    values.push(value(
        &format!("{what}, mean CPU"),
        "ms",
        cpu / all.len() as f64,
        10.0,
    ));
    let slowest = all.iter().max_by(|a, b| a.cpu_ms.total_cmp(&b.cpu_ms));
    if let Some(slowest) = slowest {
        let name = &slowest.name;
        values.push(value(
            &format!("{what}, slowest combination ({name}), mean CPU"),
            "ms",
            slowest.cpu_ms,
            10.0,
        ));
        values.push(value(
            &format!("{what}, slowest combination ({name}), p99"),
            "ms, clock",
            slowest.latencies.p99_ms(),
            10.0,
        ));
    }
    Ok(())
}

/// Signed messages of many clients, on top of all there are.
fn measure_posts(
    node: &Node,
    range: std::ops::Range<u64>,
    senders: &[Keypair],
    values: &mut Vec<Value>,
) -> anyhow::Result<()> {
    let count = (range.end - range.start) as f64;
    let before = node.cpu()?;
    let seconds = load::publish(node.address, range, CONNECTIONS, senders, |_| {})?;
    let cpu = node.cpu()? - before;
    values.push(value(
        "CPU per signed POST, 16 connections",
        "µs",
        cpu / count * 1e6,
        120.0,
    ));
    values.push(value(
        "clock per durable POST, 16 connections",
        "µs",
        seconds / count * 1e6,
        125.0,
    ));
    values.push(value(
        "memory at most while messages are posted",
        "MiB",
        mib(node.memory()?.peak),
        256.0,
    ));
    Ok(())
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
    node.stop()?;
    let imported = node::import(&setup.program, &setup.directory, |output| {
        load::write(0..messages, &senders, output, |done| {
            if done % 100_000 == 0 {
                eprintln!("{done} of {messages} messages written to the import");
            }
        })
    })?;
    values.push(unbounded(
        "CPU per imported message",
        "µs",
        imported.cpu / messages as f64 * 1e6,
    ));
    values.push(unbounded(
        "clock per imported message, signed beside",
        "µs",
        imported.seconds / messages as f64 * 1e6,
    ));
    values.push(value(
        "memory at most during import",
        "MiB",
        mib(imported.peak),
        256.0,
    ));
    // Ended, it has copied its log into the database.
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
    for (route, what) in ROUTES {
        measure_lists(&node, route, what, messages, &mut values)?;
    }
    let depth = DEEP_PAGE.min(messages / 20);
    for (route, what) in ROUTES {
        let deep = lists::cursor(node.address, route, depth, 100)?;
        values.push(value(
            &format!("{what}, cursor at page {depth}, p99"),
            "ms, clock",
            deep.p99_ms(),
            10.0,
        ));
    }
    values.push(value(
        "memory, all messages",
        "MiB",
        mib(node.memory()?.resident),
        64.0,
    ));
    let posted = messages..messages + POSTED.min(messages);
    let fanned = posted.end..posted.end + FANNED;
    measure_posts(&node, posted, &senders, &mut values)?;
    let fanned = fanout::run(node.address, fanned, SUBSCRIBERS)?;
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
