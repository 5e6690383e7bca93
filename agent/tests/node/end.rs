//! Standing still, and ending: a machine's pause, the agent's own end, what is kept of files afterwards.

use aleph_message::{ItemHash, Keypair};
use axum::body::Body;
use crn_agent::ledger::{Desired, State};
use crn_protocol::control::ExitReason;
use futures_util::FutureExt as _;
use http::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::fixtures::{instance, program};
use crate::support::Node;
use crate::support::wallet::{Solana, solana_address, solana_headers};

#[tokio::test]
async fn an_owner_pauses_a_machine_and_it_stays_so_through_pushes_until_resumed_or_stopped() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let hash = instance(&node, &owner);
    node.push(&[&hash]).await;
    let started = node.until_running(&hash).await.times.started;
    let path = |verb| format!("/control/machine/{hash}/{verb}");
    let is_paused = || node.bench.paused.lock().unwrap().contains(&hash);
    let ok = |text: &str| (StatusCode::OK, format!("{text} VM with ref {hash}"));
    let early = node.call(&owner, "POST", &path("resume")).await;
    assert_eq!(early.0, StatusCode::CONFLICT);
    assert_eq!(
        node.call(&owner, "POST", &path("pause")).await,
        ok("Paused")
    );
    assert!(is_paused());
    node.push(&[&hash]).await;
    let record = node.record(&hash).await;
    assert_eq!(
        (record.state, record.desired),
        (State::Paused, Desired::Paused)
    );
    assert_eq!(
        record.lease.unwrap().memory_mib,
        64,
        "its memory is its own"
    );
    assert_eq!(node.bench.networks.lock().unwrap().len(), 1);
    assert_eq!(
        node.call(&owner, "POST", &path("resume")).await,
        ok("Resumed")
    );
    let record = node.until_running(&hash).await;
    assert!(!is_paused());
    assert_eq!(record.times.started, started, "it was not started anew");

    node.call(&owner, "POST", &path("pause")).await;
    // Woken first: the bench does not take a request to shut down from one that sleeps.
    assert_eq!(
        node.call(&owner, "POST", &path("stop")).await,
        ok("Stopped")
    );
    let (status, text) = node.call(&owner, "POST", &path("pause")).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(text.contains("is stopped: only a running one"), "{text}");
    assert_eq!(node.bench.started(), 1);
}

#[tokio::test]
async fn a_paused_machine_whose_memory_is_lost_is_a_stopped_one() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let hash = instance(&node, &owner);
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    let pause = format!("/control/machine/{hash}/pause");
    node.call(&owner, "POST", &pause).await;
    node.bench.end(&hash, ExitReason::Failed).await;
    let stopped = |state: &State| *state == State::Stopped;
    let record = node.until(&hash, "stopped", stopped).await;
    assert_eq!((record.desired, record.held), (Desired::Stopped, true));
    node.call(&owner, "POST", &format!("/control/machine/{hash}/start"))
        .await;
    node.until_running(&hash).await;
    // The bench's machines do not outlive their agent: to the next one it is as after a power cut.
    node.call(&owner, "POST", &pause).await;
    let node = node.restarted().await;
    let record = node.until(&hash, "stopped", stopped).await;
    assert_eq!((record.desired, record.held), (Desired::Stopped, true));
    assert_eq!(node.bench.started(), 0);
}

/// Spec crn-api §1.0: an agent that ends finishes answers, takes no more requests for programs, and leaves machines be.
#[tokio::test]
async fn an_agent_that_ends_finishes_answers_and_takes_no_new_ones() {
    let node = Node::start().await;
    let hash = program(&node, &Keypair::generate());
    let path = format!("/vm/{hash}/slow");
    let request = Request::get(&path).body(Body::empty()).unwrap();
    let mut slow = Box::pin(node.send(request));
    let running = node.until_running(&hash);
    tokio::select! {
        answer = &mut slow => panic!("too early: {answer:?}"),
        _ = running => {}
    }
    let mut ended = Box::pin(node.drain.finish());
    assert!(ended.as_mut().now_or_never().is_none());
    let (status, error) = node.get(&format!("/vm/{hash}/")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(error["error"], "Server is draining, try another node");
    assert_eq!(node.get("/about/executions/list").await.0, StatusCode::OK);
    assert!(ended.as_mut().now_or_never().is_none(), "one is under way");
    // The guest answers after its time: that is an answer, too.
    assert_eq!(slow.await.status(), StatusCode::GATEWAY_TIMEOUT);
    ended.await;
    assert!(node.bench.runs(&hash));
}

/// R20: files stay for the next machine, for a while, and it is shown which go when, and why.
#[tokio::test]
async fn files_stay_for_the_next_machine_until_age_or_quota_and_the_dry_run_says_which() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let hash = instance(&node, &owner);
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    let name = ItemHash::of(b"a raw disk");
    let file = node.dir.path().join("state/cache").join(name.as_str());
    let files = async |node: &Node, method: &str| -> Vec<Value> {
        let (_, text) = node.operate(method, "/control/gc").await;
        let shown: Value = serde_json::from_str(&text).unwrap();
        shown["files"].as_array().unwrap().clone()
    };
    assert!(files(&node, "GET").await.is_empty(), "it is in use");
    node.call(&owner, "POST", &format!("/control/machine/{hash}/erase"))
        .await;
    let shown = files(&node, "POST").await;
    assert_eq!(shown[0]["file"], name.as_str());
    assert_eq!(
        (&shown[0]["erase"], &shown[0]["bytes"]),
        (&false.into(), &10.into())
    );
    assert!(
        shown[0]["reason"]
            .as_str()
            .unwrap()
            .contains("retention.cache_hours")
    );
    assert!(file.exists());

    let node = node
        .restarted_with(|config| config.retention.cache_mib = 0)
        .await;
    assert!(!file.exists(), "over its quota");
    assert!(files(&node, "GET").await.is_empty());
}

