//! The agent from its HTTP API down to the host's seam.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use aleph_message::{Envelope, ItemHash, Keypair, MessageType};
use axum::body::Body;
use crn_agent::ledger::{Desired, Source, State};
use crn_protocol::control::ExitReason;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Request, StatusCode};
use serde_json::{Value, json};
use support::{Node, squashfs, wallet};
use time::OffsetDateTime;
use tokio_tungstenite::tungstenite::Message;

fn instance_content(image: &ItemHash, payment: &str) -> Value {
    json!({
        "allow_amend": false,
        "environment": {"internet": true, "hypervisor": "qemu"},
        "resources": {"vcpus": 1, "memory": 64, "seconds": 30},
        "authorized_keys": ["ssh-ed25519 AAAA me"],
        "payment": {"chain": "ETH", "type": payment},
        "volumes": [],
        "rootfs": {"parent": {"ref": image, "use_latest": false}, "persistence": "host", "size_mib": 10},
    })
}

fn instance(node: &Node, owner: &Keypair) -> ItemHash {
    let image = node.ccn.store(owner, b"a raw disk");
    node.ccn.publish(
        owner,
        MessageType::Instance,
        instance_content(&image, "hold"),
    )
}

fn program_content(code: &ItemHash, runtime: &ItemHash) -> Value {
    json!({
        "type": "vm-function", "allow_amend": false,
        "code": {"encoding": "zip", "entrypoint": "main:app", "ref": code, "use_latest": true},
        "runtime": {"ref": runtime, "use_latest": false, "comment": ""},
        "on": {"http": true},
        "environment": {"internet": false, "aleph_api": false, "reproducible": false, "shared_cache": false},
        "resources": {"vcpus": 1, "memory": 64, "seconds": 1},
        "volumes": [],
    })
}

fn program(node: &Node, owner: &Keypair) -> ItemHash {
    let (code, runtime) = (
        node.ccn.store(owner, b"code"),
        node.ccn.store(owner, &squashfs("runtime")),
    );
    node.ccn.publish(
        owner,
        MessageType::Program,
        program_content(&code, &runtime),
    )
}

fn failed(state: &State) -> bool {
    matches!(state, State::Failed(_))
}

fn reason(state: State) -> String {
    match state {
        State::Failed(failure) => failure.reason,
        other => panic!("not failed: {other:?}"),
    }
}

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
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !node.bench.networks.lock().unwrap().is_empty() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
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
async fn a_message_that_is_not_genuine_is_refused_and_never_started() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let image = node.ccn.store(&owner, b"a raw disk");
    let sign = |seconds: f64| {
        Envelope::sign(
            &owner,
            MessageType::Instance,
            None,
            seconds,
            instance_content(&image, "hold"),
        )
        .unwrap()
    };
    let (unsigned, other_signer, tampered) = (sign(1.0), sign(2.0), sign(3.0));
    let mut message = json!(unsigned);
    message["signature"] = Value::Null;
    node.ccn.take(&unsigned, message);
    let mut message = json!(other_signer);
    message["sender"] = json!(Keypair::generate().address());
    node.ccn.take(&other_signer, message);
    let mut message = json!(tampered);
    message["item_content"] = json!(
        message["item_content"]
            .as_str()
            .unwrap()
            .replace("64", "63")
    );
    node.ccn.take(&tampered, message);
    node.push(&[
        &unsigned.item_hash,
        &other_signer.item_hash,
        &tampered.item_hash,
    ])
    .await;
    for envelope in [unsigned, other_signer, tampered] {
        let record = node.until(&envelope.item_hash, "failed", failed).await;
        assert!(record.lease.is_none() && record.message.is_none());
        assert!(reason(record.state).contains("refused"));
    }
    assert_eq!(node.bench.started(), 0);
}

#[tokio::test]
async fn a_message_signed_for_another_needs_that_others_permission() {
    let node = Node::start().await;
    let (owner, helper) = (Keypair::generate(), Keypair::generate());
    let image = node.ccn.store(&owner, b"a raw disk");
    let mut content = instance_content(&image, "hold");
    content["address"] = json!(owner.address());
    let hash = node.ccn.publish(&helper, MessageType::Instance, content);
    node.push(&[&hash]).await;
    let record = node.until(&hash, "failed", failed).await;
    assert!(reason(record.state).contains("may not act for"));
    node.ccn.set_aggregate(
        &owner.address(),
        "security",
        json!({"authorizations": [{"address": helper.address()}]}),
    );
    node.reconciler
        .run(&hash, Source::Scheduler, true)
        .await
        .unwrap();
    node.until_running(&hash).await;
}

