//! Who may act for whom: every filter of the `security` aggregate.

use aleph_message::{Keypair, MessageType};
use serde_json::{Value, json};

use super::support::{Node, aggregate, amend, forget, post, signed, signed_on};

/// What the friend does for the owner.
fn deed(
    friend: &Keypair,
    owner: &str,
    kind: MessageType,
    channel: &str,
    mut content: Value,
) -> Value {
    content["address"] = owner.into();
    // Distinct each time, so that each is decided anew.
    content["content"]["nonce"] = super::support::now().to_bits().to_string().into();
    signed_on(friend, kind, Some(channel), super::support::now(), content)
}

#[tokio::test]
async fn every_filter_of_a_rule_must_allow_what_is_done() {
    let node = Node::start().await;
    let (owner, friend) = (Keypair::generate(), Keypair::generate());
    let name = friend.address();
    let post = |kind: &str, channel: &str| {
        deed(
            &friend,
            &owner.address(),
            MessageType::Post,
            channel,
            json!({"type": kind}),
        )
    };
    let entry = |key: &str| {
        deed(
            &friend,
            &owner.address(),
            MessageType::Aggregate,
            "C",
            json!({"key": key}),
        )
    };
    let cases = [
        (json!([]), post("t", "C"), false),
        (json!([{"address": owner.address()}]), post("t", "C"), false),
        (json!([{"address": name}]), post("t", "C"), true),
        (
            json!([{"address": name.to_uppercase().replace("0X", "0x")}]),
            post("t", "C"),
            true,
        ),
        (
            json!([{"address": name, "types": [], "channels": []}]),
            post("t", "C"),
            true,
        ),
        (
            json!([{"address": name, "chain": "ETH"}]),
            post("t", "C"),
            true,
        ),
        (
            json!([{"address": name, "chain": "SOL"}]),
            post("t", "C"),
            false,
        ),
        (
            json!([{"address": name, "channels": ["C", "D"]}]),
            post("t", "C"),
            true,
        ),
        (
            json!([{"address": name, "channels": ["D"]}]),
            post("t", "C"),
            false,
        ),
        (
            json!([{"address": name, "types": ["POST"]}]),
            post("t", "C"),
            true,
        ),
        (
            json!([{"address": name, "types": ["AGGREGATE"]}]),
            post("t", "C"),
            false,
        ),
        (
            json!([{"address": name, "post_types": ["t"]}]),
            post("t", "C"),
            true,
        ),
        (
            json!([{"address": name, "post_types": ["u"]}]),
            post("t", "C"),
            false,
        ),
        (
            json!([{"address": name, "post_types": ["u"]}]),
            entry("k"),
            true,
        ),
        (
            json!([{"address": name, "aggregate_keys": ["k"]}]),
            entry("k"),
            true,
        ),
        (
            json!([{"address": name, "aggregate_keys": ["l"]}]),
            entry("k"),
            false,
        ),
        (
            json!([{"address": name, "aggregate_keys": ["l"]}]),
            post("t", "C"),
            true,
        ),
        // One rule must allow everything; two halves do not add up.
        (
            json!([{"address": name, "channels": ["C"], "types": ["STORE"]},
            {"address": name, "channels": ["D"], "types": ["POST"]}]),
            post("t", "C"),
            false,
        ),
        (
            json!([{"address": name, "types": ["STORE"]}, {"address": name, "types": ["POST"]}]),
            post("t", "C"),
            true,
        ),
        (json!("nonsense"), post("t", "C"), false),
        (
            json!([{"address": name, "types": "POST"}, 7, null]),
            post("t", "C"),
            true,
        ),
    ];
    for (rules, message, allowed) in cases {
        node.accept(&aggregate(
            &owner,
            "security",
            json!({"authorizations": rules}),
        ))
        .await;
        if allowed {
            node.accept(&message).await;
        } else {
            assert_eq!(node.refuse(&message).await, 2, "{rules}");
        }
    }
}

#[tokio::test]
async fn whoever_may_not_create_a_message_may_not_amend_or_forget_it() {
    let node = Node::start().await;
    let (owner, friend) = (Keypair::generate(), Keypair::generate());
    let note = node.accept(&post(&owner, "note", json!(1))).await;
    let diary = node.accept(&post(&owner, "diary", json!(1))).await;
    let amended = node.accept(&amend(&owner, &note, json!(2))).await;
    let rules = json!({"authorizations": [{"address": friend.address(), "types": ["POST"], "post_types": ["note"]}]});
    node.accept(&aggregate(&owner, "security", rules)).await;
    let for_owner = |of: &str, value: Value| {
        signed(
            &friend,
            MessageType::Post,
            json!({"address": owner.address(), "type": "amend", "ref": of, "content": value}),
        )
    };
    // An amend is judged as what it amends, although its own type is another.
    node.accept(&for_owner(&note, json!(3))).await;
    assert_eq!(node.refuse(&for_owner(&diary, json!(3))).await, 2);
    // In the friend's own name it is not the owner's post any more.
    assert_eq!(node.refuse(&amend(&friend, &note, json!(4))).await, 2);
    assert_eq!(node.refuse(&forget(&friend, &[&note, &diary])).await, 2);
    assert_eq!(node.message(&note).await.1["status"], "processed");
    node.accept(&forget(&friend, &[&amended])).await;
    node.accept(&forget(&friend, &[&note])).await;
    assert_eq!(node.message(&note).await.1["status"], "forgotten");
}

#[tokio::test]
async fn authorizations_are_listed_from_both_ends() {
    let node = Node::start().await;
    let (owner, friend, other) = (
        Keypair::generate(),
        Keypair::generate(),
        Keypair::generate(),
    );
    let rules = json!({"authorizations": [
        {"address": friend.address(), "types": ["POST"], "channels": ["C"]},
        {"address": friend.address(), "chain": "SOL"},
        {"address": other.address(), "chain": ""},
    ]});
    node.accept(&aggregate(&owner, "security", rules)).await;
    let granted = format!("/api/v0/authorizations/granted/{}.json", owner.address());
    let (_, all) = node.get(&granted).await;
    assert_eq!(
        (&all["pagination_total"], &all["address"]),
        (&json!(2), &json!(owner.address()))
    );
    let of_friend = &all["authorizations"][friend.address()];
    assert_eq!(of_friend.as_array().unwrap().len(), 2);
    assert!(of_friend[0].get("address").is_none());
    let count = async |query: &str| {
        let (code, body) = node.get(&format!("{granted}?{query}")).await;
        assert_eq!(code, 200);
        body["authorizations"]
            .as_object()
            .unwrap()
            .values()
            .map(|v| v.as_array().unwrap().len())
            .sum::<usize>()
    };
    assert_eq!(count(&format!("grantee={}", other.address())).await, 1);
    assert_eq!(count("types=STORE").await, 2);
    assert_eq!(count("chains=ETH").await, 2);
    assert_eq!(count("channels=D").await, 2);
    assert_eq!(
        count("pagination=1&page=2").await + count("pagination=1").await,
        3
    );
    let (code, received) = node
        .get(&format!(
            "/api/v0/authorizations/received/{}.json",
            friend.address()
        ))
        .await;
    assert_eq!(code, 200);
    assert_eq!(received["authorizations"][owner.address()], *of_friend);
    let (code, none) = node.get("/api/v0/authorizations/received/0xabc.json").await;
    assert_eq!((code, &none["authorizations"]), (200, &json!({})));
}
