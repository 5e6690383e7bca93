//! A node in this process, and a client of it.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod money;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aleph_message::{Envelope, Keypair, MessageType};
use axum::body::Body;
use axum::http::Request;
use ccn_lite::config::Config;
use ccn_lite::outbound::Client;
use ccn_lite::serve::Server;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(60);
const MAX_ANSWER: usize = 64 << 20;

/// Seconds since the Unix epoch.
pub fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

/// A running node with a directory of its own.
pub struct Ccn {
    pub url: String,
    pub dir: TempDir,
    client: Client,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
    more: String,
}

impl Ccn {
    /// Starts a node; `more` is added to its configuration.
    pub async fn start(more: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), more).await
    }

    /// Starts a node on what stands in `state` of a directory.
    pub async fn start_in(dir: TempDir, more: &str) -> Self {
        let mut ccn = Self {
            url: String::new(),
            dir,
            client: Client::default(),
            stop: None,
            running: None,
            more: more.to_owned(),
        };
        ccn.run().await;
        ccn
    }

    /// A client of a node that somebody else runs.
    pub fn elsewhere(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            dir: tempfile::tempdir().unwrap(),
            client: Client::default(),
            stop: None,
            running: None,
            more: String::new(),
        }
    }

    /// Waits until the node answers.
    pub async fn until_it_serves(&self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self
            .client
            .get(&format!("{}/version", self.url), MAX_ANSWER, PATIENCE)
            .await
            .is_err()
        {
            assert!(
                tokio::time::Instant::now() < deadline,
                "the node does not serve"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn run(&mut self) {
        let text = format!(
            "listen = \"127.0.0.1:0\"\ndata_dir = {:?}\n{}",
            self.state(),
            self.more
        );
        let file = self.dir.path().join("ccn-lite.toml");
        std::fs::write(&file, text).unwrap();
        let config = Config::load(&file).unwrap();
        let server = Server::bind(config).await.unwrap();
        self.url = format!("http://{}", server.local_addr().unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        self.stop = Some(stop);
        self.running = Some(tokio::spawn(async move {
            server.run(stopped).await.unwrap();
        }));
    }

    /// Starts the node again on the same data with something else in its configuration.
    pub async fn reconfigure(&mut self, more: &str) {
        self.more = more.to_owned();
        self.restart().await;
    }

    /// Stops the node and starts it again on the same data.
    pub async fn restart(&mut self) {
        self.client = Client::default();
        drop(self.stop.take());
        self.running.take().unwrap().await.unwrap();
        // The last of its tasks lets go of the directory a moment later.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while std::fs::File::open(self.state().join("lock")).is_ok_and(|lock| {
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
        }) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "the node does not stop"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.run().await;
    }

    /// The data directory.
    pub fn state(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }

    /// The configuration file.
    pub fn config(&self) -> std::path::PathBuf {
        self.dir.path().join("ccn-lite.toml")
    }

    /// Status and JSON (or text) of an answer.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self
            .client
            .get(&format!("{}{path}", self.url), MAX_ANSWER, PATIENCE)
            .await
            .unwrap();
        (answer.status.as_u16(), body(&answer.body))
    }

    /// The JSON of an answer that must be 200.
    pub async fn ok(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// The bytes of an answer that must be 200.
    pub async fn bytes(&self, path: &str) -> Vec<u8> {
        let answer = self
            .client
            .get(&format!("{}{path}", self.url), MAX_ANSWER, PATIENCE)
            .await
            .unwrap();
        assert_eq!(answer.status.as_u16(), 200, "{path}");
        answer.body.to_vec()
    }

    pub async fn post_json(&self, path: &str, value: &Value) -> (u16, Value) {
        self.try_post(path, value).await.expect("the node is gone")
    }

    /// The answer to JSON, or none when the node is gone.
    pub async fn try_post(&self, path: &str, value: &Value) -> Option<(u16, Value)> {
        let request = Request::post(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .body(Body::from(value.to_string()))
            .unwrap();
        self.send(request).await
    }

    async fn send(&self, request: Request<Body>) -> Option<(u16, Value)> {
        let answer = self
            .client
            .send(request, MAX_ANSWER, Some(PATIENCE))
            .await
            .ok()?;
        Some((answer.status.as_u16(), body(&answer.body)))
    }

    /// Publishes a message and waits for what becomes of it.
    pub async fn publish(&self, message: &Envelope) -> (u16, Value) {
        let body = json!({"sync": true, "message": message});
        self.post_json("/api/v0/messages", &body).await
    }

    /// Signs and publishes a message that must be taken; returns its hash.
    pub async fn take(&self, message: &Envelope) -> String {
        let (status, body) = self.publish(message).await;
        assert_eq!(status, 200, "{body}");
        message.item_hash.to_string()
    }

    /// Uploads a file with its STORE message that must be taken; returns the message's hash.
    pub async fn store(&self, key: &Keypair, bytes: &[u8], payment: &str, time: f64) -> String {
        let file = aleph_message::ItemHash::of(bytes);
        let content =
            json!({"item_type": "storage", "item_hash": file, "payment": {"type": payment}});
        let message = Envelope::sign(key, MessageType::Store, None, time, content).unwrap();
        let (status, body) = self.upload(bytes, &message).await;
        assert_eq!(status, 200, "{body}");
        message.item_hash.to_string()
    }

    pub async fn upload(&self, bytes: &[u8], message: &Envelope) -> (u16, Value) {
        self.try_upload(bytes, message)
            .await
            .expect("the node is gone")
    }

    /// The answer to an upload, or none when the node is gone.
    pub async fn try_upload(&self, bytes: &[u8], message: &Envelope) -> Option<(u16, Value)> {
        let metadata = json!({"message": message, "sync": true});
        let mut form = Vec::new();
        form.extend_from_slice(
            format!(
                "--b\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n{metadata}\r\n"
            )
            .as_bytes(),
        );
        form.extend_from_slice(
            b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n",
        );
        form.extend_from_slice(bytes);
        form.extend_from_slice(b"\r\n--b--\r\n");
        let request = Request::post(format!("{}/api/v0/storage/add_file", self.url))
            .header("content-type", "multipart/form-data; boundary=b")
            .body(Body::from(form))
            .unwrap();
        self.send(request).await
    }

    /// The status of a message.
    pub async fn status(&self, hash: &str) -> String {
        let body = self.ok(&format!("/api/v0/messages/{hash}/status")).await;
        body["status"].as_str().unwrap().to_owned()
    }

    /// Waits until a message has a status.
    pub async fn until_status(&self, hash: &str, status: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.status(hash).await != status {
            assert!(
                tokio::time::Instant::now() < deadline,
                "{hash} is {}, not {status}",
                self.status(hash).await
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn body(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}

/// A signed POST.
pub fn post(
    key: &Keypair,
    kind: &str,
    channel: Option<&str>,
    time: f64,
    content: Value,
) -> Envelope {
    let content = json!({"type": kind, "content": content});
    Envelope::sign(key, MessageType::Post, channel, time, content).unwrap()
}

/// Runs the program with arguments; standard output and whether it succeeded.
pub fn program(arguments: &[&Path]) -> (bool, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_ccn-lite"))
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}
