//! Lists of messages: every filter, both spellings, pages of any length, cursors, and what is refused.

use std::collections::BTreeSet;

use aleph_message::{Keypair, MessageType};
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::support::{Node, aggregate, amend, forget, post, signed, signed_on};

fn hashes(list: &Value) -> BTreeSet<String> {
    list["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["item_hash"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn every_filter_keeps_what_it_names_in_both_spellings() {
    let node = Node::start().await;
    let (key, friend) = (Keypair::generate(), Keypair::generate());
    let early = node
        .accept(&signed_on(
            &key,
            MessageType::Post,
            Some("EARLY"),
            1000.0,
            json!({"type": "old", "content": {"tags": ["x", "y"]}}),
        ))
        .await;
    let change = node.accept(&amend(&key, &early, json!(1))).await;
    let rules = json!({"authorizations": [{"address": friend.address()}]});
    let map = node.accept(&aggregate(&key, "security", rules)).await;
    let (store, file) = node
        .store(
            &key,
            b"bytes",
            json!({"tags": ["z"], "payment": {"type": "hold"}}),
        )
        .await;
    let delegated = node
        .accept(&signed(
            &friend,
            MessageType::Post,
            json!({"address": key.address(), "type": "new", "content": null}),
        ))
        .await;
    let me = key.address();
    let cases: Vec<(String, Vec<&String>)> = vec![
        (
            String::new(),
            vec![&early, &change, &map, &store, &delegated],
        ),
        ("msgType=STORE".into(), vec![&store]),
        ("msg_types=STORE,AGGREGATE".into(), vec![&store, &map]),
        ("message_type=AGGREGATE".into(), vec![&map]),
        (format!("addresses={}", friend.address()), vec![&delegated]),
        (
            format!("owners={me}&msgType=POST"),
            vec![&early, &change, &delegated],
        ),
        (format!("refs={early}"), vec![&change]),
        (format!("contentHashes={file}"), vec![&store]),
        (format!("content_hashes={file}"), vec![&store]),
        ("contentKeys=security,other".into(), vec![&map]),
        ("contentTypes=old,amend".into(), vec![&early, &change]),
        ("content_types=new".into(), vec![&delegated]),
        ("chains=ETH,SOL&channels=EARLY".into(), vec![&early]),
        ("chains=SOL".into(), vec![]),
        ("channels=TEST&msgType=AGGREGATE".into(), vec![&map]),
        ("tags=y".into(), vec![&early]),
        ("tags=y,z".into(), vec![&early, &store]),
        ("tags=x,y".into(), vec![&early]),
        ("tags=x,y,z&channels=EARLY".into(), vec![&early]),
        ("msgStatuses=removing".into(), vec![]),
        (format!("hashes={early},{map}"), vec![&early, &map]),
        ("paymentTypes=hold".into(), vec![&store]),
        ("payment_types=credit".into(), vec![]),
        ("endDate=1000".into(), vec![]),
        ("end_date=1000.5".into(), vec![&early]),
        ("startDate=1000&endDate=2000".into(), vec![&early]),
        (
            "start_date=1000.5".into(),
            vec![&change, &map, &store, &delegated],
        ),
        ("startBlock=5&tags=y".into(), vec![&early]),
        ("endBlock=5".into(), vec![]),
        ("msgStatuses=processed,removing&tags=y".into(), vec![&early]),
        ("message_statuses=processed&tags=y".into(), vec![&early]),
        ("msgStatuses=pending".into(), vec![]),
        ("sortBy=tx-time&tags=y&unknown[]=1".into(), vec![&early]),
    ];
    for (query, expected) in cases {
        let expected: BTreeSet<String> = expected.into_iter().cloned().collect();
        let (code, list) = node.get(&format!("/api/v0/messages.json?{query}")).await;
        assert_eq!((code, hashes(&list)), (200, expected.clone()), "{query}");
        assert_eq!(list["pagination_total"], expected.len(), "{query}");
        if query.contains("tx-time") {
            continue;
        }
        let (code, list) = node
            .get(&format!("/api/v0/messages.json?{query}&cursor="))
            .await;
        assert_eq!((code, hashes(&list)), (200, expected), "{query} by cursor");
        assert_eq!(list.get("next_cursor"), Some(&Value::Null), "{query}");
    }
    let content = async |format: &str| {
        let query = format!("hashes={store}&{format}");
        node.get(&format!("/api/v0/messages.json?{query}")).await.1["messages"][0]["content"]
            .clone()
    };
    assert_eq!(
        content("contentFormat=headers").await,
        json!({"address": me, "item_hash": file})
    );
    assert_eq!(content("contentFormat=none").await, Value::Null);
    assert_eq!(content("excludeContent=true").await, Value::Null);
    assert_eq!(content("contentFormat=full").await["tags"], json!(["z"]));
}

#[tokio::test]
async fn what_makes_no_sense_in_a_query_is_refused_by_name() {
    let node = Node::start().await;
    for (query, name) in [
        ("startDate=2&endDate=1", "endDate"),
        ("startDate=x", "startDate"),
        ("start_date=-1", "startDate"),
        ("startDate=NaN", "startDate"),
        ("startBlock=2&endBlock=1", "endBlock"),
        ("endBlock=-1", "endBlock"),
        ("cursor=&sortBy=tx-time", "sortBy"),
        ("sortBy=size", "sortBy"),
        ("sortOrder=0", "sortOrder"),
        ("cursor=&pagination=0", "pagination"),
        ("pagination=-1", "pagination"),
        ("page=0", "page"),
        ("cursor=%00", "cursor"),
        ("cursor=e30", "cursor"),
        ("hashes=abc", "hashes"),
        ("contentHashes=abc", "contentHashes"),
        ("msgType=GOSSIP", "msgType"),
        ("msgStatuses=lost", "msgStatuses"),
        ("chains=BTC", "chains"),
        ("paymentTypes=gold", "paymentTypes"),
        ("contentFormat=most", "contentFormat"),
    ] {
        let (code, text) = node.get(&format!("/api/v0/messages.json?{query}")).await;
        assert_eq!(code, 422, "{query}: {text}");
        assert!(text.as_str().unwrap().starts_with(name), "{query}: {text}");
    }
    assert_eq!(node.get("/api/v0/messages/page/0.json").await.0, 422);
    assert_eq!(node.get("/api/v0/messages/page/1").await.0, 404);
}

#[tokio::test]
async fn lists_of_any_length_come_whole_and_cursors_meet_every_row_once() {
    const MANY: usize = 450;
    let node = Node::start().await;
    let key = Keypair::generate();
    // Many share a time, so that the order within it counts.
    let messages: Vec<Value> = (0..MANY)
        .map(|i| {
            let content = json!({"type": "t", "content": i});
            signed_on(
                &key,
                MessageType::Post,
                None,
                (1000 + i / 7) as f64,
                content,
            )
        })
        .collect();
    futures_util::stream::iter(&messages)
        .for_each_concurrent(32, |message| async {
            node.accept(message).await;
        })
        .await;
    let all: BTreeSet<String> = messages.iter().map(super::support::hash_of).collect();
    for path in [
        "/api/v0/messages.json",
        "/api/v0/posts.json",
        "/api/v1/posts.json",
    ] {
        let key = if path.contains("posts") {
            "posts"
        } else {
            "messages"
        };
        let rows = async |query: &str| {
            let (code, list) = node.get(&format!("{path}?{query}")).await;
            assert_eq!(
                (code, &list["pagination_total"]),
                (200, &json!(MANY)),
                "{path}?{query}"
            );
            assert_eq!(list["pagination_item"], key);
            let rows = list[key].as_array().unwrap().iter();
            rows.map(|row| row["item_hash"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        for order in ["-1", "1"] {
            let whole = rows(&format!("pagination=0&sortOrder={order}")).await;
            assert_eq!(whole.iter().cloned().collect::<BTreeSet<_>>(), all);
            assert_eq!(
                whole,
                rows(&format!("pagination=10000000000&sortOrder={order}")).await
            );
            let parts = [
                rows(&format!("pagination=220&page=1&sortOrder={order}")).await,
                rows(&format!("pagination=220&page=2&sort_order={order}")).await,
                rows(&format!("pagination=220&page=3&sortOrder={order}")).await,
                rows(&format!("pagination=220&page=4&sortOrder={order}")).await,
            ];
            assert_eq!(parts.each_ref().map(Vec::len), [220, 220, 10, 0]);
            assert_eq!(parts.concat(), whole);
            assert_eq!(
                rows(&format!("pagination=7&page=3&sortOrder={order}")).await,
                whole[14..21]
            );
            let (mut seen, mut cursor) = (Vec::new(), String::new());
            loop {
                let query = format!("pagination=64&sortOrder={order}&cursor={cursor}");
                let (_, list) = node.get(&format!("{path}?{query}")).await;
                let part = list[key].as_array().unwrap().iter();
                seen.extend(part.map(|row| row["item_hash"].as_str().unwrap().to_owned()));
                match list["next_cursor"].as_str() {
                    Some(next) => next.clone_into(&mut cursor),
                    None => break,
                }
            }
            assert_eq!(seen, whole, "{path} {order}");
        }
    }
}

#[tokio::test]
async fn hashes_are_listed_by_status_and_reception() {
    let node = Node::start().await;
    let (key, friend) = (Keypair::generate(), Keypair::generate());
    let first = node.accept(&post(&key, "t", json!(1))).await;
    let refused = signed(
        &friend,
        MessageType::Post,
        json!({"address": key.address(), "type": "t", "content": 1}),
    );
    node.refuse(&refused).await;
    let second = node.accept(&post(&key, "t", json!(2))).await;
    let (_, all) = node.get("/api/v0/messages/hashes?sortOrder=1").await;
    assert_eq!(
        all["hashes"],
        json!([first, super::support::hash_of(&refused), second])
    );
    assert_eq!(
        (&all["pagination_total"], &all["pagination_item"]),
        (&json!(3), &json!("hashes"))
    );
    let (_, page) = node
        .get("/api/v0/messages/hashes?status=processed&pagination=1&page=2")
        .await;
    assert_eq!(page["hashes"], json!([first]));
    for (query, expected) in [
        ("status=processed,rejected&startDate=1000", 3),
        ("status=rejected", 1),
        ("status=removing,pending", 0),
        ("status=removing&endDate=1000", 0),
        ("status=forgotten,removed", 0),
    ] {
        let (_, list) = node.get(&format!("/api/v0/messages/hashes?{query}")).await;
        assert_eq!(list["pagination_total"], expected, "{query}");
        assert_eq!(
            list["hashes"].as_array().unwrap().len(),
            expected,
            "{query}"
        );
    }
    let (_, full) = node
        .get("/api/v0/messages/hashes?status=rejected&hash_only=false")
        .await;
    assert_eq!(full["hashes"][0]["status"], "rejected");
    let (_, none) = node.get("/api/v0/messages/hashes?endDate=1000").await;
    assert_eq!(none["hashes"], json!([]));
    assert_eq!(node.get("/api/v0/messages/hashes?status=lost").await.0, 422);
}

#[tokio::test]
async fn addresses_come_in_order_of_what_they_published_by_page_and_by_cursor() {
    let node = Node::start().await;
    let mut order = Vec::new();
    for count in 1..=3 {
        let key = Keypair::generate();
        for n in 0..count {
            node.accept(&post(&key, "t", json!(n))).await;
        }
        order.push(key.address());
    }
    // Text, because what is read as JSON forgets the order.
    let addresses = async |query: &str| {
        let path = format!("/api/v1/addresses/stats.json?{query}");
        let answer = node.ask(http::Method::GET, &path, &[]).await;
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        let mut at: Vec<(usize, String)> = order
            .iter()
            .filter_map(|address| Some((text.find(address.as_str())?, address.clone())))
            .collect();
        at.sort();
        let addresses: Vec<String> = at.into_iter().map(|(_, address)| address).collect();
        (addresses, serde_json::from_str::<Value>(&text).unwrap())
    };
    let (ascending, body) = addresses("sortBy=post&sortOrder=1").await;
    assert_eq!((&ascending, &body["pagination_total"]), (&order, &json!(3)));
    let (descending, _) = addresses("sort_by=messages").await;
    assert!(descending.iter().eq(order.iter().rev()));
    let mut cursor = String::new();
    for address in &order {
        let query = format!("sortBy=total&sortOrder=1&pagination=1&cursor={cursor}");
        let (page, body) = addresses(&query).await;
        assert_eq!(page, std::slice::from_ref(address));
        cursor = body["next_cursor"].as_str().unwrap_or_default().to_owned();
    }
    assert_eq!(cursor, "");
    let part = &order[1][10..30].to_uppercase();
    let (found, _) = addresses(&format!("addressContains={part}")).await;
    assert_eq!(found, order[1..2]);
}

#[tokio::test]
async fn who_signs_for_others_is_found_by_both_and_counted_for_the_owner() {
    let node = Node::start().await;
    let (owner, friend) = (Keypair::generate(), Keypair::generate());
    let rule = json!({"authorizations": [{"address": friend.address()}]});
    node.accept(&aggregate(&owner, "security", rule)).await;
    let mut expected = Vec::new();
    for n in 0..6 {
        let mut content = json!({"type": "t", "content": {"n": n, "tags": ["twice", "twice"]}});
        if n % 2 == 0 {
            content["address"] = owner.address().into();
        }
        let time = 1_700_000_000.0 + f64::from(n);
        let message = signed_on(&friend, MessageType::Post, Some("C"), time, content);
        expected.push(node.accept(&message).await);
    }
    let listed = async |query: &str| {
        let (_, body) = node
            .get(&format!("/api/v0/messages.json?sort_order=1&{query}"))
            .await;
        let hashes: Vec<String> = body["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["item_hash"].as_str().unwrap().to_owned())
            .collect();
        (hashes, body)
    };
    let signer = friend.address();
    // Counted as messages came, and by looking at them; asked for once or twice.
    for query in ["msgType=POST", "channels=C"] {
        let (all, body) = listed(&format!("addresses={signer},{signer}&{query}")).await;
        assert_eq!((&all, &body["pagination_total"]), (&expected, &json!(6)));
    }
    let mut by_cursor = Vec::new();
    let mut cursor = String::new();
    loop {
        let (page, body) =
            listed(&format!("addresses={signer}&pagination=2&cursor={cursor}")).await;
        by_cursor.extend(page);
        match body["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(by_cursor, expected);
    let (owned, _) = listed(&format!("owners={}&msgType=POST", owner.address())).await;
    let for_owner: Vec<_> = expected.iter().step_by(2).cloned().collect();
    assert_eq!(owned, for_owner);
    let (_, body) = listed(&format!("owners={}", owner.address())).await;
    assert_eq!(body["pagination_total"], 4);
    assert_eq!(
        node.get("/api/v0/channels/list.json").await.1["channels"],
        json!(["C", "TEST"])
    );
    let (tagged, body) = listed("tags=twice").await;
    assert_eq!((&tagged, &body["pagination_total"]), (&expected, &json!(6)));

    let posts = async |owner: &str| {
        let (_, stats) = node
            .get(&format!("/api/v0/addresses/stats.json?addresses={owner}"))
            .await;
        stats["data"][owner]["post"].clone()
    };
    assert_eq!(posts(&owner.address()).await, 3);
    node.accept(&forget(&friend, &[&expected[1]])).await;
    assert_eq!(posts(&signer).await, 2);
}

#[tokio::test]
async fn posts_are_found_by_the_tags_of_their_latest_content_in_their_channel() {
    let node = Node::start().await;
    let (key, other) = (Keypair::generate(), Keypair::generate());
    let first = post(&key, "t", json!({"tags": ["x", "both"]}));
    let first = node.accept(&first).await;
    let second = post(&other, "t", json!({"tags": ["both"]}));
    let second = node.accept(&second).await;
    let found = async |query: &str| {
        let (code, list) = node.get(&format!("/api/v1/posts.json?{query}")).await;
        let posts = list["posts"].as_array().unwrap();
        assert_eq!(
            (code, &list["pagination_total"]),
            (200, &json!(posts.len()))
        );
        let of = |post: &Value| post["original_item_hash"].as_str().unwrap().to_owned();
        posts.iter().map(of).collect::<BTreeSet<_>>()
    };
    let both = BTreeSet::from([first.clone(), second.clone()]);
    let alone = BTreeSet::from([first.clone()]);
    assert_eq!(found("tags=both,x&channels=TEST").await, both);
    assert_eq!(found("tags=x").await, alone);
    assert!(found("tags=both&channels=OTHER").await.is_empty());

    let change = node
        .accept(&amend(&key, &first, json!({"tags": ["y"]})))
        .await;
    assert!(found("tags=x").await.is_empty());
    assert_eq!(found("tags=y&types=t").await, alone);
    node.accept(&forget(&key, &[change.as_str()])).await;
    assert!(found("tags=y").await.is_empty());
    assert_eq!(found("tags=x").await, alone);
    node.accept(&forget(&key, &[first.as_str()])).await;
    assert_eq!(found("tags=both,x").await, BTreeSet::from([second]));

    let addresses = [key.address(), other.address()];
    let [one, two] = &addresses;
    let (_, stats) = node
        .get(&format!(
            "/api/v0/addresses/stats.json?addresses[]={one}&addresses[]={two}"
        ))
        .await;
    for address in &addresses {
        assert!(stats["data"][address]["messages"].is_number(), "{stats}");
    }
}
