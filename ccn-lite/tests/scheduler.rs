//! A node with its scheduler, and a compute node that takes its pushes: from a signed message to a running machine.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test like the tests themselves"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aleph_message::{Envelope, ItemHash, Keypair, MessageType, allocation};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use ccn_lite::config::Config;
use ccn_lite::outbound::Client;
use ccn_lite::serve::Server;
use serde_json::{Value, json};
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(20);

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

/// A compute node that runs whatever it is told to by whom it trusts.
#[derive(Clone, Default)]
struct Crn(Arc<Mutex<(Vec<String>, Vec<Value>)>>);

async fn push(State(crn): State<Crn>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert!(headers.contains_key("content-length"));
    let authorization = headers["authorization"].to_str().unwrap();
    let request = allocation::verify(
        authorization,
        "POST",
        "/control/allocations",
        &body,
        now() as i64,
    )
    .unwrap();
    let mut state = crn.0.lock().unwrap();
    state.0.push(request.signer);
    state.1.push(serde_json::from_slice(&body).unwrap());
    StatusCode::OK
}

async fn executions(State(crn): State<Crn>) -> Json<Value> {
    let state = crn.0.lock().unwrap();
    let instances = state
        .1
        .last()
        .map(|list| list["instances"].clone())
        .unwrap_or_default();
    let entry = json!({"running": true, "networking": {"ipv6_ip": "fd00::2"}});
    let list = instances.as_array().into_iter().flatten();
    Json(
        list.map(|hash| (hash.as_str().unwrap().to_owned(), entry.clone()))
            .collect(),
    )
}

