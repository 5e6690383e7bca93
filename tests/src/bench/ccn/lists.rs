//! List queries as clients ask them: combinations of filters, a page of 20, and the same through a cursor far down.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::client::Client;
use super::load::{CHANNELS, SENDERS, START, TAGS, TYPES, scatter, senders};

/// Seconds each query took.
#[derive(Debug, Default)]
pub struct Latencies(Vec<f64>);

impl Latencies {
    /// The value that all but a hundredth stay below, milliseconds.
    pub fn p99_ms(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
        sorted.get(rank).copied().unwrap_or(0.0) * 1e3
    }
}

/// The filters of query `number`: some subset of all that can be combined, with values that occur.
fn filters(number: u64, messages: u64, addresses: &[String]) -> String {
    let random = scatter(number ^ 0x00c0_ffee);
    let pick = |shift: u32, of: u64| (random >> shift) % of;
    let mut query = String::new();
    let mut add = |bit: u32, text: String| {
        if random >> (56 + bit) & 1 == 1 {
            query.push('&');
            query.push_str(&text);
        }
    };
    add(0, format!("channels=channel-{}", pick(4, CHANNELS)));
    add(1, format!("contentTypes=type-{}", pick(12, TYPES)));
    add(
        2,
        format!("addresses={}", addresses[pick(20, SENDERS as u64) as usize]),
    );
    add(3, format!("tags=tag-{}", pick(28, TAGS)));
    add(4, "msgTypes=POST,AGGREGATE".to_owned());
    add(5, format!("startDate={}", START + pick(8, messages) as f64));
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

/// `queries` different queries for the first page.
pub fn pages(address: SocketAddr, messages: u64, queries: u64) -> anyhow::Result<Latencies> {
    let addresses: Vec<String> = senders()?.iter().map(|key| key.address()).collect();
    let mut client = Client::connect(address)?;
    let mut latencies = Latencies::default();
    for number in 0..queries {
        let filters = filters(number, messages, &addresses);
        let path = format!("/api/v0/messages.json?pagination=20{filters}");
        latencies.0.push(ask(&mut client, &path)?.0);
    }
    Ok(latencies)
}

/// All messages through the cursor, 20 a page, down to page `depth`; the times of the last `kept` pages.
pub fn cursor(address: SocketAddr, depth: u64, kept: u64) -> anyhow::Result<Latencies> {
    let mut client = Client::connect(address)?;
    let mut latencies = Latencies::default();
    let mut cursor = String::new();
    for page in 0..depth {
        let path = format!("/api/v0/messages.json?pagination=20&cursor={cursor}");
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
