//! A core channel node: holds what the test gives it and answers as the real one does.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aleph_message::{Envelope, ItemHash, Keypair, MessageType};
use axum::Router;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::sync::broadcast;

#[derive(Clone)]
pub struct FakeCcn {
    address: SocketAddr,
    held: Arc<Held>,
}

struct Held {
    messages: Mutex<HashMap<String, (String, Value)>>,
    files: Mutex<HashMap<String, Vec<u8>>>,
    aggregates: Mutex<HashMap<(String, String), Value>>,
    balances: Mutex<HashMap<String, u64>>,
    broken: AtomicBool,
    aggregates_read: AtomicUsize,
    asked: Mutex<Vec<String>>,
    stream: broadcast::Sender<String>,
}

impl FakeCcn {
    pub async fn start() -> Self {
        let held = Arc::new(Held {
            messages: Mutex::default(),
            files: Mutex::default(),
            aggregates: Mutex::default(),
            balances: Mutex::default(),
            broken: AtomicBool::new(false),
            aggregates_read: AtomicUsize::new(0),
            asked: Mutex::default(),
            stream: broadcast::channel(16).0,
        });
        let router = Router::new()
            .route("/api/v0/messages/{hash}", get(message))
            .route("/api/v0/messages.json", get(list))
            .route("/api/v0/storage/raw/{hash}", get(raw))
            .route("/api/v0/aggregates/{address}", get(aggregate))
            .route("/api/v0/aggregates", get(aggregates))
            .route("/api/v0/addresses/{address}/balance", get(balance))
            .route("/api/v0/price/{hash}", get(price))
            .route("/api/ws0/messages", get(stream))
            .layer(from_fn_with_state(Arc::clone(&held), note))
            .with_state(Arc::clone(&held));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, held }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has from now on what the other one has.
    pub fn copy(&self, other: &Self) {
        *self.held.messages.lock().unwrap() = other.held.messages.lock().unwrap().clone();
        *self.held.files.lock().unwrap() = other.held.files.lock().unwrap().clone();
        *self.held.aggregates.lock().unwrap() = other.held.aggregates.lock().unwrap().clone();
    }

    /// Signs a message and takes it in as processed.
    pub fn publish(&self, key: &Keypair, message_type: MessageType, content: Value) -> ItemHash {
        let now = time::OffsetDateTime::now_utc().unix_timestamp() as f64;
        let envelope = Envelope::sign(key, message_type, Some("TEST"), now, content).unwrap();
        self.take(&envelope, json!(envelope))
    }

    /// Takes in whatever it is under a message's hash.
    pub fn take(&self, envelope: &Envelope, message: Value) -> ItemHash {
        let entry = ("processed".to_owned(), message.clone());
        self.held
            .messages
            .lock()
            .unwrap()
            .insert(envelope.item_hash.to_string(), entry);
        // What nobody listens to is not lost: the sweep finds it.
        let _ = self.held.stream.send(message.to_string());
        envelope.item_hash.clone()
    }

    /// A file and the STORE message that names it.
    pub fn store(&self, key: &Keypair, bytes: &[u8]) -> ItemHash {
        self.store_as(key, bytes, None)
    }

    pub fn store_as(&self, key: &Keypair, bytes: &[u8], amends: Option<&ItemHash>) -> ItemHash {
        let file = ItemHash::of(bytes);
        self.held
            .files
            .lock()
            .unwrap()
            .insert(file.to_string(), bytes.to_vec());
        let mut content = json!({"item_type": "storage", "item_hash": file});
        if let Some(amends) = amends {
            content["ref"] = json!(amends);
        }
        self.publish(key, MessageType::Store, content)
    }

    pub fn set_status(&self, hash: &ItemHash, status: &str) {
        self.held
            .messages
            .lock()
            .unwrap()
            .get_mut(hash.as_str())
            .unwrap()
            .0 = status.to_owned();
    }

    /// Tells of a message that it has already.
    pub fn tell_again(&self, hash: &ItemHash) {
        let (_, message) = self.message(hash);
        // What nobody listens to is not lost: the sweep finds it.
        let _ = self.held.stream.send(message.to_string());
    }

    /// Ends all streams of messages.
    pub fn hang_up(&self) {
        // Without a listener there is no stream.
        let _ = self.held.stream.send(String::new());
    }

    /// A message and its status, as they are given to whoever asks.
    pub fn message(&self, hash: &ItemHash) -> (String, Value) {
        self.held.messages.lock().unwrap()[hash.as_str()].clone()
    }

    /// Says something else where a message was.
    pub fn set_message(&self, hash: &ItemHash, message: Value) {
        let mut messages = self.held.messages.lock().unwrap();
        messages.get_mut(hash.as_str()).unwrap().1 = message;
    }

    pub fn set_file(&self, file: &ItemHash, bytes: &[u8]) {
        self.held
            .files
            .lock()
            .unwrap()
            .insert(file.to_string(), bytes.to_vec());
    }

    pub fn set_aggregate(&self, address: &str, key: &str, value: Value) {
        self.held
            .aggregates
            .lock()
            .unwrap()
            .insert((address.to_owned(), key.to_owned()), value);
    }

    /// From now on every aggregate is a failure, or not any more.
    pub fn break_aggregates(&self, broken: bool) {
        self.held.broken.store(broken, Ordering::SeqCst);
    }