async fn start_crn() -> (Crn, String) {
    let crn = Crn::default();
    let router = Router::new()
        .route("/control/allocations", post(push))
        .route("/v2/about/executions/list", get(executions))
        .route("/about/usage/system", get(|| async { Json(json!({"cpu": {"count": 2}, "gpu": {"available_devices": []}})) }))
        .route(
            "/status/config",
            get(|| async {
                Json(json!({"version": "1.14.0", "payment": {"PAYMENT_RECEIVER_ADDRESS": "0xReceiver"},
                    "networking": {"IPV6_ADDRESS_POOL": "fd00::/64"}, "computing": {}}))
            }),
        )
        .route("/status/check/ipv6", get(|| async { Json(json!({"host": true, "vm": true})) }))
        .with_state(crn.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (crn, address)
}

struct Ccn {
    url: String,
    client: Client,
    key: String,
    /// Dropping it stops the server.
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Ccn {
    async fn start(config: &str) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), config).unwrap();
        let server = Server::bind(Config::load(file.path()).unwrap())
            .await
            .unwrap();
        let url = format!("http://{}", server.local_addr().unwrap());
        let key = server.node().key.address();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        tokio::spawn(async move { server.run(stopped).await.unwrap() });
        Self {
            url,
            client: Client::default(),
            key,
            _stop: stop,
        }
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self
            .client
            .get(&format!("{}{path}", self.url), 1 << 20, PATIENCE)
            .await
            .unwrap();
        (
            answer.status.as_u16(),
            serde_json::from_slice(&answer.body).unwrap_or_default(),
        )
    }

    async fn post(&self, message: &Envelope) -> (u16, Value) {
        let body = json!({"sync": true, "message": message}).to_string();
        let request = Request::post(format!("{}/api/v0/messages", self.url))
            .header("content-type", "application/json")
            .body(Body::from(body))
            .unwrap();
        let answer = self
            .client
            .send(request, 1 << 20, Some(PATIENCE))
            .await
            .unwrap();
        (
            answer.status.as_u16(),
            serde_json::from_slice(&answer.body).unwrap_or_default(),
        )
    }

    /// Asks until the answer satisfies `done`.
    async fn until(&self, path: &str, done: impl Fn(u16, &Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let (status, body) = self.get(path).await;
            if done(status, &body) {
                return body;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{path} still answers {status} {body}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn instance(image: &ItemHash, node: Option<&str>) -> Value {
    json!({
        "allow_amend": false,
        "environment": {"hypervisor": "qemu"},
        "resources": {"vcpus": 1, "memory": 2048},
        "payment": {"type": "credit"},
        "requirements": node.map(|node| json!({"node": {"node_hash": node}})),
        "rootfs": {"parent": {"ref": image}, "persistence": "host", "size_mib": 1024},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accepted_instance_is_placed_pushed_and_found() {
    let (crn, crn_address) = start_crn().await;
    let dir = tempfile::tempdir().unwrap();
    let owner = Keypair::generate();
    let node_hash = "c".repeat(64);
    let config = format!(
        "listen = \"127.0.0.1:0\"\ndata_dir = {:?}\n\
         [[genesis.credits]]\naddress = {:?}\namount = 1000000000\n\
         [[genesis.nodes]]\nhash = {node_hash:?}\nname = \"crn-1\"\naddress = {crn_address:?}\nowner = \"0xOwner\"\n",
        dir.path().join("state"),
        owner.address()
    );
    let ccn = Ccn::start(&config).await;

    // The command line stores the image.
    let key_file = dir.path().join("owner.key");
    std::fs::write(&key_file, owner.to_secret_hex()).unwrap();
    let image_file = dir.path().join("image.raw");
    std::fs::write(&image_file, vec![7; 3 << 20]).unwrap();
    let (url, published) = (ccn.url.clone(), image_file.clone());
    let output = tokio::task::spawn_blocking(move || {
        std::process::Command::new(env!("CARGO_BIN_EXE_ccn-lite"))
            .args(["publish", "--ccn", &url, "--key-file"])
            .args([&key_file, &published])
            .output()
            .unwrap()
    })
    .await
    .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        report["file_hash"],
        ItemHash::of(&std::fs::read(&image_file).unwrap()).as_str()
    );
    assert_eq!(
        (&report["status"], &report["size"]),
        (&json!("processed"), &json!(3 << 20))
    );
    let image: ItemHash = report["item_hash"].as_str().unwrap().parse().unwrap();

    // An instance is accepted, placed on the only node, pushed with the node's signature and seen running.
    let message = Envelope::sign(
        &owner,
        MessageType::Instance,
        None,
        now(),
        instance(&image, None),
    )
    .unwrap();
    let (status, body) = ccn.post(&message).await;
    assert_eq!(
        (status, &body["message_status"]),
        (200, &json!("processed")),
        "{body}"
    );
    let path = format!("/api/v1/vms/{}", message.item_hash);
    let vm = ccn.until(&path, |_, vm| vm["status"] == "dispatched").await;
    assert_eq!(vm["allocated_node"], node_hash.as_str());
    assert_eq!(vm["owner"], owner.address().as_str());
    {
        let state = crn.0.lock().unwrap();
        assert!(state.0.iter().all(|signer| *signer == ccn.key));
        assert_eq!(
            state.1.last().unwrap()["instances"],
            json!([message.item_hash])
        );
    }
    let allocation = ccn
        .get(&format!("/api/v0/allocation/{}", message.item_hash))
        .await
        .1;
    assert_eq!(
        (&allocation["node"]["url"], &allocation["vm_ipv6"]),
        (&json!(crn_address), &json!("fd00::2"))
    );
    assert_eq!(
        ccn.get("/api/v0/plan").await.1["plan"][&node_hash]["instances"],
        json!([message.item_hash])
    );
    assert_eq!(
        ccn.get(&format!("/api/v1/nodes/{node_hash}")).await.1["status"],
        "healthy"
    );
    let listed = ccn
        .get(&format!(
            "/api/v1/vms?owners={}&page_size=200&page=1",
            owner.address()
        ))
        .await
        .1;
    assert_eq!(listed["pagination"]["total_items"], 1);
    let crns = ccn.get("/crns.json?filter_inactive=true").await.1;
    let row: BTreeMap<String, Value> = serde_json::from_value(crns["crns"][0].clone()).unwrap();
    assert_eq!(row["ipv6_check"], json!({"host": true, "vm": true}));
    assert_eq!(
        (&row["version"], &row["payment_receiver_address"]),
        (&json!("1.14.0"), &json!("0xReceiver"))
    );

    // One that names an unknown node is never placed.
    let elsewhere = instance(&image, Some(&"d".repeat(64)));
    let lost = Envelope::sign(&owner, MessageType::Instance, None, now(), elsewhere).unwrap();
    assert_eq!(ccn.post(&lost).await.0, 200);
    ccn.until(&format!("/api/v1/vms/{}", lost.item_hash), |_, vm| {
        vm["status"] == "unschedulable"
    })
    .await;

    // Forgotten, it is gone from the node's list.
    let forget = json!({"hashes": [message.item_hash]});
    let forget = Envelope::sign(&owner, MessageType::Forget, None, now(), forget).unwrap();
    assert_eq!(ccn.post(&forget).await.0, 200);
    ccn.until(&path, |status, _| status == 404).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while crn.0.lock().unwrap().1.last().unwrap()["instances"] != json!([]) {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the node was never told"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
