//! What a sender, a clock and a disk may not do, told to clients of a running node.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test like the tests themselves"
)]

mod support;

use aleph_message::Keypair;
use serde_json::{Value, json};
use support::{Ccn, now, post};

fn text(body: &Value) -> &str {
    body.as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_who_is_too_fast_is_told_to_wait_and_others_are_served() {
    let ccn = Ccn::start("[limits]\nmessages_per_minute = 3\n").await;
    let (fast, other) = (Keypair::generate(), Keypair::generate());
    let message = |key: &Keypair, number: i64| post(key, "t", None, now(), json!({"n": number}));
    for number in 0..3 {
        ccn.take(&message(&fast, number)).await;
    }
    let (status, body) = ccn.publish(&message(&fast, 3)).await;
    assert_eq!(status, 429);
    assert!(
        text(&body).contains(&fast.address()) && text(&body).contains("3 a minute"),
        "{body}"
    );
    ccn.take(&message(&other, 0)).await;

    // Whoever signs wrongly in somebody else's name uses up nothing of theirs.
    let third = Keypair::generate();
    for number in 0..3 {
        let mut forged = message(&other, number + 10);
        forged.sender = third.address();
        ccn.publish(&forged).await;
    }
    ccn.take(&message(&third, 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_of_files_count_for_their_sender() {
    let ccn = Ccn::start("[limits]\nbytes_per_minute = 3000\n").await;
    let key = Keypair::generate();
    ccn.store(&key, &[1; 2000], "hold", now()).await;
    let file = aleph_message::ItemHash::of(&[2; 2000]);
    let content = json!({"item_type": "storage", "item_hash": file, "payment": {"type": "hold"}});
    let message = aleph_message::Envelope::sign(
        &key,
        aleph_message::MessageType::Store,
        None,
        now(),
        content,
    )
    .unwrap();
    let (status, body) = ccn.upload(&[2; 2000], &message).await;
    assert_eq!(status, 429);
    assert!(text(&body).contains("too many bytes"), "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_from_the_future_is_refused_and_one_from_the_past_is_not() {
    let ccn = Ccn::start("[limits]\nmax_clock_skew_seconds = 60\n").await;
    let key = Keypair::generate();
    let (status, body) = ccn
        .publish(&post(&key, "t", None, now() + 600.0, json!(1)))
        .await;
    assert_eq!((status, &body["error_code"]), (422, &json!(0)), "{body}");
    assert!(
        body.to_string().contains("ahead of this node's clock"),
        "{body}"
    );
    ccn.take(&post(&key, "t", None, 1000.0, json!(1))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_the_watermark_nothing_new_is_taken_and_everything_is_read() {
    let mut ccn = Ccn::start("").await;
    let key = Keypair::generate();
    let hash = ccn
        .take(&post(&key, "t", None, now(), json!({"kept": true})))
        .await;
    ccn.reconfigure(&format!("[limits]\nmin_free_disk_bytes = {}\n", i64::MAX))
        .await;
    let (status, body) = ccn.publish(&post(&key, "t", None, now(), json!(2))).await;
    assert_eq!(status, 507);
    assert!(text(&body).contains("disk is nearly full"), "{body}");
    let (status, body) = ccn
        .post_json("/api/v0/storage/add_json", &json!({"a": 1}))
        .await;
    assert_eq!(status, 507, "{body}");
    assert_eq!(ccn.status(&hash).await, "processed");
    assert_eq!(ccn.ok("/api/v0/messages.json").await["pagination_total"], 1);
}
