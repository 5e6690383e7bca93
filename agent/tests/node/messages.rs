//! Messages are verified here, whatever the core channel node says, and followed when they change.

use aleph_message::{Envelope, ItemHash, Keypair, MessageType};
use crn_agent::ledger::{Source, State};
use http::StatusCode;
use serde_json::{Value, json};

use crate::fixtures::{failed, instance, instance_content, program_content, reason};
use crate::support::{Node, squashfs};

#[tokio::test]
async fn a_message_that_is_not_genuine_is_refused_and_never_started() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let image = node.ccn.store(&owner, b"a raw disk");
    let sign = |seconds: f64| {
        Envelope::sign(
            &owner,
            MessageType::Instance,
            None,
            seconds,
            instance_content(&image, "hold"),
        )
        .unwrap()
    };
    let (unsigned, other_signer, tampered) = (sign(1.0), sign(2.0), sign(3.0));
    let mut message = json!(unsigned);
    message["signature"] = Value::Null;
    node.ccn.take(&unsigned, message);
    let mut message = json!(other_signer);
    message["sender"] = json!(Keypair::generate().address());
    node.ccn.take(&other_signer, message);
    let mut message = json!(tampered);
    message["item_content"] = json!(
        message["item_content"]
            .as_str()
            .unwrap()
            .replace("64", "63")
    );
    node.ccn.take(&tampered, message);
    node.push(&[
        &unsigned.item_hash,
        &other_signer.item_hash,
        &tampered.item_hash,
    ])
    .await;
    for envelope in [unsigned, other_signer, tampered] {
        let record = node.until(&envelope.item_hash, "failed", failed).await;
        assert!(record.lease.is_none() && record.message.is_none());
        assert!(reason(record.state).contains("refused"));
    }
    assert_eq!(node.bench.started(), 0);
}

#[tokio::test]
async fn a_message_signed_for_another_needs_that_others_permission() {
    let node = Node::start().await;
    let (owner, helper) = (Keypair::generate(), Keypair::generate());
    let image = node.ccn.store(&owner, b"a raw disk");
    let mut content = instance_content(&image, "hold");
    content["address"] = json!(owner.address());
    let hash = node.ccn.publish(&helper, MessageType::Instance, content);
    node.push(&[&hash]).await;
    let record = node.until(&hash, "failed", failed).await;
    assert!(reason(record.state).contains("may not act for"));
    node.ccn.set_aggregate(
        &owner.address(),
        "security",
        json!({"authorizations": [{"address": helper.address()}]}),
    );
    node.reconciler
        .run(&hash, Source::Scheduler, true)
        .await
        .unwrap();
    node.until_running(&hash).await;
}

#[tokio::test]
async fn a_corrupt_image_is_not_booted_and_a_good_one_later_is() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let hash = instance(&node, &owner);
    node.ccn
        .set_file(&ItemHash::of(b"a raw disk"), b"another disk");
    node.push(&[&hash]).await;
    let record = node.until(&hash, "failed", failed).await;
    assert!(record.lease.is_none(), "a failed machine holds nothing");
    assert!(reason(record.state).contains("corrupt"));
    assert!(!node.bench.disks(&hash).exists());
    let (status, answer) = node.push(&[&hash]).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        answer["errors"][hash.as_str()]
            .as_str()
            .unwrap()
            .contains("corrupt"),
        "{answer}"
    );
    node.ccn
        .set_file(&ItemHash::of(b"a raw disk"), b"a raw disk");
    node.until_running(&hash).await;
}

#[tokio::test]
async fn the_newest_amendment_by_the_same_owner_is_used() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let (code, runtime) = (
        node.ccn.store(&owner, b"code"),
        node.ccn.store(&owner, &squashfs("runtime")),
    );
    node.ccn.store_as(&owner, b"newer code", Some(&code));
    node.ccn
        .store_as(&Keypair::generate(), b"evil code", Some(&code));
    let hash = node.ccn.publish(
        &owner,
        MessageType::Program,
        program_content(&code, &runtime),
    );
    assert_eq!(node.get(&format!("/vm/{hash}")).await.0, StatusCode::OK);
    let cache = node.dir.path().join("state/cache");
    assert!(cache.join(ItemHash::of(b"newer code").as_str()).exists());
    assert!(!cache.join(ItemHash::of(b"code").as_str()).exists());
    assert!(!cache.join(ItemHash::of(b"evil code").as_str()).exists());
}

#[tokio::test]
async fn a_forgotten_message_takes_its_machine_along() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let hash = instance(&node, &owner);
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    node.ccn.set_status(&hash, "forgotten");
    node.ccn.publish(
        &owner,
        MessageType::Forget,
        json!({"hashes": [hash], "reason": "done"}),
    );
    let record = node
        .until(&hash, "erased", |state| *state == State::Erased)
        .await;
    assert!(record.lease.is_none() && !node.bench.runs(&hash) && !node.bench.disks(&hash).exists());
}

/// A rejection makes no message of its own: by what a node tells, and where none does, by looking.
#[tokio::test]
async fn a_message_that_is_no_longer_in_force_takes_its_machine_along_within_seconds() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let told = instance(&node, &owner);
    let (found, stays) = (
        instance(&node, &Keypair::generate()),
        instance(&node, &Keypair::generate()),
    );
    node.push(&[&told, &found, &stays]).await;
    for hash in [&told, &found, &stays] {
        node.until_running(hash).await;
    }
    let erased = |state: &State| *state == State::Erased;
    node.ccn.set_status(&told, "rejected");
    node.ccn.tell_again(&told);
    node.until(&told, "erased", erased).await;
    // Seen in force at least once before.
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    node.ccn.set_status(&found, "removed");
    node.until(&found, "erased", erased).await;
    assert!(!node.bench.runs(&found) && !node.bench.disks(&found).exists());
    assert_eq!(node.record(&stays).await.state, State::Running);
}
