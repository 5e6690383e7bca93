//! Requests for programs.

use std::time::Duration;

use aleph_message::{ItemHash, Keypair, MessageType};
use axum::body::Body;
use crn_agent::ledger::{Desired, State};
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::fixtures::{failed, instance, program, program_content};
use crate::support::{Node, squashfs};

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
        let code = response.headers()["aleph-program-code-ref"].to_str();
        assert_eq!(code.unwrap(), record_code(&node, &hash).await);
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

/// `code.ref` in the message that the node goes by.
async fn record_code(node: &Node, hash: &ItemHash) -> String {
    let (_, records) = node.get("/about/executions/records").await;
    let row = &records[0];
    assert_eq!(row["vm_hash"], hash.as_str());
    let content: Value = serde_json::from_str(row["message"].as_str().unwrap()).unwrap();
    assert_eq!(row["message"], row["original_message"]);
    content["code"]["ref"].as_str().unwrap().to_owned()
}

/// R18: `on.http` was not looked at.
#[tokio::test]
async fn a_program_that_is_not_for_requests_is_not_started_by_one() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let (code, runtime) = (
        node.ccn.store(&owner, b"code"),
        node.ccn.store(&owner, &squashfs("runtime")),
    );
    let mut content = program_content(&code, &runtime);
    content["on"] = json!({"http": false, "persistent": true});
    let hash = node.ccn.publish(&owner, MessageType::Program, content);
    let refused = async || {
        let (status, answer) = node.get(&format!("/vm/{hash}")).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains("on.http"));
    };
    refused().await;
    assert!(node.ledger.all().await.unwrap().is_empty());
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    refused().await;
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
