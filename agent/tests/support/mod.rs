//! A node in one process: real ledger, real HTTP, real messages and signatures; a core channel node that says what the
//! test lets it say, and a host that records what it is asked to do instead of doing it.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "each test file uses its part"
)]

mod bench;
mod ccn;
pub mod line;
pub mod wallet;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aleph_message::{ItemHash, Keypair, allocation};
use axum::body::Body;
use bytes::Bytes;
use crn_agent::api::Drain;
use crn_agent::auth::operator::OperatorToken;
use crn_agent::config::{Config, Trust};
use crn_agent::content::Cache;
use crn_agent::content::raw::Converter;
use crn_agent::intake::Intake;
use crn_agent::intake::ccns::Ccns;
use crn_agent::intake::watch::{SWEEP, Watch};
use crn_agent::intake::workload::Facts;
use crn_agent::ledger::{Ledger, Record, State};
use crn_agent::logs::Logs;
use crn_agent::metrics::Processor;
use crn_agent::reconcile::Reconciler;
use crn_agent::reconcile::host::Hypervisor;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

pub use bench::Bench;
pub use ccn::FakeCcn;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// The superblock of an empty squashfs, and something that tells it from others.
pub fn squashfs(label: &str) -> Vec<u8> {
    let mut image = vec![0; 96];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"hsqs");
    put(4, &1u32.to_le_bytes());
    put(12, &131_072u32.to_le_bytes());
    put(20, &6u16.to_le_bytes());
    put(22, &17u16.to_le_bytes());
    put(26, &1u16.to_le_bytes());
    put(28, &4u16.to_le_bytes());
    // The tables, each a few bytes behind the one before.
    for (at, start) in [
        (64, 96u64),
        (72, 104),
        (80, u64::MAX),
        (88, u64::MAX),
        (48, 112),
        (56, u64::MAX),
    ] {
        put(at, &start.to_le_bytes());
    }
    put(40, &128u64.to_le_bytes());
    image.resize(128, 0);
    image.extend(label.bytes());
    image
}

/// A client's end of a WebSocket.
pub struct Socket(pub WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub async fn frame(&mut self) -> Message {
        let frame = tokio::time::timeout(PATIENCE, self.0.next()).await;
        frame.expect("no frame came").unwrap().unwrap()
    }

    pub async fn json(&mut self) -> Value {
        serde_json::from_str(self.frame().await.to_text().unwrap()).unwrap()
    }
}

/// A running node.
pub struct Node {
    pub address: SocketAddr,
    pub ccn: FakeCcn,
    pub bench: Arc<Bench>,
    pub ledger: Ledger,
    pub reconciler: Reconciler,
    pub drain: Arc<Drain>,
    pub watch: Watch,
    pub scheduler: Keypair,
    pub dir: Arc<TempDir>,
}

