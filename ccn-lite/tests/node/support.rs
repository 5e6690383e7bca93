//! A node, and the messages to send to it.

use std::time::Duration;

use aleph_message::{Envelope, ItemHash, Keypair, MessageType};
use axum::body::Body;
use ccn_lite::config::Config;
use ccn_lite::outbound::{Answer, Client};
use ccn_lite::serve::Server;
use http::{Method, Request};
use serde_json::{Value, json};

/// How long anything may take: long enough never to decide a test by itself.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A node that is stopped when dropped.
pub struct Node {
    pub url: String,
    client: Client,
    _stop: tokio::sync::oneshot::Sender<()>,
    _dir: tempfile::TempDir,
}

impl Node {
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// With more lines of configuration.
    pub async fn start_with(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ccn-lite.toml");
        let text = format!(
            "listen = \"127.0.0.1:0\"\ndata_dir = {:?}\n{more}\n[scheduler]\nenabled = false\n\
             [cutoffs]\nhold_and_stream = 4102444800\ncredit_only = 4102444800\n",
            dir.path().join("data")
        );
        std::fs::write(&file, text).unwrap();
        let server = Server::bind(Config::load(&file).unwrap()).await.unwrap();
        let url = format!("http://{}", server.local_addr().unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        tokio::spawn(async move { server.run(stopped).await.unwrap() });
        Self {
            url,
            client: Client::default(),
            _stop: stop,
            _dir: dir,
        }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        self.client
            .send(request, 1 << 28, Some(PATIENCE))
            .await
            .unwrap()
    }

    /// A request without body.
    pub async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// Status and JSON; text that is no JSON comes as a JSON text.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        read(&self.ask(Method::GET, path, &[]).await)
    }

    pub async fn post_json(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = Request::post(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        read(&self.send(request).await)
    }

    pub async fn publish(&self, message: &Value) -> (u16, Value) {
        let body = json!({"sync": true, "message": message});
        self.post_json("/api/v0/messages", &body).await
    }

    /// Publishes and expects it to be in force; its hash.
    pub async fn accept(&self, message: &Value) -> String {
        let (code, body) = self.publish(message).await;
        assert_eq!(
            (code, &body["message_status"]),
            (200, &json!("processed")),
            "{body}"
        );
        hash_of(message)
    }

    /// Publishes and expects it to be refused; the error code.
    pub async fn refuse(&self, message: &Value) -> i64 {
        let (code, body) = self.publish(message).await;
        assert_eq!(
            (code, &body["message_status"]),
            (422, &json!("rejected")),
            "{body}"
        );
        let (code, stored) = self.message(&hash_of(message)).await;
        assert_eq!(
            (code, &stored["error_code"]),
            (200, &body["error_code"]),
            "{stored}"
        );
        body["error_code"].as_i64().unwrap()
    }

    /// Publishes and expects it to wait; what is known about it.
    pub async fn delay(&self, message: &Value) -> Value {
        let (code, body) = self.publish(message).await;
        assert_eq!(
            (code, &body["message_status"]),
            (202, &json!("pending")),
            "{body}"
        );
        self.message(&hash_of(message)).await.1
    }

    pub async fn message(&self, hash: &str) -> (u16, Value) {
        self.get(&format!("/api/v0/messages/{hash}")).await
    }

    /// Waits until the message has this status.
    pub async fn until(&self, hash: &str, status: &str) -> Value {
        let reached = async {
            loop {
                let (_, body) = self.message(hash).await;
                if body["status"] == status {
                    return body;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached)
            .await
            .unwrap_or_else(|_| panic!("{hash} does not become {status}"))
    }

    /// Uploads a form of named parts.
    pub async fn upload(&self, path: &str, parts: &[(&str, &[u8])]) -> (u16, Value) {
        const BOUNDARY: &str = "----ccn-lite-test";
        let mut body = Vec::new();
        for (name, bytes) in parts {
            let file = if *name == "file" {
                "; filename=\"f.bin\""
            } else {
                ""
            };
            body.extend(
                format!(
                    "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n"
                )
                .bytes(),
            );
            body.extend(*bytes);
            body.extend(b"\r\n");
        }
        body.extend(format!("--{BOUNDARY}--\r\n").bytes());
        let request = Request::post(format!("{}{path}", self.url))
            .header(
                "content-type",
                format!("multipart/form-data; boundary={BOUNDARY}"),
            )
            .body(Body::from(body))
            .unwrap();
        read(&self.send(request).await)
    }

    /// Keeps a file and publishes a STORE message about it; the message's hash and the file's.
    pub async fn store(&self, key: &Keypair, bytes: &[u8], more: Value) -> (String, String) {
        let file = ItemHash::of(bytes).to_string();
        let mut content = json!({"item_type": "storage", "item_hash": file});
        content
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let message = signed(key, MessageType::Store, content);
        let metadata = json!({"message": message, "sync": true}).to_string();
        let parts: [(&str, &[u8]); 2] = [("metadata", metadata.as_bytes()), ("file", bytes)];
        let (code, body) = self.upload("/api/v0/storage/add_file", &parts).await;
        assert_eq!((code, &body["hash"]), (200, &json!(file)), "{body}");
        (hash_of(&message), file)
    }
}

fn read(answer: &Answer) -> (u16, Value) {
    let body = serde_json::from_slice(&answer.body)
        .unwrap_or_else(|_| String::from_utf8_lossy(&answer.body).into());
    (answer.status.as_u16(), body)
}

pub fn now() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs_f64()
}

pub fn hash_of(message: &Value) -> String {
    message["item_hash"].as_str().unwrap().to_owned()
}

/// A message on channel TEST.
pub fn signed(key: &Keypair, kind: MessageType, content: Value) -> Value {
    signed_on(key, kind, Some("TEST"), now(), content)
}

pub fn signed_on(
    key: &Keypair,
    kind: MessageType,
    channel: Option<&str>,
    time: f64,
    content: Value,
) -> Value {
    serde_json::to_value(Envelope::sign(key, kind, channel, time, content).unwrap()).unwrap()
}

/// A message whose content is the file `hash`.
pub fn signed_about(key: &Keypair, kind: MessageType, hash: &str) -> Value {
    let sender = key.address();
    let buffer = format!("ETH\n{sender}\n{kind}\n{hash}");
    json!({"sender": sender, "chain": "ETH", "type": kind, "item_type": "storage", "item_hash": hash,
        "time": now(), "channel": "TEST", "signature": key.sign_eip191(buffer.as_bytes()).unwrap()})
}

pub fn post(key: &Keypair, kind: &str, content: Value) -> Value {
    signed(
        key,
        MessageType::Post,
        json!({"type": kind, "content": content}),
    )
}

pub fn amend(key: &Keypair, of: &str, content: Value) -> Value {
    signed(
        key,
        MessageType::Post,
        json!({"type": "amend", "ref": of, "content": content}),
    )
}

pub fn aggregate(key: &Keypair, name: &str, content: Value) -> Value {
    signed(
        key,
        MessageType::Aggregate,
        json!({"key": name, "content": content}),
    )
}

pub fn forget(key: &Keypair, hashes: &[&str]) -> Value {
    signed(
        key,
        MessageType::Forget,
        json!({"hashes": hashes, "reason": "test"}),
    )
}