    /// How often an aggregate was asked for.
    pub fn aggregates_read(&self) -> usize {
        self.held.aggregates_read.load(Ordering::SeqCst)
    }

    /// What has been asked for so far: paths with queries.
    pub fn asked(&self) -> Vec<String> {
        self.held.asked.lock().unwrap().clone()
    }

    pub fn set_credits(&self, address: &str, credits: u64) {
        self.held
            .balances
            .lock()
            .unwrap()
            .insert(address.to_owned(), credits);
    }
}

async fn note(State(held): State<Arc<Held>>, request: Request, next: Next) -> Response {
    held.asked.lock().unwrap().push(request.uri().to_string());
    next.run(request).await
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "404").into_response()
}

async fn message(State(held): State<Arc<Held>>, Path(hash): Path<String>) -> Response {
    match held.messages.lock().unwrap().get(&hash) {
        Some((status, message)) => {
            Json(json!({"status": status, "item_hash": hash, "message": message})).into_response()
        }
        None => not_found(),
    }
}

async fn list(
    State(held): State<Arc<Held>>,
    Query(query): Query<HashMap<String, String>>,
) -> Json<Value> {
    let is = |message: &Value, field: &str, wanted: Option<&String>| {
        let text = message["item_content"].as_str().unwrap_or_default();
        let has = |word: &str| text.contains(&format!("\"{field}\":\"{word}\""));
        wanted.is_none_or(|wanted| wanted.split(',').any(has))
    };
    let among = |wanted: Option<&String>, field: &Value| {
        wanted.is_none_or(|wanted| wanted.split(',').any(|word| field == word))
    };
    let mut found: Vec<Value> = held
        .messages
        .lock()
        .unwrap()
        .values()
        .filter(|(status, message)| {
            matches!(status.as_str(), "processed" | "removing")
                && among(query.get("msgType"), &message["type"])
                && among(query.get("hashes"), &message["item_hash"])
                && is(message, "ref", query.get("refs"))
                && is(message, "address", query.get("owners"))
        })
        .map(|(_, message)| message.clone())
        .collect();
    if query.get("page").is_some_and(|page| page != "1") {
        found.clear();
    }
    found.sort_by(|a, b| {
        b["time"]
            .as_f64()
            .unwrap()
            .total_cmp(&a["time"].as_f64().unwrap())
    });
    Json(json!({ "messages": found }))
}

async fn raw(State(held): State<Arc<Held>>, Path(hash): Path<String>) -> Response {
    match held.files.lock().unwrap().get(&hash) {
        Some(bytes) => bytes.clone().into_response(),
        None => not_found(),
    }
}

async fn aggregate(
    State(held): State<Arc<Held>>,
    Path(address): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    held.aggregates_read.fetch_add(1, Ordering::SeqCst);
    if held.broken.load(Ordering::SeqCst) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let address = address.trim_end_matches(".json").to_owned();
    let key = query["keys"].clone();
    match held
        .aggregates
        .lock()
        .unwrap()
        .get(&(address.clone(), key.clone()))
    {
        Some(value) => {
            Json(json!({"address": address, "data": { key: value }, "info": {}})).into_response()
        }
        None => not_found(),
    }
}

async fn aggregates(
    State(held): State<Arc<Held>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    held.aggregates_read.fetch_add(1, Ordering::SeqCst);
    if held.broken.load(Ordering::SeqCst) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let (key, all) = (&query["keys"], held.aggregates.lock().unwrap());
    let of = |address: &str| {
        let content = all.get(&(address.to_owned(), key.clone()))?;
        Some(json!({"address": address, "key": key, "content": content}))
    };
    let found: Vec<_> = query["addresses"].split(',').filter_map(of).collect();
    Json(json!({ "aggregates": found })).into_response()
}

async fn balance(State(held): State<Arc<Held>>, Path(address): Path<String>) -> Json<Value> {
    let credits = held
        .balances
        .lock()
        .unwrap()
        .get(&address)
        .copied()
        .unwrap_or(0);
    Json(
        json!({"address": address, "balance": 0.0, "locked_amount": 0.0, "credit_balance": credits}),
    )
}

async fn price() -> Json<Value> {
    // 3600 credits an hour.
    Json(json!({"required_tokens": 1.0, "payment_type": "credit", "cost": "1.000000000000000000"}))
}

async fn stream(
    State(held): State<Arc<Held>>,
    Query(query): Query<HashMap<String, String>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let mut messages = held.stream.subscribe();
    let since: f64 = query["startDate"].parse().unwrap();
    let mut past: Vec<Value> = held
        .messages
        .lock()
        .unwrap()
        .values()
        .filter(|(status, message)| {
            status == "processed" && message["time"].as_f64() >= Some(since)
        })
        .map(|(_, message)| message.clone())
        .collect();
    past.sort_by(|a, b| a["time"].as_f64().partial_cmp(&b["time"].as_f64()).unwrap());
    upgrade.on_upgrade(move |mut socket| async move {
        for message in past {
            let frame = Message::Text(message.to_string().into());
            if socket.send(frame).await.is_err() {
                return;
            }
        }
        while let Ok(message) = messages.recv().await {
            // See `hang_up`.
            if message.is_empty() {
                return;
            }
            if socket.send(Message::Text(message.into())).await.is_err() {
                return;
            }
        }
    })
}
