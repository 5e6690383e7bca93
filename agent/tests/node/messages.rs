//! Messages are verified here, whatever the core channel node says, and followed when they change.

use std::time::Duration;

use aleph_message::{Envelope, ItemHash, Keypair, MessageType};
use crn_agent::intake::watch::Watch;
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

/// P3, "idle CPU ~0": what is asked again and again is asked about many machines at a time.
#[tokio::test]
async fn two_hundred_machines_cost_a_few_questions_a_sweep_and_none_of_their_own() {
    let node = Node::start_with(|config| config.limits.vcpu_overcommit = 1000).await;
    // Each owner has one that allows amendments and one that uses the newest of a file.
    let machines: Vec<_> = (0..100)
        .flat_map(|_| {
            let owner = Keypair::generate();
            let image = node.ccn.store(&owner, b"a raw disk");
            let mut open = instance_content(&image, "hold");
            open["allow_amend"] = true.into();
            let volume = node.ccn.store(&owner, &squashfs("volume"));
            let mut newest = instance_content(&image, "hold");
            newest["volumes"] = json!([{"ref": volume, "use_latest": true, "mount": "/v"}]);
            [open, newest].map(|content| node.ccn.publish(&owner, MessageType::Instance, content))
        })
        .collect();
    node.push(&machines.iter().collect::<Vec<_>>()).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(600);
    while node.ledger.running().await.unwrap().len() < machines.len() {
        let late = tokio::time::Instant::now() > deadline;
        assert!(!late, "{} run", node.bench.started());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let sweep = Duration::from_millis(200);
    Watch {
        sweep,
        ..node.watch.clone()
    }
    .start();
    let of = |asked: &[String], what: &str| {
        let matching = asked.iter().filter(|path| path.contains(what));
        matching.count()
    };
    let after_sweeps = async |from: usize, count: usize| {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(300);
        loop {
            let asked = node.ccn.asked().split_off(from);
            if of(&asked, "/aggregates?") >= count {
                return asked;
            }
            assert!(tokio::time::Instant::now() < deadline, "{asked:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // The first of them learns what the files' messages say.
    after_sweeps(node.ccn.asked().len(), 4).await;
    let from = node.ccn.asked().len();
    let asked = after_sweeps(from, 12).await;
    let sweeps = of(&asked, "/aggregates?");
    for (what, each) in [
        ("/api/v0/messages/", 0),
        ("/aggregates/", 0),
        ("/aggregates?", 2),
        ("msgType=INSTANCE", 3),
        ("msgType=STORE", 3),
    ] {
        // Two owners' lists of aggregates are one sweep, and the first and the last one may be half.
        let most = (sweeps / 2 + 2) * each;
        assert!(
            of(&asked, what) <= most,
            "{what}: {} of {most}",
            of(&asked, what)
        );
    }
    let looks = asked.iter().filter(|path| path.contains("hashes="));
    for look in looks {
        assert!(
            look.matches("%2C").count() + look.matches(',').count() >= 90,
            "{look}"
        );
    }
    // And what ends, ends.
    node.ccn.set_status(&machines[0], "removed");
    let erased = |state: &State| *state == State::Erased;
    node.until(&machines[0], "erased", erased).await;
    assert_eq!(node.record(&machines[1]).await.state, State::Running);
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
    tokio::time::sleep(Duration::from_secs(6)).await;
    node.ccn.set_status(&found, "removed");
    node.until(&found, "erased", erased).await;
    assert!(!node.bench.runs(&found) && !node.bench.disks(&found).exists());
    assert_eq!(node.record(&stays).await.state, State::Running);
}
