//! List queries as clients ask them: combinations of filters, a page of 20, and the same through a cursor far down.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::client::Client;
use super::load::{CHANNELS, SENDERS, START, TAGS, TYPES, scatter, senders};
use super::node::Node;

/// Seconds each query took.
#[derive(Debug, Default)]
pub struct Latencies(Vec<f64>);

impl Latencies {
    /// All of `parts` together.
    pub fn of<'a>(parts: impl Iterator<Item = &'a Self>) -> Self {
        Self(parts.flat_map(|part| part.0.iter().copied()).collect())
    }

    /// The value that all but a hundredth stay below, milliseconds.
    pub fn p99_ms(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
        sorted.get(rank).copied().unwrap_or(0.0) * 1e3
    }
}

/// Filters that can be combined.
const FILTERS: [&str; 8] = [
    "channels",
    "contentTypes",
    "addresses",
    "tags",
    "msgTypes",
    "startDate",
    "chains",
    "refs",
];
/// Different ways to combine them.
pub const COMBINATIONS: u64 = 1 << FILTERS.len();

/// The filters whose bit is set in `combination`, with values that occur, others for each `number`.
fn filters(combination: u64, number: u64, messages: u64, addresses: &[String]) -> String {
    let random = scatter(number ^ 0x00c0_ffee);
    let pick = |shift: u32, of: u64| (random >> shift) % of;
    let mut query = String::new();
    let mut add = |bit: u32, text: String| {
        if combination >> bit & 1 == 1 {
            query.push('&');
            query.push_str(&text);
        }
    };
    add(0, format!("channels=channel-{}", pick(4, CHANNELS)));
    // Lists of posts have another name for it; each takes no notice of the other's.
    let kind = pick(12, TYPES);
    add(1, format!("contentTypes=type-{kind}&types=type-{kind}"));
    add(
        2,
        format!("addresses={}", addresses[pick(20, SENDERS as u64) as usize]),
    );
    add(3, format!("tags=tag-{}", pick(28, TAGS)));
    add(4, "msgTypes=POST,AGGREGATE".to_owned());
    add(
        5,
        format!("startDate={}", START + pick(34, messages) as f64),
    );
    add(6, "chains=ETH".to_owned());
    add(7, format!("refs=ref-{}", pick(16, 100_000)));
    query
}

fn ask(client: &mut Client, path: &str) -> anyhow::Result<(f64, Value)> {
    let begin = Instant::now();
    let answer = client.get(path).context("list messages")?;
    let seconds = begin.elapsed().as_secs_f64();
    ensure!(answer.status == 200, "{path} answered {}", answer.status);
    Ok((seconds, serde_json::from_slice(&answer.body)?))
}

/// How the lists of one combination of filters answered.
#[derive(Debug)]
pub struct Combination {
    /// The filters, for people.
    pub name: String,
    /// Each query.
    pub latencies: Latencies,
    /// CPU time of the node a query, milliseconds.
    pub cpu_ms: f64,
}

/// `queries` different queries for the first page of every combination of filters, all of `route`.
pub fn pages(
    node: &Node,
    route: &str,
    messages: u64,
    queries: u64,
) -> anyhow::Result<Vec<Combination>> {
    let addresses: Vec<String> = senders()?.iter().map(|key| key.address()).collect();
    let mut client = Client::connect(node.address)?;
    let mut all = Vec::new();
    for combination in 0..COMBINATIONS {
        let chosen = FILTERS.iter().enumerate();
        let chosen = chosen.filter(|(bit, _)| combination >> bit & 1 == 1);
        let names: Vec<&str> = chosen.map(|(_, name)| *name).collect();
        let before = node.cpu()?;
        let mut latencies = Latencies::default();
        for number in 0..queries {
            let filters = filters(
                combination,
                combination * queries + number,
                messages,
                &addresses,
            );
            let path = format!("{route}?pagination=20{filters}");
            latencies.0.push(ask(&mut client, &path)?.0);
        }
        all.push(Combination {
            name: names.join("+"),
            latencies,
            cpu_ms: (node.cpu()? - before) / queries as f64 * 1e3,
        });
    }
    Ok(all)
}

/// All of a list through the cursor, 20 a page, down to page `depth`; the times of the last `kept` pages.
pub fn cursor(
    address: SocketAddr,
    route: &str,
    depth: u64,
    kept: u64,
) -> anyhow::Result<Latencies> {
    let mut client = Client::connect(address)?;
    let mut latencies = Latencies::default();
    let mut cursor = String::new();
    for page in 0..depth {
        let path = format!("{route}?pagination=20&cursor={cursor}");
        let (seconds, body) = ask(&mut client, &path)?;
        if page + kept >= depth {
            latencies.0.push(seconds);
        }
        match body["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    ensure!(
        !latencies.0.is_empty(),
        "there are fewer than {depth} pages"
    );
    Ok(latencies)
}
