//! Nodes that lie, stall, cut and flap, on real sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aleph_message::ItemHash;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::StreamExt as _;
use proptest::prelude::*;

use super::*;
use crate::intake::ccns::Ccns;

const LENGTH: usize = 300_000;
/// What a node sends at once.
const PIECE: usize = 16 * 1024;

/// How a node answers one request.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// What was asked for.
    Good,
    /// The whole file, whatever was asked for.
    Whole,
    /// Breaks off after so many bytes.
    Cut(usize),
    /// The whole file, and breaks off after so many bytes.
    CutWhole(usize),
    /// Other bytes, of the right length.
    Lie,
    /// Ends early as if that were all.
    Short,
    /// Stands still after so many bytes.
    Stall(usize),
    /// A byte now and then.
    Drip,
    /// More than anybody takes.
    Huge,
    /// Another part than was asked for.
    Elsewhere,
    Missing,
    Failure,
}

struct Node {
    url: String,
    requests: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
}

fn content() -> Vec<u8> {
    (0..LENGTH).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// A node that answers one request after the other as told, and from then on as told last.
async fn node(manners: &[Manner]) -> Node {
    let manners = manners.to_vec();
    let (requests, sent) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (counter, bytes) = (Arc::clone(&requests), Arc::clone(&sent));
    let handler = move |headers: HeaderMap| {
        let count = counter.fetch_add(1, Ordering::SeqCst);
        let manner = manners[count.min(manners.len() - 1)];
        let answer = answer(manner, &headers, Arc::clone(&bytes));
        async move { answer }
    };
    let router = Router::new().route("/api/v0/storage/raw/{hash}", get(handler));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Node {
        url,
        requests,
        sent,
    }
}

fn answer(manner: Manner, headers: &HeaderMap, sent: Arc<AtomicUsize>) -> Response {
    let start = headers.get(header::RANGE).and_then(|range| {
        let text = range.to_str().ok()?;
        text.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    });
    let whole = matches!(manner, Manner::Whole | Manner::CutWhole(_));
    let start = if whole { 0 } else { start.unwrap_or(0usize) };
    let mut data = content();
    match manner {
        Manner::Missing => return StatusCode::NOT_FOUND.into_response(),
        Manner::Failure => return StatusCode::BAD_GATEWAY.into_response(),
        Manner::Lie => data.iter_mut().for_each(|byte| *byte ^= 1),
        Manner::Short => data.truncate(LENGTH / 2),
        Manner::Huge => data.resize(LENGTH * 8, 0),
        _ => {}
    }
    if start >= data.len() {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    }
    let said = if matches!(manner, Manner::Elsewhere) {
        start + 5
    } else {
        start
    };
    let rest = data.split_off(start);
    let total = start + rest.len();
    let length = rest.len();
    let (until, then): (usize, Option<bool>) = match manner {
        Manner::Cut(bytes) | Manner::CutWhole(bytes) => (bytes.min(length), Some(false)),
        Manner::Stall(bytes) => (bytes.min(length), Some(true)),
        _ => (length, None),
    };
    let piece = if matches!(manner, Manner::Drip) {
        1
    } else {
        PIECE
    };
    let pieces: Vec<Vec<u8>> = rest[..until].chunks(piece).map(<[u8]>::to_vec).collect();
    let good = futures_util::stream::iter(pieces).then(move |piece| {
        let sent = Arc::clone(&sent);
        async move {
            if piece.len() == 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            sent.fetch_add(piece.len(), Ordering::SeqCst);
            Ok(piece)
        }
    });
    let end = futures_util::stream::iter(then).then(|stall| async move {
        // What was sent is on its way before the connection goes.
        tokio::time::sleep(Duration::from_millis(30)).await;
        if stall {
            std::future::pending::<()>().await;
        }
        Err::<Vec<u8>, _>(io::Error::other("cut"))
    });
    let status = if start > 0 || said > 0 {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    let range = format!("bytes {said}-{}/{total}", total - 1);
    let headers = [
        (header::CONTENT_LENGTH, length.to_string()),
        (header::CONTENT_RANGE, range),
    ];
    (status, headers, Body::from_stream(good.chain(end))).into_response()
}

fn limits() -> Limits {
    Limits {
        bytes: 2 * LENGTH as u64,
        stall: Duration::from_millis(500),
        backoff: Duration::from_millis(1),
    }
}

/// Downloads into `dir`; what came has been verified, and once more here.
async fn fetch(dir: &Path, nodes: &[&Node]) -> Result<u64, ContentError> {
    let ccns = Ccns::new(nodes.iter().map(|node| node.url.as_str()), None);
    let hash = ItemHash::of(&content()).to_string();
    let partial = dir.join("partial");
    std::fs::create_dir_all(&partial).unwrap();
    let target = dir.join(&hash);
    let download = Download::open(&hash, ccns.nodes(), &partial, limits()).await?;
    let result = download.run(&target, dir).await;
    assert_eq!(result.is_ok(), target.exists());
    if result.is_ok() {
        assert!(std::fs::read(target).unwrap() == content(), "other bytes");
        assert_eq!(std::fs::read_dir(partial).unwrap().count(), 0);
    }
    result
}

fn sent(node: &Node) -> usize {
    node.sent.load(Ordering::SeqCst)
}

/// P12: there was no resumption.
#[tokio::test]
async fn a_node_that_cuts_every_connection_is_resumed_and_sends_each_byte_once() {
    let dir = tempfile::tempdir().unwrap();
    let cutting = node(&[Manner::Cut(70_000)]).await;
    assert_eq!(fetch(dir.path(), &[&cutting]).await.unwrap(), LENGTH as u64);
    assert_eq!(cutting.requests.load(Ordering::SeqCst), 5);
    assert_eq!(sent(&cutting), LENGTH);
}

#[tokio::test]
async fn one_node_goes_on_where_another_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let first = node(&[Manner::Cut(100_000), Manner::Failure]).await;
    let second = node(&[Manner::Good]).await;
    fetch(dir.path(), &[&first, &second]).await.unwrap();
    assert_eq!((sent(&first), sent(&second)), (100_000, 200_000));
}

#[tokio::test]
async fn a_node_that_cannot_begin_in_the_middle_is_used_too() {
    let dir = tempfile::tempdir().unwrap();
    let simple = node(&[
        Manner::CutWhole(120_000),
        Manner::CutWhole(200_000),
        Manner::Whole,
    ])
    .await;
    fetch(dir.path(), &[&simple]).await.unwrap();
    assert_eq!(simple.requests.load(Ordering::SeqCst), 3);
}

/// S3, R10: content is verified, and a bad copy blocks nothing.
#[tokio::test]
async fn nothing_that_one_node_does_keeps_the_file_of_another_away() {
    for manner in [
        Manner::Lie,
        Manner::Short,
        Manner::Cut(100),
        Manner::Cut(0),
        Manner::CutWhole(100),
        Manner::Stall(0),
        Manner::Stall(100_000),
        Manner::Drip,
        Manner::Huge,
        Manner::Elsewhere,
        Manner::Missing,
        Manner::Failure,
    ] {
        for bad_first in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let (bad, good) = (node(&[manner]).await, node(&[Manner::Good]).await);
            let nodes = if bad_first {
                [&bad, &good]
            } else {
                [&good, &bad]
            };
            let result = fetch(dir.path(), &nodes).await;
            assert!(result.is_ok(), "{manner:?}, first: {bad_first}: {result:?}");
        }
    }
}

