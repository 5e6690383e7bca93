//! Of the core channel node and the scheduler: what operators publish, and what is refused.

use std::time::{Duration, Instant};

use aleph_message::{Keypair, allocation};
use anyhow::{Context, Result, ensure};
use crn_tests::testbed::client::Client;
use crn_tests::testbed::http::{self, get_json};
use crn_tests::testbed::products::root;
use crn_tests::testbed::settings::NODE_HASH;
use serde_json::json;

use crate::World;

pub fn publish(world: &mut World) -> Result<()> {
    world.runtime = world.network.publish_runtime()?;
    world.image = world.network.publish_debian()?;
    for store in [&world.runtime, &world.image] {
        let message = get_json(&format!("{}/api/v0/messages/{store}", world.ccn()))?;
        ensure!(message["status"] == "processed", "{message}");
    }
    Ok(())
}

pub fn registry(world: &mut World) -> Result<()> {
    let started = Instant::now();
    loop {
        let list = get_json(&format!("{}/crns.json?filter_inactive=false", world.ccn()))?;
        let row = &list["crns"][0];
        if row["hash"] == NODE_HASH && row["system_usage"]["cpu"]["count"].is_u64() {
            return Ok(());
        }
        ensure!(started.elapsed() < Duration::from_secs(120), "{list}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

pub fn bad_allocations(world: &mut World) -> Result<()> {
    let stranger = Keypair::generate();
    let body = br#"{"persistent_vms":[],"instances":["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]}"#;
    let path = "/control/allocations";
    let now = i64::try_from(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .context("the clock")?
            .as_secs(),
    )?;
    let push = |header: Option<String>| {
        let headers: Vec<(&str, &str)> = header
            .iter()
            .map(|h| ("authorization", h.as_str()))
            .chain([("content-type", "application/json")])
            .collect();
        http::request(
            "POST",
            &format!("{}{path}", world.crn()),
            &headers,
            body,
            Duration::from_secs(60),
        )
    };
    let foreign = allocation::authorization(&stranger, "POST", path, body, now)?;
    let stale = allocation::authorization(&stranger, "POST", path, body, now - 3600)?;
    for header in [
        None,
        Some(foreign),
        Some(stale),
        Some("Aleph-EIP191-V1 sig=00,payload=00".to_owned()),
    ] {
        let answer = push(header.clone())?;
        ensure!(
            answer.status == 401,
            "{header:?}: {} {}",
            answer.status,
            answer.text()
        );
    }
    let list = get_json(&format!("{}/v2/about/executions/list", world.crn()))?;
    ensure!(
        list.as_object().is_some_and(serde_json::Map::is_empty),
        "{list}"
    );
    Ok(())
}

pub fn wrong_signature(world: &mut World) -> Result<()> {
    let content =
        json!({"address": "0x0000000000000000000000000000000000000001", "time": 1_700_000_000.0,
        "type": "test", "content": {"n": 1}})
        .to_string();
    let hash = sha256_hex(content.as_bytes());
    let message = json!({"sync": true, "message": {"chain": "ETH", "sender": "0x0000000000000000000000000000000000000001",
        "type": "POST", "channel": "TEST", "time": 1_700_000_000.0, "item_type": "inline", "item_hash": hash,
        "item_content": content, "signature": format!("0x{}1b", "11".repeat(64))}});
    let answer = http::request(
        "POST",
        &format!("{}/api/v0/messages", world.ccn()),
        &[("content-type", "application/json")],
        message.to_string().as_bytes(),
        Duration::from_secs(60),
    )?;
    ensure!(answer.status == 422, "{} {}", answer.status, answer.text());
    let stored = get_json(&format!("{}/api/v0/messages/{hash}", world.ccn()))?;
    ensure!(
        stored["status"] == "rejected" && stored["error_code"] == 1,
        "{stored}"
    );
    Ok(())
}

pub fn unaffordable(world: &mut World) -> Result<()> {
    let poor = Keypair::generate();
    let home = root().join("target/e2e/poor");
    let client = Client::new(
        &home,
        world.network.ports,
        format!("0x{}", poor.to_secret_hex()),
    )?;
    let key = world.network.ssh.public_key();
    let output = client.output(&[
        "instance",
        "create",
        "--payment-type",
        "credit",
        "--payment-chain",
        "ETH",
        "--name",
        "poor",
        "--rootfs",
        &world.image,
        "--compute-units",
        "1",
        "--rootfs-size",
        "20480",
        "--skip-volume",
        "--ssh-pubkey-file",
        key.to_str().context("a path")?,
        "--crn-hash",
        NODE_HASH,
        "--crn-auto-tac",
    ])?;
    ensure!(
        !output.status.success(),
        "an account without credits got an instance"
    );
    let list = get_json(&format!(
        "{}/api/v0/messages.json?addresses={}",
        world.ccn(),
        poor.address()
    ))?;
    ensure!(
        list["messages"].as_array().is_some_and(Vec::is_empty),
        "{list}"
    );
    Ok(())
}

fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(bytes))
}
