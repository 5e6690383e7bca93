//! What brings machines here: pushes, notifications, and whether there is room.

use std::time::Duration;

use aleph_message::{Keypair, MessageType};
use crn_agent::ledger::State;
use http::StatusCode;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::fixtures::{failed, instance, instance_content, reason};
use crate::support::Node;

#[tokio::test]
async fn a_pushed_instance_runs_is_listed_and_repeated_pushes_are_free() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let hash = instance(&node, &owner);
    let (status, answer) = node.push(&[&hash]).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let expected =
        json!({"success": true, "successful": [hash], "failing": [], "stopped": [], "errors": {}});
    assert_eq!(answer, expected);
    let record = node.until_running(&hash).await;
    assert_eq!(
        (record.lease.unwrap().memory_mib, record.ports[0].host_port),
        (64, 24000)
    );
    tokio::time::sleep(Duration::from_millis(1100)).await;
    node.push(&[&hash]).await;
    assert_eq!(node.bench.started(), 1);
    assert_eq!(node.bench.networks.lock().unwrap().len(), 1);

    let (_, list) = node.get("/v2/about/executions/list").await;
    let entry = &list[hash.as_str()];
    assert_eq!(entry["running"], true);
    assert_eq!(entry["vm_type"], "instance");
    assert_eq!(
        entry["networking"]["mapped_ports"],
        json!({"22": {"host": 24000, "tcp": true, "udp": false}})
    );
    assert_eq!(entry["networking"]["ipv4_network"], "172.16.4.0/24");
    assert_eq!(entry["networking"]["ipv4_ip"], "172.16.4.2");
    assert_eq!(entry["networking"]["host_ipv4"], "127.0.0.1");
    assert!(
        entry["networking"]["ipv6_network"]
            .as_str()
            .unwrap()
            .ends_with("0/124")
    );
    assert!(
        entry["status"]["started_at"]
            .as_str()
            .unwrap()
            .ends_with("+00:00")
    );
    assert!(entry["status"]["stopped_at"].is_null());
    let (_, list) = node.get("/about/executions/list").await;
    assert_eq!(list[hash.as_str()]["awaiting_confidential_init"], false);

    let (_, answer) = node
        .push_signed(
            &node.scheduler,
            "{}",
            "{}",
            OffsetDateTime::now_utc().unix_timestamp(),
        )
        .await;
    assert_eq!(answer["stopped"], json!([hash]));
    node.until(&hash, "stopped", |state| *state == State::Stopped)
        .await;
    assert!(!node.bench.runs(&hash));
    // The rules follow the ledger.
    node.until(&hash, "without rules", |_| {
        node.bench.networks.lock().unwrap().is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_push_that_is_not_the_schedulers_starts_nothing() {
    let node = Node::start().await;
    let hash = instance(&node, &Keypair::generate());
    let body = json!({ "instances": [hash] }).to_string();
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let refused = (
        StatusCode::UNAUTHORIZED,
        json!({"error": "Authentication token received is invalid"}),
    );
    assert_eq!(
        node.push_signed(&Keypair::generate(), &body, &body, now)
            .await,
        refused
    );
    assert_eq!(
        node.push_signed(&node.scheduler, "{}", &body, now).await,
        refused
    );
    assert_eq!(
        node.push_signed(&node.scheduler, &body, &body, now - 400)
            .await,
        refused
    );
    assert_eq!(
        node.post_json("/control/allocations", json!({ "instances": [hash] }))
            .await,
        refused
    );
    assert!(node.ledger.all().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_notified_instance_needs_credits_and_outlives_pushes() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let image = node.ccn.store(&owner, b"a raw disk");
    let hash = node.ccn.publish(
        &owner,
        MessageType::Instance,
        instance_content(&image, "credit"),
    );
    let notify = json!({ "instance": hash });
    node.ccn.set_credits(&owner.address(), 3599);
    let (status, answer) = node
        .post_json("/control/allocation/notify", notify.clone())
        .await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED, "{answer}");
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .starts_with("Insufficient credits for this instance")
    );
    node.ccn.set_credits(&owner.address(), 3600);
    let (status, answer) = node.post_json("/control/allocation/notify", notify).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(
        answer,
        json!({"success": true, "successful": true, "failing": [], "errors": {}})
    );
    node.until_running(&hash).await;
    let (_, answer) = node.push(&[]).await;
    assert_eq!(answer["stopped"], json!([]));
    assert!(node.bench.runs(&hash));

    let held = instance(&node, &owner);
    let (status, answer) = node
        .post_json("/control/allocation/notify", json!({ "instance": held }))
        .await;
    assert_eq!(
        (status, answer),
        (
            StatusCode::BAD_REQUEST,
            json!({"error": "400: Invalid payment method"})
        )
    );
}

#[tokio::test]
async fn a_machine_that_does_not_fit_is_refused_with_the_numbers() {
    let node = Node::start_with(|config| config.limits.host_memory_mib = u64::MAX).await;
    let hash = instance(&node, &Keypair::generate());
    node.push(&[&hash]).await;
    let record = node.until(&hash, "failed", failed).await;
    assert_eq!(
        reason(record.state),
        "this node has no room: 64 MiB of memory wanted, 0 free"
    );
}

/// R7: what was carried out is not carried out again, restarts or not.
#[tokio::test]
async fn a_push_is_not_carried_out_twice_by_the_next_agent_either() {
    let node = Node::start().await;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let push = async |node: &Node| {
        let pushed = node.push_signed(&node.scheduler, "{}", "{}", now).await;
        pushed.0
    };
    assert_eq!(push(&node).await, StatusCode::OK);
    assert_eq!(push(&node).await, StatusCode::UNAUTHORIZED);
    let node = node.restarted().await;
    assert_eq!(push(&node).await, StatusCode::UNAUTHORIZED);
}

/// §1.4: where the operator says so, the network names its schedulers.
#[tokio::test]
async fn schedulers_that_the_networks_settings_name_may_push_where_the_operator_says_so() {
    let address = Keypair::generate().address();
    let configured = address.clone();
    let node = Node::start_with(|config| config.trust.settings = Some(configured)).await;
    let (named, stranger) = (Keypair::generate(), Keypair::generate());
    let signers = json!({"authorized_allocation_signers": [7, named.address()]});
    node.ccn.set_aggregate(&address, "settings", signers);
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let push = async |node: &Node, key: &Keypair| {
        let pushed = node.push_signed(key, "{}", "{}", now).await;
        pushed.0
    };
    let before = node.ccn.aggregates_read();
    assert_eq!(push(&node, &stranger).await, StatusCode::UNAUTHORIZED);
    assert_eq!(push(&node, &named).await, StatusCode::OK);
    assert_eq!(push(&node, &node.scheduler).await, StatusCode::OK);
    assert_eq!(node.ccn.aggregates_read() - before, 1);
    let node = node.restarted().await;
    let other = node.push_signed(&named, "{}", "{}", now + 1).await;
    assert_eq!(other.0, StatusCode::UNAUTHORIZED, "nobody says so here");
}

/// P10: the answer waits for one transaction, not for machines.
#[tokio::test]
async fn fifty_machines_pushed_at_once_are_written_down_in_one_answer_and_all_run() {
    let node = Node::start_with(|config| config.limits.vcpu_overcommit = 1000).await;
    let owner = Keypair::generate();
    let image = node.ccn.store(&owner, b"a raw disk");
    let hashes: Vec<_> = (0..50)
        .map(|number| {
            let mut content = instance_content(&image, "hold");
            content["metadata"] = json!({ "name": format!("vm {number}") });
            node.ccn.publish(&owner, MessageType::Instance, content)
        })
        .collect();
    let all: Vec<_> = hashes.iter().collect();
    let (status, answer) = node.push(&all).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["successful"].as_array().unwrap().len(), 50);
    for hash in &hashes {
        node.until_running(hash).await;
    }
    assert_eq!(node.bench.started(), 50);
}

