//! From a signed message to one in force: what is taken, what is refused and why, what waits and for what.

use aleph_message::{Keypair, MessageType};
use serde_json::{Value, json};

use super::support::{Node, aggregate, amend, hash_of, now, post, signed, signed_about, signed_on};

#[tokio::test]
async fn a_signed_post_comes_into_force_with_all_that_clients_read() {
    let node = Node::start().await;
    let key = Keypair::generate();
    let message = post(&key, "greeting", json!({"hello": "world"}));
    let hash = node.accept(&message).await;
    let (code, body) = node.message(&hash).await;
    assert_eq!((code, &body["status"]), (200, &json!("processed")));
    assert!(body["reception_time"].as_str().unwrap().ends_with("+00:00"));
    let shown = &body["message"];
    for name in [
        "sender",
        "chain",
        "signature",
        "type",
        "item_content",
        "item_type",
        "item_hash",
        "time",
        "channel",
    ] {
        assert_eq!(shown[name], message[name], "{name}");
    }
    assert_eq!(shown["confirmations"], json!([]));
    // A single message has defaults written out, a list has what was sent.
    assert_eq!(shown["content"]["ref"], Value::Null);
    assert!(shown["content"].as_object().unwrap().contains_key("ref"));
    let (_, list) = node
        .get(&format!("/api/v0/messages.json?hashes={hash}"))
        .await;
    let item = &list["messages"][0];
    assert!(!item["content"].as_object().unwrap().contains_key("ref"));
    assert_eq!(
        item["size"],
        message["item_content"].as_str().unwrap().len()
    );
    let (_, content) = node.get(&format!("/api/v0/messages/{hash}/content")).await;
    assert_eq!(content, json!({"hello": "world"}));
    let (_, status) = node.get(&format!("/api/v0/messages/{hash}/status")).await;
    assert_eq!(status["status"], "processed");
}

#[tokio::test]
async fn what_is_malformed_is_refused_and_leaves_nothing() {
    let node = Node::start().await;
    let key = Keypair::generate();
    let good = post(&key, "t", json!(1));
    let changed = |name: &str, value: Value| {
        let mut message = good.clone();
        message[name] = value;
        message
    };
    for (message, field) in [
        (changed("type", json!("GOSSIP")), "type"),
        (changed("chain", json!("BTC")), "chain"),
        (changed("item_hash", json!("a".repeat(64))), "item_hash"),
        (changed("signature", json!({"r": 1})), "signature"),
        (changed("item_content", json!("{}")), "item_hash"),
        (changed("time", json!("yesterday")), "time"),
        (json!([1]), "object"),
        (Value::Null, "object"),
    ] {
        let (code, body) = node.publish(&message).await;
        assert_eq!((code, &body["error_code"]), (422, &json!(0)), "{message}");
        assert!(
            body["details"].to_string().contains(field),
            "{field}: {body}"
        );
    }
    assert_eq!(node.message(&hash_of(&good)).await.0, 404);
    assert_eq!(node.message("nonsense").await.0, 400);
    assert_eq!(
        node.post_json("/api/v0/messages", &json!({"sync": true}))
            .await
            .0,
        422
    );
}

#[tokio::test]
async fn a_message_sent_again_is_answered_with_what_became_of_it() {
    let node = Node::start().await;
    let (key, friend) = (Keypair::generate(), Keypair::generate());
    let message = post(&key, "t", json!(1));
    node.accept(&message).await;
    node.accept(&message).await;
    // The same content under another signature is not the same message.
    let mut other = message.clone();
    other["signature"] = post(&key, "t", json!(2))["signature"].clone();
    let (code, body) = node.publish(&other).await;
    assert_eq!((code, &body["error_code"]), (422, &json!(1)));
    assert_eq!(
        node.message(&hash_of(&message)).await.1["status"],
        "processed"
    );

    // A refused message is looked at again.
    let delegated = signed(
        &friend,
        MessageType::Post,
        json!({"address": key.address(), "type": "t", "content": null}),
    );
    assert_eq!(node.refuse(&delegated).await, 2);
    let rules = json!({"authorizations": [{"address": friend.address()}]});
    node.accept(&aggregate(&key, "security", rules)).await;
    let hash = node.accept(&delegated).await;
    assert_eq!(node.message(&hash).await.1["status"], "processed");
}

#[tokio::test]
async fn a_false_signature_does_not_stand_in_the_way_of_the_right_one() {
    let node = Node::start().await;
    let (key, stranger) = (Keypair::generate(), Keypair::generate());
    let message = post(&key, "t", json!(1));
    let mut forged = message.clone();
    forged["signature"] = post(&stranger, "t", json!(1))["signature"].clone();
    let body = json!({"sync": false, "message": forged});
    let (code, answer) = node.post_json("/api/v0/messages", &body).await;
    assert_eq!((code, &answer["message_status"]), (202, &json!("pending")));
    let refused = node.until(&hash_of(&message), "rejected").await;
    assert_eq!(refused["error_code"], 1);
    node.accept(&message).await;
}

