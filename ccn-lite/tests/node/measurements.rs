//! What the network's scoring measured at nodes.

use aleph_message::Keypair;
use serde_json::{Value, json};

use super::support::{Node, forget, now, post};

fn measured(entries: Value) -> Value {
    json!({"tags": ["mainnet"], "metrics": entries})
}

#[tokio::test]
async fn measurements_of_the_authority_are_told_by_node_and_column_for_two_weeks() {
    let authority = Keypair::generate();
    let node = Node::start_with(&format!(
        "[authorities]\nscoring = [\"{}\"]",
        authority.address()
    ))
    .await;
    let (core, compute) = ("c".repeat(64), "d".repeat(64));
    let now = now();
    let at = |ago: f64| now - ago;
    let first = measured(json!({
        "ccn": [{"node_id": core, "measured_at": at(200.0), "base_latency": 0.1, "pending_messages": 7},
            {"node_id": core, "measured_at": at(20.0 * 86_400.0), "base_latency": 9.0},
            {"node_id": core, "base_latency": 9.0}, "nonsense"],
        "crn": [{"node_id": compute, "measured_at": at(200.0), "full_check_latency": 1.5, "base_latency": "none"}],
    }));
    let second = measured(json!({
        "ccn": [{"node_id": core, "measured_at": at(100.0), "base_latency": 0.2}]
    }));
    let first = node
        .accept(&post(&authority, "aleph-network-metrics", first))
        .await;
    let second = node
        .accept(&post(&authority, "aleph-network-metrics", second))
        .await;
    // Anybody may say such things, and they are a post like any other.
    let other =
        measured(json!({"ccn": [{"node_id": core, "measured_at": now, "base_latency": 5.0}]}));
    node.accept(&post(&Keypair::generate(), "aleph-network-metrics", other))
        .await;

    let path = format!("/api/v0/core/{core}/metrics");
    let (code, body) = node.get(&path).await;
    let metrics = &body["metrics"];
    assert_eq!(code, 200, "{body}");
    assert_eq!(metrics["item_hash"], json!([first, second]));
    assert_eq!(metrics["measured_at"], json!([at(200.0), at(100.0)]));
    assert_eq!(metrics["base_latency"], json!([0.1, 0.2]));
    assert_eq!(metrics["pending_messages"], json!([7, null]));
    let (_, newest) = node.get(&format!("{path}?sort=DESC")).await;
    assert_eq!(newest["metrics"]["item_hash"], json!([second, first]));
    let (_, late) = node.get(&format!("{path}?start_date={}", at(150.0))).await;
    assert_eq!(late["metrics"]["item_hash"], json!([second]));

    let (_, body) = node
        .get(&format!("/api/v0/compute/{compute}/metrics"))
        .await;
    assert_eq!(body["metrics"]["full_check_latency"], json!([1.5]));
    assert_eq!(body["metrics"]["base_latency"], json!([null]));
    assert_eq!(
        node.get(&format!("/api/v0/compute/{core}/metrics")).await.0,
        404
    );
    assert_eq!(node.get(&format!("{path}?sort=up")).await.0, 422);

    node.accept(&forget(&authority, &[&first])).await;
    let (_, body) = node.get(&path).await;
    assert_eq!(body["metrics"]["item_hash"], json!([second]));
}
