//! Agreement with the network's Python libraries; `vectors/generate.py` writes what is compared here.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test like the tests themselves"
)]

use std::sync::LazyLock;

use aleph_message::{Body, Chain, Content, Envelope, ErrorCode, ItemHash, MessageType};
use proptest::prelude::*;
use serde_json::{Map, Value};

fn vectors() -> &'static Value {
    static VECTORS: LazyLock<Value> =
        LazyLock::new(|| serde_json::from_str(include_str!("vectors/vectors.json")).unwrap());
    &VECTORS
}

fn message_type(value: &Value) -> MessageType {
    value["type"].as_str().unwrap().parse().unwrap()
}

/// Applies a `[path, value]` or `[path]` change.
fn change(content: &mut Value, change: &Value) {
    let path = change[0].as_array().unwrap();
    let (last, holders) = path.split_last().unwrap();
    let mut holder = content;
    for step in holders {
        holder = match step {
            Value::String(key) => &mut holder[key],
            index => &mut holder[index.as_u64().unwrap() as usize],
        };
    }
    match (last, change.get(1)) {
        (Value::String(key), Some(value)) => holder[key] = value.clone(),
        (Value::String(key), None) => drop(holder.as_object_mut().unwrap().remove(key)),
        (index, value) => holder[index.as_u64().unwrap() as usize] = value.unwrap().clone(),
    }
}

/// The written-out content; the one intended difference is an aggregate key given as an object.
fn dump(content: &Content) -> Map<String, Value> {
    let mut dump = serde_json::to_value(&content.body)
        .unwrap()
        .as_object()
        .unwrap()
        .clone();
    if let (Body::Aggregate(_), Value::Object(_)) = (&content.body, &content.raw["key"]) {
        dump.insert("key".to_owned(), content.raw["key"].clone());
    }
    dump
}

#[test]
fn hashes_are_told_apart_alike() {
    for vector in vectors()["hashes"].as_array().unwrap() {
        let item_type = vector["text"]
            .as_str()
            .unwrap()
            .parse::<ItemHash>()
            .ok()
            .map(|hash| hash.item_type().as_str());
        assert_eq!(item_type, vector["item_type"].as_str(), "{vector}");
    }
}