#[tokio::test]
async fn without_sync_a_message_is_taken_at_once_and_decided_later() {
    let node = Node::start().await;
    let key = Keypair::generate();
    let message = post(&key, "t", json!(1));
    let body = json!({"sync": false, "message": message});
    let (code, answer) = node.post_json("/api/v0/messages", &body).await;
    assert_eq!(
        (code, &answer["publication_status"]["status"]),
        (202, &json!("success"))
    );
    node.until(&hash_of(&message), "processed").await;
    // The older way.
    let message = post(&key, "t", json!(2));
    let body = json!({"topic": "ALEPH-TEST", "data": message.to_string()});
    let (code, answer) = node.post_json("/api/v0/ipfs/pubsub/pub", &body).await;
    assert_eq!(
        (code, answer),
        (200, json!({"status": "success", "failed": []}))
    );
    node.until(&hash_of(&message), "processed").await;
    let body = json!({"topic": "OTHER", "data": "{}"});
    assert_eq!(node.post_json("/api/v0/p2p/pubsub/pub", &body).await.0, 403);
    for body in [
        json!({"data": "{}"}),
        json!({"topic": "ALEPH-TEST"}),
        json!({"topic": "ALEPH-TEST", "data": "no JSON"}),
        json!({"topic": "ALEPH-TEST", "data": "{}"}),
    ] {
        let (code, answer) = node.post_json("/api/v0/ipfs/pubsub/pub", &body).await;
        assert_eq!(code, 422, "{body}: {answer}");
    }
}

#[tokio::test]
async fn a_store_waits_for_its_file_and_is_decided_when_it_comes() {
    let node = Node::start().await;
    let key = Keypair::generate();
    let bytes = b"late file";
    let file = aleph_message::ItemHash::of(bytes).to_string();
    let message = signed(
        &key,
        MessageType::Store,
        json!({"item_type": "storage", "item_hash": file}),
    );
    let waiting = node.delay(&message).await;
    assert_eq!(waiting["status"], "pending");
    let shown = &waiting["messages"][0];
    assert_eq!(shown["sender"], key.address());
    assert!(shown["time"].as_str().unwrap().contains('T'), "{shown}");
    let (code, _) = node
        .upload("/api/v0/storage/add_file", &[("file", bytes)])
        .await;
    assert_eq!(code, 200);
    node.until(&hash_of(&message), "processed").await;
}

#[tokio::test]
async fn content_may_be_a_file_and_is_completed_from_the_envelope() {
    let node = Node::start().await;
    let key = Keypair::generate();
    let content = json!({"type": "t", "content": {"far": true}});
    let hash = aleph_message::ItemHash::of(content.to_string().as_bytes()).to_string();
    let message = signed_about(&key, MessageType::Post, &hash);
    node.delay(&message).await;
    let (code, body) = node.post_json("/api/v0/storage/add_json", &content).await;
    assert_eq!((code, &body["hash"]), (200, &json!(hash)));
    let done = node.until(&hash, "processed").await;
    assert_eq!(done["message"]["content"]["address"], key.address());
    assert_eq!(done["message"]["content"]["time"], message["time"]);
    assert_eq!(done["message"]["item_content"], Value::Null);
    // Content that is there but makes no sense is refused.
    let (_, body) = node
        .post_json("/api/v0/storage/add_json", &json!({"type": 7}))
        .await;
    let broken = signed_about(&key, MessageType::Post, body["hash"].as_str().unwrap());
    assert_eq!(node.refuse(&broken).await, 0);
}

#[tokio::test]
async fn the_newest_amend_is_what_a_post_shows() {
    let node = Node::start().await;
    let (key, stranger) = (Keypair::generate(), Keypair::generate());
    let original = node
        .accept(&post(&key, "note", json!({"text": "one", "tags": ["a"]})))
        .await;
    let first = node
        .accept(&amend(
            &key,
            &original,
            json!({"text": "two", "tags": ["b", "c"]}),
        ))
        .await;
    let old = signed_on(
        &key,
        MessageType::Post,
        Some("TEST"),
        now() - 1000.0,
        json!({"type": "amend", "ref": original, "content": {"text": "old"}, "time": now() - 1000.0}),
    );
    node.accept(&old).await;
    assert_eq!(node.refuse(&amend(&key, &first, json!({}))).await, 102);
    assert_eq!(
        node.refuse(&amend(&stranger, &original, json!({}))).await,
        2
    );
    let unknown = amend(&key, &"e".repeat(64), json!({}));
    assert_eq!(node.delay(&unknown).await["status"], "pending");

    for query in [
        format!("hashes={original}"),
        "tags=b".into(),
        "tags=a,b,c".into(),
        "tags=c&types=note&channels=TEST&startDate=1000".into(),
        format!("addresses={}&tags=b", key.address()),
        "channels=TEST,OTHER".into(),
        "types=note&channels=TEST".into(),
    ] {
        let (_, v0) = node.get(&format!("/api/v0/posts.json?{query}")).await;
        let row = &v0["posts"][0];
        assert_eq!(row["content"]["text"], "two", "{query}");
        assert_eq!(
            (&row["hash"], &row["item_hash"]),
            (&json!(original), &json!(first))
        );
        assert_eq!(
            (&row["type"], &row["original_type"]),
            (&json!("amend"), &json!("note"))
        );
        assert_eq!(row.as_object().unwrap().len(), 19);
        let (_, v1) = node.get(&format!("/api/v1/posts.json?{query}")).await;
        let row = &v1["posts"][0];
        assert_eq!(
            (&row["original_item_hash"], &row["item_hash"]),
            (&json!(original), &json!(first))
        );
        assert_eq!(row["address"], key.address());
        assert_eq!(v1["pagination_total"], 1);
    }
    let (_, none) = node.get("/api/v0/posts.json?tags=a").await;
    assert_eq!(none["posts"], json!([]));
}