/// Row "reserve_resources": it keeps memory, CPUs, disk, a slot and a port, for whoever reserved and nobody else.
#[tokio::test]
async fn a_reservation_keeps_room_for_its_sender_and_for_nobody_else() {
    let node = Node::start_with(|config| {
        // One host port: one instance.
        config.network.host_ports.last = config.network.host_ports.first;
    })
    .await;
    let (owner, other) = (Keypair::generate(), Keypair::generate());
    let image = node.ccn.store(&owner, b"a raw disk");
    let reserve = async |who: &Keypair| {
        let mut content = instance_content(&image, "credit");
        content["address"] = json!(who.address());
        content["time"] = json!(1.0);
        let path = "/control/reserve_resources";
        node.call_with(who, "POST", path, content.to_string()).await
    };
    let (status, answer) = reserve(&owner).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["status"], "reserved");
    let (status, answer) = reserve(&other).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    assert!(answer.contains("This CRN cannot reserve the requested resources at this time."));
    // Again by the same sender: the same room, not more.
    assert_eq!(reserve(&owner).await.0, StatusCode::OK);
    let path = "/control/reserve_resources";
    let (status, error) = node
        .call_with(&owner, "POST", path, r#"{"address": 1}"#.to_owned())
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(error.contains("error"), "{error}");
}