#[test]
fn contents_are_accepted_refused_and_completed_alike() {
    let vectors = vectors();
    let mut wrong = Vec::new();
    for vector in vectors["contents"].as_array().unwrap() {
        let kind = vector["type"].as_str().unwrap();
        let mut raw = vectors["bases"][kind].clone();
        for step in vector["changes"].as_array().unwrap() {
            change(&mut raw, step);
        }
        match (
            Content::parse(message_type(vector), raw),
            vector.get("dump"),
        ) {
            (Err(rejection), None) => assert_eq!(rejection.code, ErrorCode::InvalidFormat),
            (Ok(content), Some(differences)) => {
                let mut expected = vectors["dumps"][kind].as_object().unwrap().clone();
                expected.extend(differences.as_object().unwrap().clone());
                let actual = dump(&content);
                if actual != expected {
                    wrong.push(format!(
                        "{kind} {}: reads {actual:?}, not {expected:?}",
                        vector["changes"]
                    ));
                }
            }
            (Ok(_), None) => wrong.push(format!("{kind} {} is accepted", vector["changes"])),
            (Err(rejection), Some(_)) => wrong.push(format!(
                "{kind} {} is refused: {rejection}",
                vector["changes"]
            )),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} disagreements:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn signed_envelopes_verify_and_tampered_ones_do_not() {
    for vector in vectors()["envelopes"].as_array().unwrap() {
        let (envelope, content) = Envelope::parse_with_content(vector).unwrap();
        assert_eq!(content.unwrap().message_type(), message_type(vector));
        if envelope.chain == Chain::Avax {
            // These are signed like on Ethereum, which is no signature of Avalanche.
            let rejection = envelope.verify_signature().unwrap_err();
            assert_eq!(rejection.code, ErrorCode::InvalidSignature);
            continue;
        }
        envelope.verify_signature().unwrap();
        let mut other = envelope.clone();
        other.item_hash = ItemHash::of(b"other");
        assert_eq!(
            other.verify_signature().unwrap_err().code,
            ErrorCode::InvalidSignature
        );
        assert!(other.verify_hash().is_err());
        let mut unsigned = envelope.clone();
        unsigned.signature = None;
        assert_eq!(
            unsigned.verify_signature().unwrap_err().reason(),
            "Missing signature"
        );
        let mut moved = envelope;
        moved.chain = if moved.chain == Chain::Sol {
            Chain::Eclipse
        } else {
            Chain::Optimism
        };
        if moved.chain != Chain::Eclipse || vector["chain"] == "SOL" {
            assert!(moved.verify_signature().is_err());
        }
    }
}

fn post(change: impl FnOnce(&mut Map<String, Value>)) -> Value {
    let item_content = r#"{"address":"0xA","time":1.5,"type":"t","content":null}"#;
    let mut message = serde_json::json!({"sender": "0xA", "chain": "ETH", "type": "POST", "time": 1.5,
        "item_content": item_content, "item_hash": ItemHash::of(item_content.as_bytes())});
    change(message.as_object_mut().unwrap());
    message
}

/// A post with this content text and the hash that belongs to it.
fn post_of(item_content: String) -> Value {
    post(|fields| {
        fields.insert(
            "item_hash".into(),
            ItemHash::of(item_content.as_bytes()).as_str().into(),
        );
        fields.insert("item_content".into(), item_content.into());
    })
}

#[test]
fn envelope_rules_name_the_field() {
    let reason = |value: Value| Envelope::parse_with_content(&value).unwrap_err().reason();
    let (envelope, content) = Envelope::parse_with_content(&post(|_| ())).unwrap();
    assert_eq!(
        (envelope.item_type.as_str(), content.unwrap().address()),
        ("inline", "0xA")
    );
    assert!(reason(post(|fields| drop(fields.remove("sender")))).starts_with("sender: "));
    assert!(
        reason(post(|fields| drop(
            fields.insert("type".into(), "GOSSIP".into())
        )))
        .contains("Invalid message_type")
    );
    assert!(
        reason(post(|fields| drop(
            fields.insert("chain".into(), "BTC".into())
        )))
        .starts_with("chain: ")
    );
    assert!(
        reason(post(|fields| drop(
            fields.insert("item_type".into(), "storage".into())
        )))
        .contains("storage messages cannot define item_content")
    );
    assert!(
        reason(post(|fields| drop(
            fields.insert("item_hash".into(), "a".repeat(64).into())
        )))
        .starts_with("item_hash: ")
    );
    assert!(
        reason(post(|fields| drop(
            fields.insert("signature".into(), Value::Object(Map::new()))
        )))
        .starts_with("signature: ")
    );
    assert!(
        reason(post(|fields| drop(
            fields.insert("time".into(), "yesterday".into())
        )))
        .starts_with("time: ")
    );
    assert!(reason(post_of("x".repeat(200_001))).contains("Message too long"));
    assert!(
        reason(post_of(
            r#"{"address":"0xA","time":1,"type":"a\u0000"}"#.into()
        ))
        .contains("\\u0000")
    );
    assert!(reason(post_of(r#"{"time":1,"type":"a"}"#.into())).starts_with("address: "));
    assert!(reason(post_of("{".into())).contains("not valid JSON"));
}

#[test]
fn a_content_in_a_file_takes_address_and_time_from_the_envelope() {
    let text = r#"{"type":"t"}"#;
    let envelope = Envelope::parse(&post(|fields| {
        fields.remove("item_content");
        fields.insert(
            "item_hash".into(),
            ItemHash::of(text.as_bytes()).as_str().into(),
        );
    }))
    .unwrap();
    assert_eq!(envelope.inline_content(), Ok(None));
    let content = envelope.parse_content(text).unwrap();
    assert_eq!((content.address(), content.time()), ("0xA", 1.5));
}

#[test]
fn times_may_be_dates() {
    for text in [
        "1970-01-01T00:01:00Z",
        "1970-01-01T00:01:00.000+00:00",
        "1970-01-01 00:01:00",
        "60",
        "60.0",
    ] {
        let envelope = Envelope::parse(&post(|fields| {
            drop(fields.insert("time".into(), text.into()))
        }))
        .unwrap();
        assert_eq!(envelope.time, 60.0, "{text}");
    }
}

#[test]
fn what_is_signed_here_parses_and_verifies() {
    let key = aleph_message::Keypair::generate();
    let content = serde_json::json!({"key": "k", "content": {"a": 1}});
    let envelope = Envelope::sign(
        &key,
        MessageType::Aggregate,
        Some("TEST"),
        1_700_000_000.25,
        content,
    )
    .unwrap();
    let read = Envelope::parse(&serde_json::to_value(&envelope).unwrap()).unwrap();
    assert_eq!(read, envelope);
    read.verify_signature().unwrap();
    assert!(Envelope::sign(&key, MessageType::Store, None, 1.0, serde_json::json!({})).is_err());
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-zA-Z0-9 ]{0,12}".prop_map(Value::from),
        Just(Value::from("a".repeat(64))),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z_]{1,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_in_any_field_is_safe_and_what_is_accepted_is_stable(
        kind in 0..7_usize, field in any::<prop::sample::Index>(), value in json()
    ) {
        let vectors = vectors();
        let (name, base) = vectors["bases"].as_object().unwrap().iter().nth(kind).unwrap();
        let mut raw = base.clone();
        let key = field.get(&raw.as_object().unwrap().keys().cloned().collect::<Vec<_>>()).clone();
        raw[key] = value;
        let kind = name.parse().unwrap();
        if let Ok(content) = Content::parse(kind, raw) {
            let written = serde_json::to_value(&content.body).unwrap();
            prop_assert_eq!(Content::parse(kind, written).unwrap().body, content.body);
        }
    }

    #[test]
    fn any_envelope_is_safe(field in any::<prop::sample::Index>(), value in json()) {
        let mut message = post(|_| ());
        let key = field.get(&message.as_object().unwrap().keys().cloned().collect::<Vec<_>>()).clone();
        message[key] = value;
        if let Ok((envelope, _)) = Envelope::parse_with_content(&message) {
            let _ = envelope.verify_signature();
        }
    }
}
