//! Core channel nodes that are dead, mute, lying, cutting and flapping, on real sockets.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// How a node answers.
#[derive(Debug, Clone)]
enum Manner {
    Says(Value),
    Unknown,
    Mute,
    Cuts(Value),
    Failure,
    Garbage,
    /// One after the other, for ever.
    Flapping(Vec<Manner>),
}

fn answer(manner: &Manner, count: usize) -> Option<Response> {
    Some(match manner {
        Manner::Says(value) => axum::Json(value.clone()).into_response(),
        Manner::Unknown => StatusCode::NOT_FOUND.into_response(),
        Manner::Mute => return None,
        Manner::Cuts(value) => {
            let text = value.to_string();
            let half = text[..text.len() / 2].to_owned();
            let pieces = [Ok(half), Err(std::io::Error::other("cut"))];
            let body = Body::from_stream(futures_util::stream::iter(pieces));
            ([(header::CONTENT_LENGTH, text.len().to_string())], body).into_response()
        }
        Manner::Failure => StatusCode::BAD_GATEWAY.into_response(),
        Manner::Garbage => "{\"data\": nonsense".into_response(),
        Manner::Flapping(manners) => return answer(&manners[count % manners.len()], count),
    })
}

/// A node that answers everything in this manner.
async fn node(manner: Manner) -> String {
    let count = Arc::<AtomicUsize>::default();
    let handler = move |_: Request| {
        let answer = answer(&manner, count.fetch_add(1, Ordering::SeqCst));
        async move {
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }
    };
    let router = Router::new().fallback(handler);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

async fn nodes(manners: impl IntoIterator<Item = Manner>) -> Ccns {
    let mut urls = Vec::new();
    for manner in manners {
        urls.push(node(manner).await);
    }
    Ccns::new(urls.iter().map(String::as_str), None)
}

fn aggregate(content: Value) -> Value {
    json!({"address": "0xA", "data": {"port-forwarding": content}, "info": {}})
}

fn misbehaviours(truth: &Value, lie: &Value) -> Vec<Manner> {
    vec![
        Manner::Says(lie.clone()),
        Manner::Unknown,
        Manner::Mute,
        Manner::Cuts(truth.clone()),
        Manner::Failure,
        Manner::Garbage,
        Manner::Flapping(vec![
            Manner::Says(lie.clone()),
            Manner::Failure,
            Manner::Says(truth.clone()),
            Manner::Unknown,
        ]),
    ]
}

/// P3, R5: one server's failure took every forwarded port away.
#[tokio::test]
async fn one_of_three_nodes_changes_nothing_about_an_aggregate_whatever_it_does() {
    let (truth, lie) = (
        aggregate(json!({"vm": {"ports": {"80": {"tcp": true}}}})),
        aggregate(json!({})),
    );
    for bad in misbehaviours(&truth, &lie) {
        for place in 0..3 {
            let mut manners = vec![Manner::Says(truth.clone()); 2];
            manners.insert(place, bad.clone());
            let ccns = nodes(manners).await;
            // A flapping node shows another face each time.
            for _ in 0..4 {
                let found = ccns.aggregate("0xA", "port-forwarding").await;
                let expected = &truth["data"]["port-forwarding"];
                assert_eq!(
                    found.unwrap().as_ref(),
                    Some(expected),
                    "{bad:?} at {place}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_node_that_is_not_there_changes_nothing() {
    let truth = aggregate(json!({"vm": null}));
    let (one, two) = (
        node(Manner::Says(truth.clone())).await,
        node(Manner::Says(truth)).await,
    );
    let ccns = Ccns::new(["http://127.0.0.1:1", &one, &two], None);
    assert!(
        ccns.aggregate("0xA", "port-forwarding")
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn without_a_quorum_there_is_no_answer() {
    let said = |text: &str| Manner::Says(aggregate(json!(text)));
    for manners in [
        vec![said("one"), said("two"), said("three")],
        vec![said("one"), said("two"), Manner::Failure],
        vec![said("one"), said("two")],
        vec![said("one"), Manner::Unknown],
    ] {
        let count = manners.len();
        let error = nodes(manners)
            .await
            .aggregate("0xA", "port-forwarding")
            .await
            .unwrap_err();
        assert!(
            matches!(error, CcnError::NoQuorum { nodes, .. } if nodes == count),
            "{error}"
        );
    }
    // One that is asked alone is quoted.
    let error = nodes([Manner::Failure])
        .await
        .aggregate("0xA", "x")
        .await
        .unwrap_err();
    assert!(matches!(error, CcnError::Status { .. }), "{error}");
}

#[tokio::test]
async fn a_quorum_that_has_no_aggregate_is_believed_too() {
    let lie = aggregate(json!({"vm": {"ports": {"1": {"tcp": true}}}}));
    let ccns = nodes([Manner::Says(lie), Manner::Unknown, Manner::Unknown]).await;
    assert_eq!(
        ccns.aggregate("0xA", "port-forwarding").await.unwrap(),
        None
    );
}

fn message(status: &str, name: &str) -> Value {
    json!({"status": status, "message": {"name": name}})
}

/// S3: the genuine message from whoever has it, its status from the quorum.
#[tokio::test]
async fn a_message_is_the_genuine_one_and_its_status_the_quorums() {
    let genuine = |message: &Value| message["name"] == "genuine";
    let says = |status, name| Manner::Says(message(status, name));
    for (manners, expected) in [
        (
            [
                says("processed", "forged"),
                says("processed", "forged"),
                says("processed", "genuine"),
            ],
            Some(("processed", "genuine")),
        ),
        (
            [
                says("forgotten", "genuine"),
                says("processed", "genuine"),
                says("removing", "genuine"),
            ],
            Some(("processed", "genuine")),
        ),
        (
            [
                says("processed", "genuine"),
                says("forgotten", "genuine"),
                says("rejected", "genuine"),
            ],
            Some(("forgotten", "genuine")),
        ),
        (
            [
                Manner::Unknown,
                Manner::Unknown,
                says("processed", "genuine"),
            ],
            None,
        ),
        (
            [
                Manner::Mute,
                says("processed", "genuine"),
                says("processed", "genuine"),
            ],
            Some(("processed", "genuine")),
        ),
    ] {
        let words = format!("{manners:?}");
        let found = nodes(manners).await.message("h", genuine).await.unwrap();
        let found = found.map(|reply| (reply.status, reply.message.unwrap()["name"].clone()));
        let gone = |status: &str| matches!(status, "forgotten" | "rejected" | "removed");
        match (found, expected) {
            (None, None) => {}
            (Some((status, name)), Some((wanted, who))) => {
                assert_eq!(
                    (gone(&status), name.as_str()),
                    (gone(wanted), Some(who)),
                    "{words}"
                );
            }
            (found, _) => panic!("{words}: {found:?}"),
        }
    }
    // Whoever verifies it then says what is wrong with it.
    let found = nodes([says("processed", "forged")])
        .await
        .message("h", genuine)
        .await
        .unwrap();
    assert_eq!(found.unwrap().message.unwrap()["name"], "forged");
    let torn = [
        says("processed", "genuine"),
        says("forgotten", "genuine"),
        Manner::Failure,
    ];
    assert!(nodes(torn).await.message("h", genuine).await.is_err());
}

#[tokio::test]
async fn a_balance_is_what_a_quorum_grants() {
    let says = |credits: u64| Manner::Says(json!({"credit_balance": credits}));
    for (manners, expected) in [
        (vec![says(7)], 7),
        (vec![says(1_000_000), says(50), says(49)], 50),
        (vec![says(0), says(50), says(49)], 49),
        (vec![Manner::Failure, says(50), says(49)], 49),
    ] {
        let balance = nodes(manners).await.balance("0xA").await.unwrap();
        assert_eq!(balance.credit_balance, expected);
    }
    assert!(
        nodes([says(9), Manner::Failure, Manner::Garbage])
            .await
            .balance("0xA")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn contents_come_from_whoever_has_the_right_bytes() {
    let right = |bytes: &[u8]| bytes == b"\"right\"";
    let says = |text: &str| Manner::Says(json!(text));
    let ccns = nodes([
        says("wrong"),
        Manner::Failure,
        Manner::Unknown,
        says("right"),
    ])
    .await;
    assert_eq!(
        ccns.content("h", right).await.unwrap().unwrap(),
        "\"right\""
    );
    let ccns = nodes([says("wrong"), Manner::Failure]).await;
    assert_eq!(
        ccns.content("h", right).await.unwrap().unwrap(),
        "\"wrong\""
    );
    assert!(
        nodes([Manner::Unknown, Manner::Failure])
            .await
            .content("h", right)
            .await
            .is_err()
    );
    assert_eq!(
        nodes([Manner::Unknown])
            .await
            .content("h", right)
            .await
            .unwrap(),
        None
    );
}

proptest! {
    #[test]
    fn fewer_liars_than_a_quorum_neither_add_nor_hide_an_amendment(
        honest in 3usize..6,
        lies in prop::collection::vec(prop::collection::vec(0u8..20, 0..8), 0..3),
        truth in prop::collection::btree_set(0u8..10, 0..8),
    ) {
        let entry = |number: u8| json!({"item_hash": format!("h{number}"), "time": number});
        let true_list: Vec<Value> = truth.iter().map(|number| entry(*number)).collect();
        let mut lists = vec![true_list; honest];
        lists.extend(lies.into_iter().map(|lie| lie.into_iter().map(entry).collect::<Vec<_>>()));
        let found: Vec<Value> = listed_by(3, lists);
        let expected: Vec<Value> = truth.iter().rev().map(|number| entry(*number)).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn lists_of_anything_are_read(lists in prop::collection::vec(prop::collection::vec(".{0,8}", 0..4), 0..4)) {
        let lists = lists
            .into_iter()
            .map(|list| list.into_iter().map(|text| json!({"item_hash": text, "time": text})).collect())
            .collect();
        listed_by(1, lists);
    }
}
