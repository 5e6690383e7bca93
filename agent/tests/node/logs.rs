//! Logs, as a list and as they come, and the console.

use aleph_message::{ItemHash, Keypair};
use crn_agent::ledger::State;
use futures_util::SinkExt as _;
use http::StatusCode;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::fixtures::instance;
use crate::support::{Node, Socket};

async fn running(node: &Node, owner: &Keypair) -> ItemHash {
    let hash = instance(node, owner);
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    hash
}

fn line(text: &str) -> Value {
    json!({"type": "stdout", "message": text})
}

async fn lines(node: &Node, owner: &Keypair, path: &str) -> Vec<String> {
    let (status, body) = node.call(owner, "GET", path).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let entries: Vec<Value> = serde_json::from_str(&body).unwrap();
    let text = |entry: &Value| entry["MESSAGE"].as_str().unwrap().to_owned();
    entries.iter().map(text).collect()
}

#[tokio::test]
async fn logs_stream_to_their_owner_only() {
    let node = Node::start().await;
    let (owner, stranger) = (Keypair::generate(), Keypair::generate());
    let hash = running(&node, &owner).await;
    let path = format!("/control/machine/{hash}/stream_logs");
    let mut socket = node.connect(&stranger, &path).await;
    assert_eq!(
        socket.json().await,
        json!({"status": "failed", "reason": "Unauthorized sender"})
    );
    let mut socket = node.connect(&owner, &path).await;
    assert_eq!(socket.json().await, json!({"status": "connected"}));
    assert_eq!(socket.json().await, line("[    0.1] booting"));
    node.bench.print(&hash, " root\n");
    assert_eq!(socket.json().await, line("login: root"));
    node.call(&owner, "POST", &format!("/control/machine/{hash}/stop"))
        .await;
    assert_eq!(
        socket.json().await,
        json!({"type": "system", "message": "VM is not running, past logs sent"})
    );
}

/// S4: the operation must be about this very call; a signature for another path opens nothing.
#[tokio::test]
async fn an_operation_signed_for_another_path_opens_no_log() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let hash = running(&node, &owner).await;
    let (pubkey, operation) =
        crate::support::wallet::headers(&owner, "GET", &format!("/control/machine/{hash}/logs"));
    let frame = json!({"auth": {"X-SignedPubKey": pubkey, "X-SignedOperation": operation}});
    let url = format!("ws://{}/control/machine/{hash}/stream_logs", node.address);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    socket.send(Message::text(frame.to_string())).await.unwrap();
    let answer = Socket(socket).json().await;
    assert_eq!(answer["status"], "failed");
    assert!(
        answer["reason"]
            .as_str()
            .unwrap()
            .starts_with("Invalid path.")
    );
}

/// R2: logs stay readable when the machine does not run.
#[tokio::test]
async fn a_log_is_read_by_time_and_from_its_end_also_when_the_machine_is_stopped() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let hash = running(&node, &owner).await;
    node.bench.print(&hash, " root\r\none\ntwo\nthree");
    let path = |rest: &str| format!("/control/machine/{hash}/{rest}");
    node.call(&owner, "POST", &path("stop")).await;
    let all = ["[    0.1] booting", "login: root", "one", "two", "three"];
    assert_eq!(lines(&node, &owner, &path("logs")).await, all);
    assert_eq!(lines(&node, &owner, &path("logs?tail=2")).await, all[3..]);
    assert!(lines(&node, &owner, &path("logs?tail=0")).await.is_empty());
    assert_eq!(lines(&node, &owner, &path("logs?since=1")).await, all);
    let later = path("logs?since=2100-01-01T00:00:00Z");
    assert!(lines(&node, &owner, &later).await.is_empty());
    let (status, error) = node.call(&owner, "GET", &path("logs?tail=many")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(error.contains("'tail'"), "{error}");
    // Another agent reads on where this one was.
    let node = node.restarted().await;
    assert_eq!(lines(&node, &owner, &path("logs")).await, all);
    node.call(&owner, "POST", &path("start")).await;
    node.until_running(&hash).await;
    let (_, body) = {
        let following = path("logs?tail=1&follow=true");
        let follow = node.call(&owner, "GET", &following);
        let stop = async {
            node.bench.print(&hash, " again\n");
            node.call(&owner, "POST", &path("stop")).await
        };
        tokio::join!(follow, stop).0
    };
    let last = body.lines().last().unwrap_or_default().to_owned();
    assert!(last.contains("login: again"), "{body}");
}

/// Row "Console" of what users ask for: output and input over a WebSocket.
#[tokio::test]
async fn a_console_is_read_and_typed_on_by_its_owner_only() {
    let node = Node::start().await;
    let (owner, stranger) = (Keypair::generate(), Keypair::generate());
    let hash = running(&node, &owner).await;
    let path = format!("/control/machine/{hash}/console");
    let mut socket = node.connect(&stranger, &path).await;
    assert_eq!(socket.json().await["status"], "failed");
    let mut socket = node.connect(&owner, &path).await;
    assert_eq!(socket.json().await, json!({"status": "connected"}));
    assert_eq!(socket.frame().await, Message::binary(&b"login: "[..]));
    socket.0.send(Message::text("root\n")).await.unwrap();
    assert_eq!(socket.frame().await, Message::binary(&b"ROOT\n"[..]));
    node.reconciler.stop(&hash, true).await.unwrap();
    node.until(&hash, "stopped", |state| *state == State::Stopped)
        .await;
    let mut socket = node.connect(&owner, &path).await;
    assert_eq!(socket.json().await, json!({"status": "connected"}));
    let refusal = socket.json().await;
    assert!(refusal["reason"].as_str().unwrap().contains("does not run"));
}

/// S4: what was signed for a console, where one can type, opens one and no second.
#[tokio::test]
async fn a_frame_that_opened_a_console_opens_no_other() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let hash = running(&node, &owner).await;
    let path = format!("/control/machine/{hash}/console");
    let (pubkey, operation) = crate::support::wallet::headers(&owner, "GET", &path);
    let frame = json!({"auth": {"X-SignedPubKey": pubkey, "X-SignedOperation": operation}});
    let url = format!("ws://{}{path}", node.address);
    let open = async || {
        let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
        socket.send(Message::text(frame.to_string())).await.unwrap();
        let mut socket = Socket(socket);
        let answer = socket.json().await;
        (answer, socket)
    };
    let (answer, _console) = open().await;
    assert_eq!(answer, json!({"status": "connected"}));
    let (answer, _) = open().await;
    assert_eq!(answer["status"], "failed");
    assert!(answer["reason"].as_str().unwrap().contains("used before"));
}