/// The wallets of both chains, in both ways in which published clients on Solana sign.
#[tokio::test]
async fn a_wallet_on_solana_operates_what_its_owner_delegates() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let hash = instance(&node, &owner);
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    let key = |byte| ed25519_dalek::SigningKey::from_bytes(&[byte; 32]);
    let (wallet, other) = (key(9), key(10));
    let entry = serde_json::json!({"authorizations": [{"address": solana_address(&wallet)}]});
    node.ccn.set_aggregate(&owner.address(), "security", entry);
    let path = format!("/control/machine/{hash}/reboot");
    for (starts, spelling) in [(2, Solana::Hex), (3, Solana::Plain)] {
        let headers = solana_headers(&wallet, spelling, "POST", &path);
        let answer = node
            .call_signed(headers, "POST", &path, String::new())
            .await;
        assert_eq!(
            answer,
            (StatusCode::OK, format!("Rebooted VM with ref {hash}"))
        );
        node.until(&hash, "rebooted", |_| node.bench.started() == starts)
            .await;
        node.until_running(&hash).await;
    }
    let headers = solana_headers(&other, Solana::Hex, "POST", &path);
    let stranger = node
        .call_signed(headers, "POST", &path, String::new())
        .await;
    assert_eq!(stranger.0, StatusCode::FORBIDDEN);
    let mut forged = solana_headers(&wallet, Solana::Hex, "POST", &path);
    forged.0["signature"] = "00".repeat(64).into();
    let forged = node.call_signed(forged, "POST", &path, String::new()).await;
    assert_eq!(forged.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn who_looks_on_takes_a_place_and_gives_it_back() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let hash = instance(&node, &owner);
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    let path = format!("/control/machine/{hash}/logs?follow=true");
    // Whoever has not said who it is takes no place.
    let url = format!("ws://{}/control/machine/{hash}/console", node.address);
    let (_silent, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let mut viewers = Vec::new();
    for _ in 0..16 {
        let (status, stream) = node.open(&owner, &path).await;
        assert_eq!(status, StatusCode::OK);
        viewers.push(stream);
    }
    let (status, refusal) = node.call(&owner, "GET", &path).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        refusal.contains("too many viewers of this machine"),
        "{refusal}"
    );
    let events = format!("/control/machine/{hash}/events");
    let refused = node.call(&owner, "GET", &events).await.0;
    assert_eq!(refused, StatusCode::SERVICE_UNAVAILABLE);
    let console = format!("/control/machine/{hash}/console");
    let refused = node.connect(&owner, &console).await.json().await;
    assert_eq!(refused["reason"], "too many viewers of this machine");
    let events = Request::get(format!("http://{}/control/events", node.address))
        .header("Authorization", format!("Bearer {}", node.token()))
        .body(Body::empty())
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let others = client.request(events).await.unwrap();
    assert_eq!(others.status(), StatusCode::OK, "of all machines");
    viewers.clear();
    // The agent hears of it when it next has something to say.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while node.open(&owner, &path).await.0 != StatusCode::OK {
        assert!(tokio::time::Instant::now() < deadline);
        node.bench.print(&hash, "more\n");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_node_without_confidential_computing_says_so_where_its_certificates_are_asked_for() {
    let node = Node::start().await;
    let (status, error) = node.get("/about/certificates").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let text = "Confidential computing setting not enabled on that server";
    assert_eq!(error["error"], text);
}
