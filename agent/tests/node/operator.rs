//! What is the operator's alone.

use aleph_message::Keypair;
use axum::body::Body;
use crn_agent::ledger::State;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::fixtures::{instance, program};
use crate::support::Node;

#[tokio::test]
async fn the_operators_routes_open_with_the_token_the_cookie_or_the_nodes_wallet() {
    let wallet = Keypair::generate();
    let address = wallet.address();
    let node = Node::start_with(|config| config.node.owner = Some(address)).await;
    let paths = [
        "/about/config",
        "/about/executions/details",
        "/metrics",
        "/control/gc",
    ];
    for path in paths {
        let (status, error) = node.get(path).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(error["error"], "401 Invalid token");
        assert_eq!(node.operate("GET", path).await.0, StatusCode::OK, "{path}");
        assert_eq!(node.call(&wallet, "GET", path).await.0, StatusCode::OK);
        let stranger = node.call(&Keypair::generate(), "GET", path).await;
        assert_eq!(stranger.0, StatusCode::UNAUTHORIZED);
    }
    let login = |token: String| {
        let path = format!("/about/login?token={token}");
        node.send(Request::get(path).body(Body::empty()).unwrap())
    };
    assert_eq!(
        login("x".repeat(64)).await.status(),
        StatusCode::UNAUTHORIZED
    );
    let response = login(node.token()).await;
    assert_eq!(response.status(), StatusCode::FOUND);
    assert_eq!(response.headers()["location"], "/about/config");
    let cookie = response.headers()["set-cookie"]
        .to_str()
        .unwrap()
        .to_owned();
    let with_cookie = Request::get("/about/config")
        .header("Cookie", cookie.split(';').next().unwrap())
        .body(Body::empty())
        .unwrap();
    assert_eq!(node.send(with_cookie).await.status(), StatusCode::OK);
}

/// Row "Metrics": Prometheus, with what each machine uses.
#[tokio::test]
async fn prometheus_reads_capacity_leases_and_states() {
    let node = Node::start().await;
    let hash = instance(&node, &Keypair::generate());
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    let (_, text) = node.operate("GET", "/metrics").await;
    let heard = format!("crn_ccn_heard{{url=\"{}\"}} 1", node.ccn.url());
    assert!(text.contains(&heard), "{heard} is not in\n{text}");
    for wanted in [
        "crn_machines{state=\"running\"} 1",
        "crn_leased_memory_bytes 67108864",
        "# TYPE crn_vm_cpu_seconds_total counter",
    ] {
        assert!(text.contains(wanted), "{wanted} is not in\n{text}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(
            name.starts_with("crn_") && value.parse::<f64>().is_ok(),
            "{line}"
        );
    }
}

#[tokio::test]
async fn events_come_as_they_happen_and_from_where_a_listener_left_off() {
    let node = Node::start().await;
    let hash = instance(&node, &Keypair::generate());
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    let request = Request::get(format!("http://{}/control/events", node.address))
        .header("Authorization", format!("Bearer {}", node.token()))
        .header("Last-Event-ID", "2")
        .body(Body::empty())
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut body = client.request(request).await.unwrap().into_body();
    let mut text = String::new();
    node.reconciler.stop(&hash, true).await.unwrap();
    while !text.contains("\"stopped\"") {
        let frame = body.frame().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    let states: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| {
            let event: Value = serde_json::from_str(data).unwrap();
            event["state"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(states, ["starting", "running", "stopping", "stopped"]);
}

/// R20 and row "GC": what nobody uses goes by itself, and a dry run says what and why.
#[tokio::test]
async fn garbage_collection_explains_itself_before_it_acts_and_spares_data() {
    let node = Node::start_with(|config| config.retention.program_hours = 0).await;
    let owner = Keypair::generate();
    let (unused, stopped) = (program(&node, &owner), instance(&node, &owner));
    node.get(&format!("/vm/{unused}")).await;
    node.push(&[&stopped]).await;
    node.until_running(&stopped).await;
    for hash in [&unused, &stopped] {
        node.reconciler.stop(hash, false).await.unwrap();
        node.until(hash, "stopped", |state| *state == State::Stopped)
            .await;
    }
    let plan = async |method| -> Vec<Value> {
        let (status, body) = node.operate(method, "/control/gc").await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let mut body: Value = serde_json::from_str(&body).unwrap();
        serde_json::from_value(body["machines"].take()).unwrap()
    };
    let of = |all: &[Value], hash: &str| {
        all.iter()
            .find(|entry| entry["vm_hash"] == hash)
            .unwrap()
            .clone()
    };
    let dry = plan("GET").await;
    assert_eq!(of(&dry, unused.as_str())["erase"], true);
    assert_eq!(of(&dry, stopped.as_str())["erase"], false);
    let reason = of(&dry, stopped.as_str())["reason"].clone();
    assert!(reason.as_str().unwrap().contains("retention.stopped_hours"));
    assert_eq!(node.record(&unused).await.state, State::Stopped);
    plan("POST").await;
    let record = node
        .until(&unused, "erased", |state| *state == State::Erased)
        .await;
    assert!(record.lease.is_none() && !node.bench.disks(&unused).exists());
    assert_eq!(node.record(&stopped).await.state, State::Stopped);
}
