//! WebSockets: the past, then what comes into force, by the same filters as lists.

use std::collections::HashSet;

use aleph_message::{Keypair, MessageType};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::support::{Node, PATIENCE, aggregate, amend, post, signed_on};

struct Feed(
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>,
);

impl Feed {
    async fn open(node: &Node, path: &str) -> Self {
        let url = format!("{}{path}", node.url.replace("http", "ws"));
        Self(tokio_tungstenite::connect_async(url).await.unwrap().0)
    }

    async fn next(&mut self) -> Value {
        let text = async {
            loop {
                match self.0.next().await.unwrap().unwrap() {
                    Message::Text(text) => return text,
                    Message::Close(frame) => panic!("closed: {frame:?}"),
                    _ => {}
                }
            }
        };
        let text = tokio::time::timeout(PATIENCE, text).await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    async fn next_hash(&mut self) -> String {
        self.next().await["item_hash"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn the_past_comes_oldest_first_and_the_future_as_it_happens() {
    let node = Node::start().await;
    let key = Keypair::generate();
    let mut hashes = Vec::new();
    for i in 0..12 {
        hashes.push(node.accept(&post(&key, "t", json!(i))).await);
    }
    let mut ten = Feed::open(&node, "/api/ws0/messages").await;
    for hash in &hashes[2..] {
        assert_eq!(ten.next_hash().await, *hash);
    }
    let mut three = Feed::open(&node, "/api/ws0/messages?history=3&contentFormat=none").await;
    let mut none = Feed::open(&node, "/api/ws0/messages?history=0").await;
    // Everything since a moment, however much that is.
    let mut since = Feed::open(&node, "/api/ws0/messages?startDate=1").await;
    for hash in &hashes[9..] {
        let frame = three.next().await;
        assert_eq!(
            (&frame["item_hash"], frame.get("content")),
            (&json!(hash), None)
        );
    }
    for hash in &hashes {
        assert_eq!(since.next_hash().await, *hash);
    }
    let live = node.accept(&post(&key, "t", json!("live"))).await;
    for feed in [&mut ten, &mut three, &mut since] {
        assert_eq!(feed.next_hash().await, live);
    }
    let frame = none.next().await;
    let (_, single) = node.message(&live).await;
    assert_eq!(frame, single["message"]);
    assert!(frame["time"].is_f64() && frame.get("size").is_none());
}

#[tokio::test]
async fn every_filter_holds_for_what_is_live() {
    let node = Node::start().await;
    let key = Keypair::generate();
    let me = key.address();
    let target = node.accept(&post(&key, "base", json!(0))).await;
    let file = aleph_message::ItemHash::of(b"bytes").to_string();
    let queries = [
        "msgType=POST".to_owned(),
        "msgTypes=POST,STORE".into(),
        format!("addresses={me}&contentTypes=amend"),
        format!("owners={me}&tags=x"),
        format!("refs={target}"),
        format!("contentHashes={file}"),
        "contentKeys=k".into(),
        "contentTypes=news".into(),
        "chains=ETH&channels=SPECIAL".into(),
        "tags=x".into(),
        "tags=z".into(),
        "paymentTypes=hold".into(),
        "startDate=5000&endDate=6000".into(),
    ];
    let mut feeds = Vec::new();
    for query in &queries {
        let path = format!("/api/ws0/messages?history=0&{query}");
        feeds.push(Feed::open(&node, &path).await);
    }
    // Twice, so that what a feed should have left out of the first round comes before what it shows of the second.
    for round in 0..2 {
        let tags = |tag: &str| json!({"tags": [tag], "round": round});
        let news = node.accept(&post(&key, "news", tags("x"))).await;
        let change = node.accept(&amend(&key, &target, json!(round))).await;
        let map = node.accept(&aggregate(&key, "k", tags("x"))).await;
        let (store, _) = node.store(&key, b"bytes", json!({"tags": ["z"]})).await;
        let old = json!({"type": "old", "content": round});
        let special = node
            .accept(&signed_on(
                &key,
                MessageType::Post,
                Some("SPECIAL"),
                5500.0,
                old,
            ))
            .await;
        let expected: [Vec<&String>; 13] = [
            vec![&news, &change, &special],
            vec![&news, &change, &store, &special],
            vec![&change],
            vec![&news, &map],
            vec![&change],
            vec![&store],
            vec![&map],
            vec![&news],
            vec![&special],
            vec![&news, &map],
            vec![&store],
            vec![&store],
            vec![&special],
        ];
        for ((feed, query), expected) in feeds.iter_mut().zip(&queries).zip(expected) {
            for hash in expected {
                assert_eq!(feed.next_hash().await, *hash, "{query}");
            }
        }
    }
}

#[tokio::test]
async fn a_query_that_makes_no_sense_opens_no_socket() {
    let node = Node::start().await;
    for query in ["history=200", "history=x", "msgType=GOSSIP", "startDate=x"] {
        let url = format!(
            "{}/api/ws0/messages?{query}",
            node.url.replace("http", "ws")
        );
        let error = tokio_tungstenite::connect_async(url).await.unwrap_err();
        assert!(error.to_string().contains("422"), "{query}: {error}");
    }
}

#[tokio::test]
async fn the_status_feed_begins_with_the_metrics() {
    let node = Node::start().await;
    let key = Keypair::generate();
    node.accept(&post(&key, "t", json!(1))).await;
    let mut listener = Feed::open(&node, "/api/ws0/messages?history=0").await;
    node.accept(&post(&key, "t", json!(2))).await;
    listener.next_hash().await;
    let mut feed = Feed::open(&node, "/api/ws0/status").await;
    let frame = feed.next().await;
    assert_eq!(frame["pyaleph_status_sync_messages_total"], 2);
    assert_eq!(frame["pyaleph_ws_messages_connections_active"], 1);
    assert_eq!(frame["pyaleph_ws_status_connections_active"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_is_dropped_and_everybody_else_gets_everything() {
    /// More than the system keeps for a connection on its own.
    const LARGE: usize = 80;
    /// More than the node keeps for whoever is late.
    const SMALL: usize = 1100;
    let node = Node::start_with("[limits]\nmessages_per_minute = 0\nbytes_per_minute = 0").await;
    let key = Keypair::generate();
    let mut idle = Feed::open(&node, "/api/ws0/messages?history=0").await;
    let mut busy = Feed::open(&node, "/api/ws0/messages?history=0").await;
    let reader = tokio::spawn(async move {
        let mut seen = HashSet::new();
        while seen.len() < LARGE + SMALL {
            assert!(seen.insert(busy.next_hash().await));
        }
        seen
    });
    let text = "x".repeat(150_000);
    let large = (0..LARGE).map(|n| post(&key, "large", json!({"n": n, "text": text})));
    let small = (0..SMALL).map(|n| post(&key, "small", json!({"n": n})));
    let sent: HashSet<String> = futures_util::stream::iter(large.chain(small))
        .map(|message| {
            let node = &node;
            async move { node.accept(&message).await }
        })
        .buffered(8)
        .collect()
        .await;
    assert_eq!(reader.await.unwrap(), sent);

    let mut late = 0;
    loop {
        match tokio::time::timeout(PATIENCE, idle.0.next()).await.unwrap() {
            Some(Ok(Message::Text(_))) => late += 1,
            Some(Ok(Message::Close(frame))) => {
                let frame = frame.unwrap();
                assert_eq!(
                    (u16::from(frame.code), frame.reason.as_str()),
                    (1013, "Too slow")
                );
                break;
            }
            Some(Ok(_)) => {}
            // On a machine so slow that the node gave up telling it.
            Some(Err(_)) | None => break,
        }
    }
    assert!(late < sent.len(), "{late} of {} were kept", sent.len());
}
