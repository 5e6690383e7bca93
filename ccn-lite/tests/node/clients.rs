//! Published clients, unmodified, against a node.

use std::path::Path;
use std::process::Stdio;

use aleph_message::Keypair;

use super::support::Node;

/// Runs a program of `tests/clients` with a node's URL and the key of an account that can pay.
async fn run(program: &str, arguments: &[&str]) {
    let key = Keypair::generate();
    let address = key.address();
    let node = Node::start_with(&format!(
        "[[genesis.balances]]\naddress = \"{address}\"\namount = \"1000000\"\n\
         [[genesis.credits]]\naddress = \"{address}\"\namount = 1000000000000"
    ))
    .await;
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let output = tokio::process::Command::new(here.join(program))
        .current_dir(&here)
        .args(arguments)
        .args([&node.url, &key.to_secret_hex()])
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

#[tokio::test]
async fn the_published_python_client_works_through_all_it_does() {
    run("python", &["flows.py"]).await;
}

#[tokio::test]
async fn the_published_typescript_client_works_through_all_it_does() {
    run("typescript/run", &[]).await;
}

#[tokio::test]
async fn the_published_rust_client_works_through_all_it_does() {
    run("rust/run", &[]).await;
}
