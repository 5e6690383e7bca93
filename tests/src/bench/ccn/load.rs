//! Signed messages as many clients send them, over a number of connections at once.

use std::io::Write;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use aleph_message::{Envelope, Keypair, MessageType};
use anyhow::{Context, ensure};
use serde_json::json;

use super::client::Client;

/// Different senders.
pub const SENDERS: usize = 200;
/// Different channels.
pub const CHANNELS: u64 = 40;
/// Different types of post.
pub const TYPES: u64 = 25;
/// Different tags.
pub const TAGS: u64 = 500;
/// Time of the first message, Unix seconds.
pub const START: f64 = 1_700_000_000.0;

/// Messages signed ahead of time, so that the clients' work does not stand in the way of the node's.
const ROUND: u64 = 20_000;

/// Keys that are the same in every run.
pub fn senders() -> anyhow::Result<Vec<Keypair>> {
    (1..=SENDERS)
        .map(|number| Ok(Keypair::from_hex(&format!("{number:064x}"))?))
        .collect()
}

/// Something that looks random and is the same in every run.
pub fn scatter(number: u64) -> u64 {
    // The finaliser of splitmix64.
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Message `number`.
pub fn message(number: u64, senders: &[Keypair]) -> anyhow::Result<Envelope> {
    let random = scatter(number);
    let key = &senders[(random % senders.len() as u64) as usize];
    let content = json!({
        "type": format!("type-{}", (random >> 8) % TYPES),
        "ref": format!("ref-{}", (random >> 16) % 100_000),
        "content": {
            "tags": [format!("tag-{}", (random >> 24) % TAGS)],
            "number": number,
            "text": "what is said in an ordinary message is about as long as this sentence, or twice as long",
        },
    });
    let channel = format!("channel-{}", (random >> 32) % CHANNELS);
    let time = START + number as f64;
    Envelope::sign(key, MessageType::Post, Some(&channel), time, content)
        .map_err(|rejection| anyhow::anyhow!(rejection.reason()))
}

/// Publishes messages `range` over `connections` connections, each waiting for its answer before it sends the next;
/// every one must be taken. Seconds from the first request to the last answer.
pub fn publish(
    address: SocketAddr,
    range: Range<u64>,
    connections: usize,
    senders: &[Keypair],
    mut progress: impl FnMut(u64),
) -> anyhow::Result<f64> {
    let body = |number| -> anyhow::Result<String> {
        Ok(json!({"sync": true, "message": message(number, senders)?}).to_string())
    };
    let mut seconds = 0.0;
    let mut next = range.start;
    while next < range.end {
        let end = range.end.min(next + ROUND);
        let bodies = in_two(next..end, &body)?;
        let begin = Instant::now();
        let turn = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..connections)
                .map(|_| scope.spawn(|| send(address, &bodies, &turn)))
                .collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().expect("a client panicked"))
        })?;
        seconds += begin.elapsed().as_secs_f64();
        next = end;
        progress(next);
    }
    Ok(seconds)
}

/// Makes what `make` makes of each number, on two cores, in order.
fn in_two(
    range: Range<u64>,
    make: &(impl Fn(u64) -> anyhow::Result<String> + Sync),
) -> anyhow::Result<Vec<String>> {
    let half = range.start + (range.end - range.start) / 2;
    let all = |range: Range<u64>| range.map(make).collect::<anyhow::Result<Vec<String>>>();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| all(half..range.end));
        let mut made = all(range.start..half)?;
        made.extend(second.join().expect("a signer panicked")?);
        Ok(made)
    })
}

/// Writes messages `range`, a line each, as a node lists them.
pub fn write(
    range: Range<u64>,
    senders: &[Keypair],
    mut output: impl Write,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<()> {
    let line = |number| -> anyhow::Result<String> {
        Ok(serde_json::to_string(&message(number, senders)?)? + "\n")
    };
    let mut next = range.start;
    while next < range.end {
        let end = range.end.min(next + ROUND);
        for line in in_two(next..end, &line)? {
            output.write_all(line.as_bytes())?;
        }
        next = end;
        progress(next);
    }
    Ok(output.flush()?)
}

fn send(address: SocketAddr, bodies: &[String], turn: &AtomicU64) -> anyhow::Result<()> {
    let mut client = Client::connect(address)?;
    loop {
        let index = turn.fetch_add(1, Ordering::Relaxed) as usize;
        let Some(body) = bodies.get(index) else {
            return Ok(());
        };
        let answer = client
            .post("/api/v0/messages", body)
            .context("publish a message")?;
        ensure!(
            answer.status == 200,
            "answered {}: {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
    }
}