impl Node {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        Self::start_in(dir, FakeCcn::start().await, Keypair::generate(), change).await
    }

    /// One that believes what two of three core channel nodes say; the first is its own.
    pub async fn start_among(others: &[FakeCcn; 2]) -> Self {
        let urls = others.iter().map(FakeCcn::url).collect();
        Self::start_with(|config| config.trust.ccns = urls).await
    }

    /// The same node's next agent, over the same disk.
    pub async fn restarted(&self) -> Self {
        self.restarted_with(|_| {}).await
    }

    /// The same with another configuration.
    pub async fn restarted_with(&self, change: impl FnOnce(&mut Config)) -> Self {
        let node = Self::start_in(
            Arc::clone(&self.dir),
            self.ccn.clone(),
            self.scheduler.clone(),
            change,
        );
        node.await
    }

    async fn start_in(
        dir: Arc<TempDir>,
        ccn: FakeCcn,
        scheduler: Keypair,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = Config {
            domain: "127.0.0.1".to_owned(),
            ccn: ccn.url(),
            state_dir: dir.path().join("state"),
            run_dir: dir.path().join("run"),
            trust: Trust {
                allocation_signers: vec![scheduler.address()],
                ..Trust::default()
            },
            ..Config::default()
        };
        config.node.hash = Some("c".repeat(64));
        config.limits.host_memory_mib = 0;
        config.limits.host_disk_mib = 0;
        change(&mut config);
        let config = Arc::new(config);
        std::fs::create_dir_all(config.state_dir.join("vm")).unwrap();
        let ledger = Ledger::open(&config.state_dir.join("agent.sqlite")).unwrap();
        let client = Ccns::new(config.ccns(), config.trust.quorum);
        let converter = Converter {
            program: config.converter.clone(),
            max_bytes: 1 << 30,
        };
        let directory = config.state_dir.join("cache");
        let cache = Cache::open(&directory, client.clone(), converter, 1 << 30).unwrap();
        let processor = Processor {
            vendor: "AuthenticAMD".to_owned(),
            features: vec!["avx2".to_owned()],
        };
        let intake = Intake::new(client, cache, Facts::new(&config, processor));
        let bench = Arc::new(Bench::new(&config));
        let host: Arc<dyn Hypervisor> = Arc::clone(&bench) as _;
        let reconciler = Reconciler::start(
            Arc::clone(&config),
            ledger.clone(),
            intake.clone(),
            Arc::clone(&host),
            Logs::start(&config.state_dir.join("vm"), config.limits.log_bytes).unwrap(),
        )
        .await
        .unwrap();
        let watch = Watch {
            intake: intake.clone(),
            ledger: ledger.clone(),
            reconciler: reconciler.clone(),
            sweep: SWEEP,
        };
        watch.clone().start();
        let operator = OperatorToken::open(&config.state_dir).unwrap();
        let app = crn_agent::api::Shared::new(
            config,
            ledger.clone(),
            intake,
            reconciler.clone(),
            host,
            None,
            operator,
        );
        let drain = Arc::clone(&app.drain);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service =
            crn_agent::api::router(app).into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self {
            address,
            ccn,
            bench,
            ledger,
            reconciler,
            drain,
            watch,
            scheduler,
            dir,
        }
    }

    pub async fn send(&self, mut request: Request<Body>) -> Response<Bytes> {
        let path = request.uri().path_and_query().unwrap().to_string();
        *request.uri_mut() = format!("http://{}{path}", self.address).parse().unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let (head, body) = client.request(request).await.unwrap().into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = self
            .send(Request::get(path).body(Body::empty()).unwrap())
            .await;
        (
            response.status(),
            serde_json::from_slice(response.body()).unwrap_or(Value::Null),
        )
    }

    /// A signed push of exactly these hashes.
    pub async fn push(&self, instances: &[&ItemHash]) -> (StatusCode, Value) {
        let body = serde_json::json!({ "instances": instances }).to_string();
        let now = OffsetDateTime::now_utc().unix_timestamp();
        self.push_signed(&self.scheduler, &body, &body, now).await
    }

    pub async fn push_signed(
        &self,
        key: &Keypair,
        signed: &str,
        sent: &str,
        at: i64,
    ) -> (StatusCode, Value) {
        let path = "/control/allocations";
        let header = allocation::authorization(key, "POST", path, signed.as_bytes(), at).unwrap();
        let request = Request::post(path)
            .header("Authorization", header)
            .body(Body::from(sent.to_owned()))
            .unwrap();
        let response = self.send(request).await;
        (
            response.status(),
            serde_json::from_slice(response.body()).unwrap(),
        )
    }

    pub async fn post_json(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let response = self
            .send(
                Request::post(path)
                    .body(Body::from(body.to_string()))
                    .unwrap(),
            )
            .await;
        (
            response.status(),
            serde_json::from_slice(response.body()).unwrap_or(Value::Null),
        )
    }

    /// A call signed by an owner's wallet.
    pub async fn call(&self, owner: &Keypair, method: &str, path: &str) -> (StatusCode, String) {
        self.call_with(owner, method, path, String::new()).await
    }

    /// The same with a body.
    pub async fn call_with(
        &self,
        owner: &Keypair,
        method: &str,
        path: &str,
        body: String,
    ) -> (StatusCode, String) {
        // The query is not signed.
        let signed = path.split('?').next().unwrap();
        let headers = wallet::headers(owner, method, signed);
        self.call_signed(headers, method, path, body).await
    }

    /// The same with these headers.
    pub async fn call_signed(
        &self,
        (pubkey, operation): (Value, Value),
        method: &str,
        path: &str,
        body: String,
    ) -> (StatusCode, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("X-SignedPubKey", pubkey.to_string())
            .header("X-SignedOperation", operation.to_string())
            .body(Body::from(body))
            .unwrap();
        let response = self.send(request).await;
        (
            response.status(),
            String::from_utf8(response.body().to_vec()).unwrap(),
        )
    }

    /// A signed GET whose answer goes on: its status and the rest.
    pub async fn open(&self, owner: &Keypair, path: &str) -> (StatusCode, hyper::body::Incoming) {
        let signed = path.split('?').next().unwrap();
        let (pubkey, operation) = wallet::headers(owner, "GET", signed);
        let request = Request::get(format!("http://{}{path}", self.address))
            .header("X-SignedPubKey", pubkey.to_string())
            .header("X-SignedOperation", operation.to_string())
            .body(Body::empty())
            .unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.unwrap();
        (response.status(), response.into_body())
    }

    /// A WebSocket on a machine, with the owner's first frame sent.
    pub async fn connect(&self, owner: &Keypair, path: &str) -> Socket {
        let signed = path.split('?').next().unwrap();
        let (pubkey, operation) = wallet::headers(owner, "GET", signed);
        let frame = serde_json::json!({
            "auth": {"X-SignedPubKey": pubkey, "X-SignedOperation": operation},
        });
        let url = format!("ws://{}{path}", self.address);
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let frame = Message::text(frame.to_string());
        socket.send(frame).await.unwrap();
        Socket(socket)
    }

    /// The operator's token.
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("state/operator.token")).unwrap()
    }

    /// A call of the operator's.
    pub async fn operate(&self, method: &str, path: &str) -> (StatusCode, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Authorization", format!("Bearer {}", self.token()))
            .body(Body::empty())
            .unwrap();
        let response = self.send(request).await;
        let body = String::from_utf8(response.body().to_vec()).unwrap();
        (response.status(), body)
    }

    pub async fn record(&self, hash: &ItemHash) -> Record {
        self.ledger.get(hash).await.unwrap().unwrap()
    }

    /// Waits until the ledger says so.
    pub async fn until(
        &self,
        hash: &ItemHash,
        what: &str,
        holds: impl Fn(&State) -> bool,
    ) -> Record {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(record) = self.ledger.get(hash).await.unwrap() {
                if holds(&record.state) {
                    return record;
                }
                assert!(
                    tokio::time::Instant::now() < deadline,
                    "never {what}: {:?}",
                    record.state
                );
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "never {what}: unknown"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn until_running(&self, hash: &ItemHash) -> Record {
        self.until(hash, "running", |state| *state == State::Running)
            .await
    }
}
