//! Whatever the OpenAPI document allows, asked by schemathesis.

use std::path::Path;
use std::process::Stdio;

use aleph_message::Keypair;
use serde_json::json;

use super::support::{Node, aggregate, forget, post};

/// Different requests to each operation.
const EXAMPLES: &str = "12";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_document_allows_is_answered_as_it_says_and_never_by_a_failure() {
    let node = Node::start_with("[limits]\nmessages_per_minute = 0\nbytes_per_minute = 0").await;
    // Something for lists to show.
    let key = Keypair::generate();
    let gone = node.accept(&post(&key, "t", json!({"tags": ["x"]}))).await;
    node.accept(&post(&key, "t", json!({"tags": ["y"]}))).await;
    node.accept(&aggregate(&key, "k", json!({"a": 1}))).await;
    node.accept(&forget(&key, &[&gone])).await;
    node.store(&key, b"bytes", json!({})).await;

    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schema");
    let work = tempfile::tempdir().unwrap();
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
    let output = tokio::process::Command::new(here.join("run"))
        .current_dir(work.path())
        .args(["run", &format!("{}/api/docs/openapi.json", node.url)])
        .args(["--checks", checks, "--phases", "fuzzing"])
        .args(["--max-examples", EXAMPLES, "--seed", "1", "--workers", "2"])
        .args(["--continue-on-failure", "--no-shrink", "--no-color"])
        .args(["--suppress-health-check", "all", "--warnings", "off"])
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
