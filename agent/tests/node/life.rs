//! Crashes, restarts, and changes while a machine runs.

use std::time::Duration;

use aleph_message::{ItemHash, Keypair, MessageType};
use crn_agent::ledger::{Desired, Source, State};
use crn_protocol::control::ExitReason;
use http::StatusCode;
use serde_json::json;

use crate::fixtures::{failed, instance, instance_content, program_content};
use crate::support::{Node, squashfs};

#[tokio::test]
async fn a_crashed_instance_starts_again_a_reset_one_too_and_one_that_powers_off_stays_off() {
    let node = Node::start().await;
    let hash = instance(&node, &Keypair::generate());
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    node.bench.end(&hash, ExitReason::Failed).await;
    node.until(&hash, "failed", failed).await;
    node.until_running(&hash).await;
    assert_eq!(node.bench.started(), 2);
    node.bench.end(&hash, ExitReason::Reset).await;
    node.until(&hash, "started again", |_| node.bench.started() == 3)
        .await;
    node.until_running(&hash).await;
    node.bench.end(&hash, ExitReason::PowerOff).await;
    let record = node
        .until(&hash, "stopped", |state| *state == State::Stopped)
        .await;
    assert_eq!((record.desired, record.held), (Desired::Stopped, true));
    node.push(&[&hash]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(node.bench.started(), 3);
}

#[tokio::test]
async fn a_port_wish_opens_a_port_while_the_machine_runs() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let hash = instance(&node, &owner);
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    let wishes = json!({hash.as_str(): {"ports": {"80": {"tcp": true, "udp": false}}}});
    node.ccn
        .set_aggregate(&owner.address(), "port-forwarding", wishes.clone());
    node.ccn.publish(
        &owner,
        MessageType::Aggregate,
        json!({"key": "port-forwarding", "content": wishes}),
    );
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while node
        .bench
        .networks
        .lock()
        .unwrap()
        .first()
        .is_none_or(|network| network.ports.len() < 2)
    {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.ccn
        .set_aggregate(&owner.address(), "port-forwarding", json!({}));
    assert_eq!(
        node.post_json(&format!("/control/{hash}/update"), json!({}))
            .await,
        (StatusCode::OK, json!({}))
    );
    assert_eq!(node.bench.networks.lock().unwrap()[0].ports.len(), 1);
}

/// R18: `published_ports` was not looked at. S6: an unsigned call made the node read an aggregate as often as it was sent.
#[tokio::test]
async fn published_ports_are_open_whatever_the_aggregate_says_and_many_updates_read_it_once() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let image = node.ccn.store(&owner, b"a raw disk");
    let mut content = instance_content(&image, "hold");
    content["resources"]["published_ports"] = json!([
        {"protocol": "tcp", "port": 443}, {"protocol": "udp", "port": 443}, {"protocol": "udp", "port": 53},
    ]);
    let hash = node.ccn.publish(&owner, MessageType::Instance, content);
    let wishes = json!({hash.as_str(): {"ports": {"80": {"tcp": true, "udp": false}}}});
    node.ccn
        .set_aggregate(&owner.address(), "port-forwarding", wishes);
    node.push(&[&hash]).await;
    let record = node.until_running(&hash).await;
    let ports: Vec<_> = record
        .ports
        .iter()
        .map(|p| (p.guest_port, p.tcp, p.udp))
        .collect();
    assert_eq!(
        ports,
        [
            (22, true, false),
            (53, false, true),
            (80, true, false),
            (443, true, true)
        ]
    );
    let before = node.ccn.aggregates_read();
    let path = format!("/control/machine/{hash}/update");
    let updates = (0..20).map(|_| node.post_json(&path, json!({})));
    for answer in futures_util::future::join_all(updates).await {
        assert_eq!(answer, (StatusCode::OK, json!({})));
    }
    // A busy host may let some of them come a second later than others.
    let read = node.ccn.aggregates_read() - before;
    assert!((1..=10).contains(&read), "{read}");
}

