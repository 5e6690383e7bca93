//! What the node says about itself.

use aleph_message::Keypair;
use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::fixtures::program;
use crate::support::Node;

/// S7: the configuration that anybody may read held the addresses of the operator's own services.
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
    // The core channel node's, which schedulers read, and no other.
    assert_eq!(config.to_string().matches("://").count(), 1, "{config}");
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

/// R6: some errors were text, some JSON, some neither.
#[tokio::test]
async fn every_refusal_of_the_nodes_own_is_json_with_its_headers() {
    let node = Node::start().await;
    let refused = async |method: &str, path: &str, body: &'static [u8]| {
        let request = Request::builder().method(method).uri(path);
        let request = request.header("Origin", "https://console.example.org");
        let response = node.send(request.body(Body::from(body)).unwrap()).await;
        let answer: Value = serde_json::from_slice(response.body()).unwrap();
        let (head, _) = response.into_parts();
        (head, answer["error"].as_str().unwrap().to_owned())
    };
    let (head, error) = refused("DELETE", "/control/machine/x/stop", b"").await;
    assert_eq!(
        (head.status, &error[..]),
        (StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed")
    );
    assert_eq!(head.headers["allow"], "POST");
    assert_eq!(
        head.headers["access-control-allow-origin"],
        "https://console.example.org"
    );
    let (head, error) = refused("GET", "/control/allocations", b"").await;
    assert_eq!(head.status, StatusCode::METHOD_NOT_ALLOWED, "{error}");
    let hash = "a".repeat(64);
    let (head, error) = refused("GET", &format!("/control/machine/{hash}/console"), b"").await;
    assert!(
        head.status.is_client_error() && error.contains("upgrade"),
        "{error}"
    );
    let (head, error) = refused("POST", "/control/allocation/notify", b"{").await;
    assert_eq!(head.status, StatusCode::BAD_REQUEST, "{error}");
}

/// Row "Diagnostics": each check says why it fails, without changing what clients read.
#[tokio::test]
async fn the_nodes_checks_say_why_they_fail_when_asked() {
    let node = Node::start_with(|config| {
        // Nobody listens there.
        config.checks.ipv4 = "127.0.0.1:1".parse().unwrap();
        config.checks.ipv6 = "[::1]:1".parse().unwrap();
        config.checks.host = "localhost".to_owned();
    })
    .await;
    let (status, shown) = node.get("/status/check/host").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(shown["ipv4"]["egress"], false);
    assert_eq!(shown["ipv4"]["dns"], true);
    assert_eq!(shown["ipv4"]["domain"], true);
    assert_eq!(shown["ipv6"]["domain"], false);
    assert_eq!(shown.as_object().unwrap().len(), 2);
    let (_, shown) = node.get("/status/check/host?explain=true").await;
    let reasons = &shown["reasons"];
    let egress = reasons["ipv4.egress"].as_str().unwrap();
    assert!(
        egress.contains("127.0.0.1:1") && egress.contains("default route"),
        "{egress}"
    );
    let domain = reasons["ipv6.domain"].as_str().unwrap();
    assert!(domain.contains("has no IPv6 address"), "{domain}");
    let (status, error) = node.get("/status/check/fastapi").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(error["error"].as_str().unwrap().contains("checks.program"));
    let (status, error) = node.get("/debug/haproxy").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(error["error"], r#"{"status": "no socket"}"#);
}

#[tokio::test]
async fn the_diagnostic_program_is_asked_everything_at_once_and_each_answer_shown() {
    let node = Node::start().await;
    let hash = program(&node, &Keypair::generate());
    let configured = hash.to_string();
    let node = node
        .restarted_with(|config| config.checks.program = Some(configured))
        .await;
    // The program here answers every request with its first line, which is none of the expected answers.
    let (status, shown) = node.get("/status/check/fastapi?explain=true").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    for check in [
        "index",
        "environ",
        "dns",
        "cache",
        "error_handling",
        "lifespan",
    ] {
        assert_eq!(shown[check], false, "{check}");
        assert!(shown["reasons"][check].is_string(), "{check}");
    }
    let (_, shown) = node.get("/status/check/fastapi/legacy").await;
    assert!(shown.get("lifespan").is_none() && shown.get("reasons").is_none());
    assert_eq!(node.bench.started(), 1);
}