#[tokio::test]
async fn aggregates_are_merged_in_the_order_of_their_times() {
    let node = Node::start().await;
    let key = Keypair::generate();
    let at = |time: f64, name: Value, content: Value| {
        let body = json!({"key": name, "content": content, "time": time});
        signed_on(&key, MessageType::Aggregate, None, time, body)
    };
    let newest = node.accept(&at(3000.0, json!("k"), json!({"a": 3}))).await;
    let oldest = node
        .accept(&at(1000.0, json!({"name": "k"}), json!({"a": 1, "b": 1})))
        .await;
    node.accept(&at(2000.0, json!("k"), json!({"b": null, "c": 2})))
        .await;
    node.accept(&at(2000.0, json!("other"), json!({}))).await;
    let path = format!("/api/v0/aggregates/{}.json", key.address());
    let (code, body) = node
        .get(&format!("{path}?keys=k,missing&with_info=true"))
        .await;
    assert_eq!(code, 200);
    assert_eq!(body["data"], json!({"k": {"a": 3, "b": null, "c": 2}}));
    let info = &body["info"]["k"];
    assert_eq!(info["original_item_hash"], json!(oldest));
    assert_eq!(info["last_update_item_hash"], json!(newest));
    assert_eq!(info["created"], "1970-01-01T00:16:40.000000+00:00");
    let (_, value) = node.get(&format!("{path}?keys=k&value_only=true")).await;
    assert_eq!(value["a"], 3);
    assert_eq!(node.get(&format!("{path}?keys=missing")).await.0, 404);

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let query = format!(
            "addresses={}&pagination=1&sortOrder=1&cursor={cursor}",
            key.address()
        );
        let (_, page) = node.get(&format!("/api/v0/aggregates?{query}")).await;
        seen.extend(
            page["aggregates"]
                .as_array()
                .unwrap()
                .iter()
                .map(|a| a["key"].clone()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(seen, ["other", "k"]);
    assert_eq!(node.get("/api/v0/aggregates?pagination=501").await.0, 422);
}

#[tokio::test]
async fn a_v_program_is_priced_and_holds_its_files() {
    let key = Keypair::generate();
    let credits = format!(
        "[[genesis.credits]]\naddress = \"{}\"\namount = 10000000000",
        key.address()
    );
    let node = Node::start_with(&credits).await;
    let (workload, _) = node
        .store(&key, b"workload", json!({"payment": {"type": "credit"}}))
        .await;
    let program = |payment: &str| {
        signed(
            &key,
            MessageType::VerifiableProgram,
            json!({"allow_amend": false, "resources": {"vcpus": 2, "memory": 4096}, "payment": {"type": payment},
                "environment": {"internet": true}, "runtime": {"ref": "a".repeat(64)},
                "workload": {"ref": workload, "hash_tree": "b".repeat(64), "roothash": "0".repeat(64)},
                "verification": {"backend": "tdx", "measurements": [{"platform": "tdx", "registers":
                    {"mrtd": "0".repeat(96), "rtmr1": "0".repeat(96), "rtmr2": "0".repeat(96),
                     "mrconfigid": "0".repeat(96)}}]}}),
        )
    };
    let hash = node.accept(&program("credit")).await;
    let (code, price) = node.get(&format!("/api/v0/price/{hash}")).await;
    assert_eq!((code, &price["payment_type"]), (200, &json!("credit")));
    // Two units of a confidential instance: 28500 credits an hour each.
    assert_eq!(price["cost"], "15.833333333333333333");
    let (_, shown) = node.message(&hash).await;
    assert_eq!(shown["message"]["content"]["runtime"]["comment"], "");
    assert_eq!(
        node.refuse(&super::support::forget(&key, &[&workload]))
            .await,
        503
    );
}