#[tokio::test]
async fn a_restarted_agent_starts_what_should_run_and_takes_away_what_nobody_knows() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let (running, stopped) = (
        instance(&node, &owner),
        instance(&node, &Keypair::generate()),
    );
    node.push(&[&running, &stopped]).await;
    node.until_running(&running).await;
    node.until_running(&stopped).await;
    node.reconciler.stop(&stopped, true).await.unwrap();
    node.until(&stopped, "stopped", |state| *state == State::Stopped)
        .await;
    let stray = ItemHash::of(b"stray");
    std::fs::create_dir_all(node.bench.disks(&stray)).unwrap();
    let node = node.restarted().await;
    node.until(&running, "started", |_| node.bench.started() == 1)
        .await;
    node.until_running(&running).await;
    assert_eq!(node.record(&stopped).await.state, State::Stopped);
    assert!(!node.bench.disks(&stray).exists());
}

/// R3: a machine that crashes is started again, with pauses and not for ever; its owner may begin anew.
#[tokio::test]
async fn a_machine_that_keeps_crashing_is_given_up_with_the_reason_until_it_is_started_again() {
    let node = Node::start_with(|config| config.limits.crashes = 2).await;
    let hash = instance(&node, &Keypair::generate());
    node.push(&[&hash]).await;
    for _ in 0..2 {
        node.until_running(&hash).await;
        node.bench.end(&hash, ExitReason::Failed).await;
        node.until(&hash, "failed", failed).await;
    }
    let record = node
        .until(
            &hash,
            "given up",
            |state| matches!(state, State::Failed(failure) if failure.retry_at.is_none()),
        )
        .await;
    let State::Failed(failure) = record.state else {
        unreachable!()
    };
    assert!(
        failure.reason.contains("the last of 2 failures in a row"),
        "{}",
        failure.reason
    );
    node.reconciler
        .run(&hash, Source::Scheduler, true)
        .await
        .unwrap();
    node.until_running(&hash).await;
    assert_eq!(node.bench.started(), 3);
}

/// Row "Update watch": a newer file restarts exactly the machines that mean the newest one.
#[tokio::test]
async fn a_newer_file_restarts_those_that_use_the_latest_and_no_others() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let (code, runtime) = (
        node.ccn.store(&owner, b"code"),
        node.ccn.store(&owner, &squashfs("runtime")),
    );
    let publish = |latest: bool| {
        let mut content = program_content(&code, &runtime);
        content["code"]["use_latest"] = latest.into();
        node.ccn.publish(&owner, MessageType::Program, content)
    };
    let (follows, stays) = (publish(true), publish(false));
    for hash in [&follows, &stays] {
        assert_eq!(node.get(&format!("/vm/{hash}")).await.0.as_u16(), 200);
    }
    let before = node.record(&stays).await.times.started;
    // By a stranger: nothing happens, which the owner's next one shows.
    node.ccn
        .store_as(&Keypair::generate(), b"evil code", Some(&code));
    node.ccn.store_as(&owner, b"newer code", Some(&code));
    node.until(&follows, "started anew", |_| node.bench.started() == 3)
        .await;
    node.until_running(&follows).await;
    let uses = |bytes: &[u8]| {
        let link = node.bench.disks(&follows).join("files");
        link.join(ItemHash::of(bytes).as_str()).exists()
    };
    assert!(uses(b"newer code") && !uses(b"code") && !uses(b"evil code"));
    assert_eq!(node.record(&stays).await.times.started, before);
}

/// R12: a reload of the operator's own rules took the node's away.
#[tokio::test]
async fn rules_that_somebody_else_changed_are_put_back() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let hash = instance(&node, &owner);
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    for _ in 0..2 {
        let rules = std::mem::take(&mut *node.bench.networks.lock().unwrap());
        assert_eq!(rules.len(), 1);
        node.bench.disturbed.notify_one();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while *node.bench.networks.lock().unwrap() != rules {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