#[tokio::test]
async fn a_corrupt_image_is_not_booted_and_a_good_one_later_is() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let hash = instance(&node, &owner);
    node.ccn
        .set_file(&ItemHash::of(b"a raw disk"), b"another disk");
    node.push(&[&hash]).await;
    let record = node.until(&hash, "failed", failed).await;
    assert!(record.lease.is_none(), "a failed machine holds nothing");
    assert!(reason(record.state).contains("corrupt"));
    assert!(!node.bench.disks(&hash).exists());
    let (status, answer) = node.push(&[&hash]).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        answer["errors"][hash.as_str()]
            .as_str()
            .unwrap()
            .contains("corrupt"),
        "{answer}"
    );
    node.ccn
        .set_file(&ItemHash::of(b"a raw disk"), b"a raw disk");
    node.until_running(&hash).await;
}

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
async fn owners_stop_start_reboot_and_erase_their_machines_and_nobody_elses() {
    let node = Node::start().await;
    let (owner, stranger) = (Keypair::generate(), Keypair::generate());
    let hash = instance(&node, &owner);
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    let path = |verb| format!("/control/machine/{hash}/{verb}");
    assert_eq!(
        node.call(&stranger, "POST", &path("stop")).await,
        (StatusCode::FORBIDDEN, "Unauthorized sender".to_owned())
    );
    let unsigned = node
        .send(Request::post(path("stop")).body(Body::empty()).unwrap())
        .await;
    assert_eq!(unsigned.status(), StatusCode::BAD_REQUEST);
    assert_eq!(
        &unsigned.body()[..],
        br#"{"error":"Missing X-SignedPubKey header"}"#
    );

    let ok = |text: &str| (StatusCode::OK, format!("{text} VM with ref {hash}"));
    assert_eq!(
        node.call(&owner, "POST", &path("stop")).await,
        ok("Stopped")
    );
    assert!(!node.bench.runs(&hash));
    assert_eq!(
        node.call(&owner, "POST", &path("stop")).await.1,
        "Already stopped, nothing to do"
    );
    node.push(&[&hash]).await;
    assert_eq!(node.record(&hash).await.state, State::Stopped);
    let (status, logs) = node.call(&owner, "GET", &path("logs")).await;
    assert_eq!(status, StatusCode::OK);
    let logs: Vec<Value> = serde_json::from_str(&logs).unwrap();
    assert_eq!(logs[1]["MESSAGE"], "login:");
    assert_eq!(logs[0]["SYSLOG_IDENTIFIER"], format!("vm-{hash}-stdout"));

    assert_eq!(
        node.call(&owner, "POST", &path("start")).await,
        ok("Started")
    );
    node.until_running(&hash).await;
    assert_eq!(
        node.call(&owner, "POST", &path("reboot")).await,
        ok("Rebooted")
    );
    node.until(&hash, "rebooted", |_| node.bench.started() == 3)
        .await;
    node.until_running(&hash).await;
    assert_eq!(
        node.call(&owner, "POST", &path("erase")).await,
        ok("Erased")
    );
    let record = node.record(&hash).await;
    assert_eq!(
        (record.state, record.lease.is_none(), record.ports.len()),
        (State::Erased, true, 0)
    );
    assert!(!node.bench.disks(&hash).exists());
    assert!(node.bench.networks.lock().unwrap().is_empty());
    assert_eq!(
        node.call(&owner, "POST", &path("stop")).await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn logs_stream_to_their_owner_only() {
    let node = Node::start().await;
    let (owner, stranger) = (Keypair::generate(), Keypair::generate());
    let hash = instance(&node, &owner);
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    let path = format!("/control/machine/{hash}/stream_logs");
    let connect = |key: &Keypair| {
        let (pubkey, operation) = wallet::headers(key, "GET", &path);
        let frame =
            json!({"auth": {"X-SignedPubKey": pubkey, "X-SignedOperation": operation}}).to_string();
        let url = format!("ws://{}{path}", node.address);
        async move {
            let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
            socket.send(Message::text(frame)).await.unwrap();
            socket
        }
    };
    let mut socket = connect(&stranger).await;
    let frame: Value =
        serde_json::from_str(socket.next().await.unwrap().unwrap().to_text().unwrap()).unwrap();
    assert_eq!(
        frame,
        json!({"status": "failed", "reason": "Unauthorized sender"})
    );

    let mut socket = connect(&owner).await;
    let mut next = async || -> Value {
        let frame = tokio::time::timeout(Duration::from_secs(10), socket.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        serde_json::from_str(frame.to_text().unwrap()).unwrap()
    };
    assert_eq!(next().await, json!({"status": "connected"}));
    assert_eq!(
        next().await,
        json!({"type": "stdout", "message": "[    0.1] booting"})
    );
    std::fs::write(
        node.bench.disks(&hash).join("console.log"),
        "[    0.1] booting\nlogin: root\n",
    )
    .unwrap();
    assert_eq!(
        next().await,
        json!({"type": "stdout", "message": "login: root"})
    );
    node.call(&owner, "POST", &format!("/control/machine/{hash}/stop"))
        .await;
    assert_eq!(
        next().await,
        json!({"type": "system", "message": "VM is not running, past logs sent"})
    );
}

#[tokio::test]
async fn a_program_starts_once_for_many_requests_and_its_answers_pass_untouched() {
    let node = Node::start().await;
    let hash = program(&node, &Keypair::generate());
    let path = format!("/vm/{hash}/a%20b/c?x=1&y=%2F");
    let requests = (0..10).map(|_| node.send(Request::get(&path).body(Body::empty()).unwrap()));
    for response in futures_util::future::join_all(requests).await {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(&response.body()[..], b"GET /a%20b/c?x=1&y=%2F HTTP/1.1");
        assert_eq!(response.headers()["content-type"], "text/x-guest");
        assert_eq!(response.headers()["aleph-program-itemhash"], hash.as_str());
        assert_eq!(response.headers()["server"], "aleph-vm/1.14.0");
    }
    assert_eq!(node.bench.started(), 1);
    let response = node
        .send(
            Request::get(format!("/vm/{hash}/missing"))
                .body(Body::empty())
                .unwrap(),
        )
        .await;
    assert_eq!(
        (response.status(), &response.body()[..]),
        (StatusCode::NOT_FOUND, &b"GET /missing HTTP/1.1"[..])
    );
    let host = format!("{}.example.org:4020", hash.host_label().unwrap());
    let by_host = Request::get("/about/login")
        .header("Host", host)
        .body(Body::empty())
        .unwrap();
    assert_eq!(
        &node.send(by_host).await.body()[..],
        b"GET /about/login HTTP/1.1"
    );
    let response = node
        .send(
            Request::post(format!("/vm/{hash}"))
                .body(Body::from("x"))
                .unwrap(),
        )
        .await;
    assert_eq!(&response.body()[..], b"POST / HTTP/1.1");
}

#[tokio::test]
async fn what_is_no_program_is_not_started() {
    let node = Node::start().await;
    let hash = instance(&node, &Keypair::generate());
    let (status, _) = node.get(&format!("/vm/{hash}")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = node.get(&format!("/vm/{}", "0".repeat(64))).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, answer) = node.get("/vm/nothing").await;
    assert_eq!(
        (status, &answer),
        (
            StatusCode::BAD_REQUEST,
            &json!({"error": "Invalid message reference: nothing"})
        )
    );
    assert!(node.ledger.all().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_slow_program_is_a_504_and_one_that_is_never_ready_a_503() {
    let node = Node::start_with(|config| {
        config.program.min_timeout = Duration::from_millis(300);
        config.program.start_timeout = Duration::from_secs(2);
    })
    .await;
    let owner = Keypair::generate();
    let hash = program(&node, &owner);
    let (status, answer) = node.get(&format!("/vm/{hash}/slow")).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT, "{answer}");
    node.bench
        .mute
        .store(1, std::sync::atomic::Ordering::SeqCst);
    let other = node.ccn.publish(&owner, MessageType::Program, {
        let (code, runtime) = (
            node.ccn.store(&owner, b"code2"),
            node.ccn.store(&owner, &squashfs("runtime2")),
        );
        program_content(&code, &runtime)
    });
    let (status, answer) = node.get(&format!("/vm/{other}")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        answer["error"].as_str().unwrap().contains("ready"),
        "{answer}"
    );
    // A program that failed does not go on trying when nobody asks.
    assert_eq!(
        node.until(&other, "failed", failed).await.desired,
        Desired::Stopped
    );
}

#[tokio::test]
async fn an_idle_program_stops_and_starts_again_when_asked_for() {
    let node = Node::start_with(|config| config.program.idle = Duration::from_millis(300)).await;
    let hash = program(&node, &Keypair::generate());
    assert_eq!(node.get(&format!("/vm/{hash}")).await.0, StatusCode::OK);
    let record = node
        .until(&hash, "stopped", |state| *state == State::Stopped)
        .await;
    assert_eq!(record.lease.unwrap().memory_mib, 0);
    assert_eq!(node.get(&format!("/vm/{hash}")).await.0, StatusCode::OK);
    assert_eq!(node.bench.started(), 2);
}

#[tokio::test]
async fn the_newest_amendment_by_the_same_owner_is_used() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let (code, runtime) = (
        node.ccn.store(&owner, b"code"),
        node.ccn.store(&owner, &squashfs("runtime")),
    );
    node.ccn.store_as(&owner, b"newer code", Some(&code));
    node.ccn
        .store_as(&Keypair::generate(), b"evil code", Some(&code));
    let hash = node.ccn.publish(
        &owner,
        MessageType::Program,
        program_content(&code, &runtime),
    );
    assert_eq!(node.get(&format!("/vm/{hash}")).await.0, StatusCode::OK);
    let cache = node.dir.path().join("state/cache");
    assert!(cache.join(ItemHash::of(b"newer code").as_str()).exists());
    assert!(!cache.join(ItemHash::of(b"code").as_str()).exists());
    assert!(!cache.join(ItemHash::of(b"evil code").as_str()).exists());
}

#[tokio::test]
async fn a_forgotten_message_takes_its_machine_along() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let hash = instance(&node, &owner);
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    node.ccn.set_status(&hash, "forgotten");
    node.ccn.publish(
        &owner,
        MessageType::Forget,
        json!({"hashes": [hash], "reason": "done"}),
    );
    let record = node
        .until(&hash, "erased", |state| *state == State::Erased)
        .await;
    assert!(record.lease.is_none() && !node.bench.runs(&hash) && !node.bench.disks(&hash).exists());
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

#[tokio::test]
async fn a_runtime_that_no_guest_can_mount_is_refused_by_its_field() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let (code, runtime) = (
        node.ccn.store(&owner, b"code"),
        node.ccn.store(&owner, &squashfs("runtime")[..100]),
    );
    let content = program_content(&code, &runtime);
    let hash = node.ccn.publish(&owner, MessageType::Program, content);
    let (status, answer) = node.get(&format!("/vm/{hash}")).await;
    assert!(status.is_server_error(), "{status}");
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains("squashfs bytes_used"), "{error}");
    assert_eq!(node.bench.started(), 0);
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

#[tokio::test]
async fn the_node_answers_what_measuring_clients_look_for() {
    let node = Node::start().await;
    assert_eq!(
        node.get("/about/login").await,
        (StatusCode::UNAUTHORIZED, json!({"success": false}))
    );
    assert_eq!(
        node.get("/about/nothing").await,
        (StatusCode::NOT_FOUND, json!({"error": "404: Not Found"}))
    );
    let unknown = (
        StatusCode::NOT_FOUND,
        json!({"error": "404: Invalid message reference"}),
    );
    assert_eq!(node.get("/nothing").await, unknown);
    let (_, config) = node.get("/status/config").await;
    assert_eq!(config["computing"]["ENABLE_CONFIDENTIAL_COMPUTING"], false);
    assert_eq!(config["node_hash"], "c".repeat(64));
    let (status, usage) = node.get("/about/usage/system").await;
    assert_eq!((status, &usage["active"]), (StatusCode::OK, &json!(true)));
    let (_, check) = node.get("/status/check/ipv6").await;
    assert!(check["host"].is_boolean() && check["vm"].is_boolean());
    let preflight = Request::options("/control/reserve_resources")
        .header("Origin", "https://console.example.org")
        .header("Access-Control-Request-Method", "POST")
        .header(
            "Access-Control-Request-Headers",
            "x-signedpubkey,x-signedoperation,content-type",
        )
        .body(Body::empty())
        .unwrap();
    let response = node.send(preflight).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        response.headers()["access-control-allow-origin"],
        "https://console.example.org"
    );
    assert_eq!(response.headers()["server"], "aleph-vm/1.14.0");
}
