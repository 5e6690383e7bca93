//! FORGET: what goes, what goes along with it, and what stays.

use aleph_message::Keypair;
use serde_json::{Value, json};

use super::support::{Node, aggregate, amend, forget, hash_of, post};

#[tokio::test]
async fn a_forgotten_post_leaves_a_skeleton_and_takes_its_amends_along() {
    let node = Node::start().await;
    let key = Keypair::generate();
    let message = post(&key, "t", json!({"secret": 1}));
    let original = node.accept(&message).await;
    let change = node
        .accept(&amend(&key, &original, json!({"secret": 2})))
        .await;
    let by = node.accept(&forget(&key, &[&original])).await;
    let (code, gone) = node.message(&original).await;
    assert_eq!(
        (code, &gone["status"], &gone["forgotten_by"]),
        (200, &json!("forgotten"), &json!([by]))
    );
    // Clients read this time as text.
    assert!(gone["message"]["time"].as_str().unwrap().contains('T'));
    assert!(!gone.to_string().contains("secret"));
    assert_eq!(node.message(&change).await.1["status"], "forgotten");
    assert_eq!(node.get("/api/v0/posts.json").await.1["posts"], json!([]));
    assert_eq!(
        node.get(&format!("/api/v0/messages/{original}/content"))
            .await
            .0,
        422
    );

    let (_, list) = node
        .get("/api/v0/messages.json?msgStatuses=forgotten&sortOrder=1")
        .await;
    let items = list["messages"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    assert!(
        items
            .iter()
            .all(|item| item["status"] == "forgotten" && item["time"].is_f64())
    );
    assert_eq!(
        node.get("/api/v0/messages.json?msgStatuses=forgotten,processed")
            .await
            .0,
        400
    );
    assert_eq!(
        node.get("/api/v0/messages.json?msgStatuses=forgotten&tags=x")
            .await
            .0,
        400
    );

    // It stays forgotten, and forgetting it again is no mistake.
    let (code, answer) = node.publish(&message).await;
    assert_eq!(
        (code, &answer["message_status"]),
        (410, &json!("forgotten"))
    );
    node.accept(&forget(&key, &[&original, &change])).await;
}

#[tokio::test]
async fn a_forgotten_amend_uncovers_the_one_before() {
    let node = Node::start().await;
    let key = Keypair::generate();
    let original = node.accept(&post(&key, "t", json!(0))).await;
    let first = node.accept(&amend(&key, &original, json!(1))).await;
    let second = node.accept(&amend(&key, &original, json!(2))).await;
    for (forgotten, left) in [(&second, 1), (&first, 0)] {
        node.accept(&forget(&key, &[forgotten])).await;
        let (_, posts) = node.get("/api/v1/posts.json").await;
        assert_eq!(posts["posts"][0]["content"], left);
    }
}

#[tokio::test]
async fn a_forgotten_part_of_an_aggregate_is_as_if_it_had_never_been() {
    let node = Node::start().await;
    let key = Keypair::generate();
    let first = node
        .accept(&aggregate(&key, "k", json!({"a": 1, "b": 1})))
        .await;
    let second = node.accept(&aggregate(&key, "k", json!({"a": 2}))).await;
    let path = format!("/api/v0/aggregates/{}.json", key.address());
    assert_eq!(
        node.get(&path).await.1["data"]["k"],
        json!({"a": 2, "b": 1})
    );
    node.accept(&forget(&key, &[&second])).await;
    assert_eq!(
        node.get(&path).await.1["data"]["k"],
        json!({"a": 1, "b": 1})
    );
    node.accept(&forget(&key, &[&first])).await;
    assert_eq!(node.get(&path).await.0, 404);
}

#[tokio::test]
async fn a_forgotten_store_lets_its_name_fall_back() {
    let node = Node::start().await;
    let key = Keypair::generate();
    let (first, old) = node.store(&key, b"one", json!({"ref": "name"})).await;
    let (second, new) = node.store(&key, b"two", json!({"ref": "name"})).await;
    let path = format!("/api/v0/storage/by-ref/{}/name", key.address());
    assert_eq!(node.get(&path).await.1["file_hash"], json!(new));
    node.accept(&forget(&key, &[&second])).await;
    assert_eq!(node.get(&path).await.1["file_hash"], json!(old));
    let (_, kept) = node
        .get(&format!("/api/v0/storage/by-message-hash/{first}"))
        .await;
    assert_eq!((&kept["ref"], &kept["size"]), (&json!("name"), &json!(3)));
    // The bytes outlive the claim for a day.
    assert_eq!(node.get(&format!("/api/v0/storage/raw/{new}")).await.0, 200);
    node.accept(&forget(&key, &[&first])).await;
    assert_eq!(node.get(&path).await.0, 404);
}

#[tokio::test]
async fn what_cannot_be_forgotten_is_refused_with_the_reason() {
    let node = Node::start().await;
    let (key, stranger) = (Keypair::generate(), Keypair::generate());
    let kept = node.accept(&post(&key, "t", json!(1))).await;
    let gone = node.accept(&post(&key, "t", json!(2))).await;
    let by = node.accept(&forget(&key, &[&gone])).await;
    let refuse = async |message: Value| node.refuse(&message).await;
    assert_eq!(refuse(forget(&key, &[])).await, 500);
    assert_eq!(refuse(forget(&key, &[&by])).await, 502);
    assert_eq!(refuse(forget(&stranger, &[&kept])).await, 2);
    // Unknown may yet come; either all targets go or none.
    let early = forget(&key, &[&kept, &"e".repeat(64)]);
    assert_eq!(node.delay(&early).await["status"], "pending");
    assert_eq!(node.message(&kept).await.1["status"], "processed");
}

#[tokio::test]
async fn a_forget_that_came_too_early_works_when_its_target_comes() {
    let node = Node::start().await;
    let key = Keypair::generate();
    let message = post(&key, "t", json!(1));
    let early = forget(&key, &[&hash_of(&message)]);
    node.delay(&early).await;
    node.accept(&message).await;
    node.until(&hash_of(&early), "processed").await;
    assert_eq!(
        node.message(&hash_of(&message)).await.1["status"],
        "forgotten"
    );
}
