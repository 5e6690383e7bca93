//! What owners do with their machines.

use std::time::Duration;

use aleph_message::{Keypair, MessageType};
use axum::body::Body;
use crn_agent::ledger::State;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::fixtures::{instance, instance_content};
use crate::support::line::{Line, Way};
use crate::support::{Node, wallet};

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
        (
            StatusCode::FORBIDDEN,
            r#"{"error":"Unauthorized sender"}"#.to_owned()
        )
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

/// S4: a signed call is carried out once, by this agent and by the next.
#[tokio::test]
async fn a_signed_call_is_carried_out_once() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let hash = instance(&node, &owner);
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    let path = format!("/control/machine/{hash}/stop");
    let (pubkey, operation) = wallet::headers(&owner, "POST", &path);
    let request = || {
        Request::post(&path)
            .header("X-SignedPubKey", pubkey.to_string())
            .header("X-SignedOperation", operation.to_string())
            .body(Body::empty())
            .unwrap()
    };
    assert_eq!(node.send(request()).await.status(), StatusCode::OK);
    let again = node.send(request()).await;
    assert_eq!(again.status(), StatusCode::UNAUTHORIZED);
    let node = node.restarted().await;
    let after_restart = node.send(request()).await;
    assert_eq!(after_restart.status(), StatusCode::UNAUTHORIZED);
    let text = String::from_utf8(after_restart.body().to_vec()).unwrap();
    assert!(text.contains("X-SignedOperation"), "{text}");
}