#[tokio::test]
async fn a_node_that_is_not_there_keeps_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut dead = node(&[Manner::Good]).await;
    dead.url = "http://127.0.0.1:1".to_owned();
    let good = node(&[Manner::Good]).await;
    fetch(dir.path(), &[&dead, &good]).await.unwrap();
}

/// Each alone would do; mixed they never are the file.
#[tokio::test]
async fn a_liar_between_two_honest_nodes_that_flap_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let flapping = [Manner::Cut(90_000), Manner::Failure, Manner::Cut(90_000)];
    let (one, two) = (node(&flapping).await, node(&flapping).await);
    let liar = node(&[Manner::Cut(10_000), Manner::Lie]).await;
    fetch(dir.path(), &[&one, &liar, &two]).await.unwrap();
}

#[tokio::test]
async fn what_an_earlier_agent_left_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let hash = ItemHash::of(&content()).to_string();
    std::fs::create_dir(dir.path().join("partial")).unwrap();
    let left = dir.path().join("partial").join(&hash);
    std::fs::write(&left, &content()[..200_000]).unwrap();
    let good = node(&[Manner::Good]).await;
    fetch(dir.path(), &[&good]).await.unwrap();
    assert_eq!(sent(&good), 100_000);
}

/// A power cut may leave any bytes, and any number of them.
#[tokio::test]
async fn what_a_power_cut_left_of_it_is_found_out() {
    let hash = ItemHash::of(&content()).to_string();
    for left in [
        vec![0; 1000],
        vec![0; LENGTH],
        vec![0; LENGTH + 1],
        vec![0; LENGTH * 3],
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("partial")).unwrap();
        std::fs::write(dir.path().join("partial").join(&hash), &left).unwrap();
        let good = node(&[Manner::Good]).await;
        let result = fetch(dir.path(), &[&good]).await;
        assert!(result.is_ok(), "{} bytes: {result:?}", left.len());
    }
}

#[tokio::test]
async fn what_came_before_everybody_failed_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let failing = node(&[Manner::Cut(100_000), Manner::Failure]).await;
    fetch(dir.path(), &[&failing]).await.unwrap_err();
    let good = node(&[Manner::Good]).await;
    fetch(dir.path(), &[&good]).await.unwrap();
    assert_eq!(sent(&good), 200_000);
}

fn manner() -> impl Strategy<Value = Manner> {
    prop_oneof![
        Just(Manner::Good),
        Just(Manner::Whole),
        (0..LENGTH).prop_map(Manner::Cut),
        (0..LENGTH).prop_map(Manner::CutWhole),
        Just(Manner::Lie),
        Just(Manner::Short),
        Just(Manner::Huge),
        Just(Manner::Elsewhere),
        Just(Manner::Missing),
        Just(Manner::Failure),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_two_nodes_do_a_third_ones_file_comes_whole(
        first in prop::collection::vec(manner(), 1..6),
        second in prop::collection::vec(manner(), 1..6),
        place in 0usize..3,
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let (first, second) = (node(&first).await, node(&second).await);
            let good = node(&[Manner::Good]).await;
            let mut nodes = vec![&first, &second];
            nodes.insert(place, &good);
            fetch(dir.path(), &nodes).await.unwrap();
        });
    }
}