/// S4: who signs the query and the body too has them bound; a nonce makes two like calls two.
#[tokio::test]
async fn a_call_may_sign_its_query_and_its_body_which_then_are_what_counts() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let hash = instance(&node, &owner);
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    let (expire, body) = (
        format!("/control/machine/{hash}/expire"),
        r#"{"timeout": 1000}"#,
    );
    let bound = json!({
        "body_sha256": aleph_message::ItemHash::of(body.as_bytes()), "query": "", "nonce": 1,
    });
    let call = async |bound: &Value, path: &str, body: &str| {
        let signed = path.split('?').next().unwrap();
        let headers = wallet::bound_headers(&owner, "POST", signed, bound);
        node.call_signed(headers, "POST", path, body.to_owned())
            .await
    };
    let (status, error) = call(&bound, &expire, r#"{"timeout": 10}"#).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(error.contains("body_sha256"), "{error}");
    assert!(node.record(&hash).await.expires.is_none());
    let (status, answer) = call(&bound, &expire, body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let reinstall = format!("/control/machine/{hash}/reinstall?erase_volumes=true");
    let other = json!({"query": "erase_volumes=false"});
    let (status, error) = call(&other, &reinstall, "").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(error.contains("Invalid query"), "{error}");
    assert_eq!(node.record(&hash).await.wipe, None);
    let same = json!({"query": "erase_volumes=true"});
    assert_eq!(call(&same, &reinstall, "").await.0, StatusCode::OK);
    // What is no text is nothing that was sent.
    let (status, _) = call(&json!({"query": 7}), &expire, body).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn whom_the_owner_delegates_to_operates_the_machine_until_it_no_longer_does() {
    let node = Node::start().await;
    let (owner, helper) = (Keypair::generate(), Keypair::generate());
    let hash = instance(&node, &owner);
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    let path = format!("/control/machine/{hash}");
    let delegate = |types: Value| {
        let entry = json!({"address": helper.address(), "types": types});
        node.ccn.set_aggregate(
            &owner.address(),
            "security",
            json!({ "authorizations": [entry] }),
        );
    };
    delegate(json!(["INSTANCE"]));
    assert_eq!(node.call(&helper, "GET", &path).await.0, StatusCode::OK);
    delegate(json!(["POST"]));
    assert_eq!(
        node.call(&helper, "GET", &path).await,
        (
            StatusCode::FORBIDDEN,
            r#"{"error":"Unauthorized sender"}"#.to_owned()
        )
    );
}

/// R6: `expire` works, also across a restart of the agent.
#[tokio::test]
async fn a_machine_expires_when_its_owner_says_and_stays_off() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let hash = instance(&node, &owner);
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    let path = format!("/control/machine/{hash}/expire");
    for body in ["", "{}", r#"{"timeout": 0}"#, r#"{"timeout": 864000}"#] {
        let (status, error) = node.call_with(&owner, "POST", &path, body.to_owned()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(error.contains("'timeout'"), "{error}");
    }
    let expire = async |node: &Node, seconds: f64| {
        let body = json!({ "timeout": seconds }).to_string();
        node.call_with(&owner, "POST", &path, body).await
    };
    let answer = expire(&node, 1000.0).await;
    let text = format!("Expiring VM with ref {hash} in 1000.0 seconds");
    assert_eq!(answer, (StatusCode::OK, text));
    assert!(node.record(&hash).await.expires.is_some());
    let node = node.restarted().await;
    // What the ledger says at first is the earlier agent's.
    node.until(&hash, "started", |_| node.bench.started() == 1)
        .await;
    node.until_running(&hash).await;
    expire(&node, 0.01).await;
    let record = node
        .until(&hash, "expired", |state| *state == State::Stopped)
        .await;
    assert!(record.held);
    node.push(&[&hash]).await;
    assert_eq!(node.record(&hash).await.desired.word(), "stopped");
}

#[tokio::test]
async fn a_reinstalled_machine_begins_on_new_disks_and_keeps_its_volumes_when_told() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let image = node.ccn.store(&owner, b"a raw disk");
    let mut content = instance_content(&image, "hold");
    content["volumes"] = json!([{"persistence": "host", "size_mib": 1, "mount": "/data"}]);
    let hash = node.ccn.publish(&owner, MessageType::Instance, content);
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    let disk = |name: &str| node.bench.disks(&hash).join(name);
    let used = || {
        for name in ["root.raw", "vol0.raw"] {
            std::fs::write(disk(name), "used").unwrap();
        }
    };
    let read = |name| std::fs::read_to_string(disk(name)).unwrap();
    let path = format!("/control/machine/{hash}/reinstall");
    used();
    let (status, text) = node
        .call(&owner, "POST", &format!("{path}?erase_volumes=false"))
        .await;
    assert_eq!(
        (status, text),
        (StatusCode::OK, format!("Reinstalled VM with ref {hash}"))
    );
    node.until(&hash, "started again", |_| node.bench.started() == 2)
        .await;
    let record = node.until_running(&hash).await;
    assert_eq!(
        (read("root.raw"), read("vol0.raw")),
        ("new".into(), "used".into())
    );
    assert_eq!(record.lease.unwrap().slot, 4);
    used();
    // Also one that its owner has stopped.
    node.call(&owner, "POST", &format!("/control/machine/{hash}/stop"))
        .await;
    node.call(&owner, "POST", &path).await;
    node.until_running(&hash).await;
    assert_eq!(
        (read("root.raw"), read("vol0.raw")),
        ("new".into(), "new".into())
    );
    assert_eq!(node.record(&hash).await.wipe, None);
}

/// Status of what takes time: a file that is on its way.
#[tokio::test]
async fn an_owner_sees_how_much_of_a_file_is_here() {
    let node = Node::start().await;
    let line = Line::to(node.ccn.address()).await;
    let url = line.url();
    let node = node.restarted_with(|config| config.ccn = url).await;
    let owner = Keypair::generate();
    let image = node.ccn.store(&owner, &vec![b'.'; 3 << 20]);
    let content = instance_content(&image, "hold");
    let hash = node.ccn.publish(&owner, MessageType::Instance, content);
    line.set(Way::Stalls(2 << 20));
    node.push(&[&hash]).await;
    let path = format!("/control/machine/{hash}");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let fetching = loop {
        let (status, body) = node.call(&owner, "GET", &path).await;
        // Nobody's yet as long as its message has not come.
        let body: Value = serde_json::from_str(&body).unwrap();
        let found = &body["fetching"][0];
        if status == StatusCode::OK && found["bytes"].as_u64().is_some_and(|bytes| bytes > 0) {
            break found.clone();
        }
        assert!(tokio::time::Instant::now() < deadline, "{body}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(fetching["ref"], image.as_str());
    assert!(fetching["bytes"].as_u64().unwrap() < 3 << 20, "{fetching}");
    line.set(Way::Good);
    node.until_running(&hash).await;
    let (_, body) = node.call(&owner, "GET", &path).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["fetching"], json!([]));
}

#[tokio::test]
async fn an_owner_sees_where_the_machine_stands_what_it_uses_and_what_happened() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let hash = instance(&node, &owner);
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    let path = format!("/control/machine/{hash}");
    let json_of = async |path: &str| -> Value {
        let (status, body) = node.call(&owner, "GET", path).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_str(&body).unwrap()
    };
    let status = json_of(&path).await;
    assert_eq!(status["state"], "running");
    assert_eq!(status["lease"]["memory_mib"], 64);
    let states: Vec<_> = status["events"].as_array().unwrap().iter().collect();
    let states: Vec<_> = states.iter().map(|event| &event["state"]).collect();
    assert_eq!(states, ["fetching", "prepared", "starting", "running"]);
    let metrics = json_of(&format!("{path}/metrics")).await;
    assert_eq!(metrics["now"]["memory_bytes"], 64 << 20);
    assert!(metrics["history"].is_array());
    node.reconciler.stop(&hash, true).await.unwrap();
    node.until(&hash, "stopped", |state| *state == State::Stopped)
        .await;
    assert_eq!(
        json_of(&format!("{path}/metrics")).await["now"],
        Value::Null
    );
}
