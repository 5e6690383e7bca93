//! Messages that come after a machine has started: another version of it, one that takes a version back; and disks that
//! begin as others.

use std::sync::atomic::Ordering;
use std::time::Duration;

use aleph_message::{Envelope, ItemHash, Keypair, MessageType};
use crn_agent::ledger::{Record, State};
use serde_json::{Value, json};

use crate::fixtures::{failed, instance_content, reason};
use crate::support::Node;

async fn until_memory(node: &Node, hash: &ItemHash, mib: u64) -> Record {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let record = node.until_running(hash).await;
        if record.lease.unwrap().memory_mib == mib {
            return record;
        }
        assert!(tokio::time::Instant::now() < deadline, "{:?}", record.lease);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Row "Update watch": by the event; nobody else's version, and nobody else's machine.
#[tokio::test]
async fn another_version_of_a_message_restarts_its_machine_and_no_others() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let image = node.ccn.store(&owner, b"a raw disk");
    let version = |memory: u64, replaces: Option<&ItemHash>, open: bool| {
        let mut content = instance_content(&image, "hold");
        content["resources"]["memory"] = memory.into();
        content["allow_amend"] = open.into();
        if let Some(replaces) = replaces {
            content["replaces"] = json!(replaces);
        }
        content
    };
    let publish =
        |key: &Keypair, content: Value| node.ccn.publish(key, MessageType::Instance, content);
    let (changes, closed) = (
        publish(&owner, version(64, None, true)),
        publish(&owner, version(65, None, false)),
    );
    node.push(&[&changes, &closed]).await;
    let disk = node.bench.disks(&changes).join("root.raw");
    until_memory(&node, &changes, 64).await;
    std::fs::write(&disk, "what the guest wrote").unwrap();
    let before = until_memory(&node, &closed, 65).await.times.started;

    // By a stranger, and of one that allows none: nothing happens, as the owner's next one shows.
    publish(&Keypair::generate(), version(200, Some(&changes), true));
    publish(&owner, version(201, Some(&closed), false));
    let newest = publish(&owner, version(100, Some(&changes), true));
    let record = until_memory(&node, &changes, 100).await;
    assert_eq!(record.hash, changes);
    assert_eq!(std::fs::read(&disk).unwrap(), b"what the guest wrote");
    assert_eq!(node.bench.started(), 3);

    // The next agent runs it as it was, for all that a later one says which cannot run here.
    let mut impossible = version(202, Some(&changes), true);
    impossible["environment"]["trusted_execution"] = json!({"policy": 1, "firmware": null});
    impossible["address"] = json!(owner.address());
    let later = time::OffsetDateTime::now_utc().unix_timestamp() as f64 + 5.0;
    let impossible = Envelope::sign(
        &owner,
        MessageType::Instance,
        Some("TEST"),
        later,
        impossible,
    )
    .unwrap();
    let impossible = node.ccn.take(&impossible, json!(impossible));
    let node = node.restarted().await;
    until_memory(&node, &changes, 100).await;
    node.ccn.set_status(&impossible, "forgotten");

    // Taken back, the version before counts.
    node.ccn.set_status(&newest, "forgotten");
    node.ccn.publish(
        &owner,
        MessageType::Forget,
        json!({"hashes": [newest], "reason": "a mistake"}),
    );
    until_memory(&node, &changes, 64).await;
    assert_eq!(until_memory(&node, &closed, 65).await.state, State::Running);
    assert!(before.is_some());
}

/// R11: a stream that breaks goes on where it was: what came meanwhile is heard, what was heard is not told again.
#[tokio::test]
async fn what_is_said_while_nobody_listens_is_heard_afterwards_and_not_all_from_the_start() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let image = node.ccn.store(&owner, b"a raw disk");
    // Whole seconds are what a stream can be asked for.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mut content = instance_content(&image, "hold");
    content["allow_amend"] = true.into();
    let first = content.clone();
    let hash = node.ccn.publish(&owner, MessageType::Instance, first);
    node.push(&[&hash]).await;
    until_memory(&node, &hash, 64).await;
    node.ccn.hang_up();
    content["replaces"] = json!(hash);
    content["resources"]["memory"] = 96.into();
    node.ccn.publish(&owner, MessageType::Instance, content);
    until_memory(&node, &hash, 96).await;
    let asked = node.ccn.asked();
    let since = asked
        .iter()
        .filter_map(|path| path.split_once("startDate="));
    let since: Vec<i64> = since.map(|(_, date)| date.parse().unwrap()).collect();
    assert!(since.len() >= 2 && since[1] > since[0], "{since:?}");
}

/// Also before it has come up; and one that could not run at all is tried again.
#[tokio::test]
async fn another_version_reaches_a_machine_that_is_starting_and_one_that_was_given_up() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let image = node.ccn.store(&owner, b"a raw disk");
    let publish = |memory: u64, size_mib: u64, replaces: Option<&ItemHash>| {
        let mut content = instance_content(&image, "hold");
        content["resources"]["memory"] = memory.into();
        content["rootfs"]["size_mib"] = size_mib.into();
        content["allow_amend"] = true.into();
        if let Some(replaces) = replaces {
            content["replaces"] = json!(replaces);
        }
        node.ccn.publish(&owner, MessageType::Instance, content)
    };
    node.bench.mute.store(1, Ordering::SeqCst);
    let slow = publish(64, 10, None);
    node.push(&[&slow]).await;
    node.until(&slow, "starting", |state| *state == State::Starting)
        .await;
    node.bench.mute.store(0, Ordering::SeqCst);
    publish(80, 10, Some(&slow));
    until_memory(&node, &slow, 80).await;
    assert_eq!(node.bench.started(), 2);

    let first = node.ccn.publish(&owner, MessageType::Instance, {
        let mut content = instance_content(&image, "hold");
        content["allow_amend"] = true.into();
        content["environment"]["trusted_execution"] = json!({"policy": 1, "firmware": null});
        content
    });
    node.push(&[&slow, &first]).await;
    let given_up = |state: &State| matches!(state, State::Failed(f) if f.retry_at.is_none());
    node.until(&first, "given up", given_up).await;
    // A stranger's version changes nothing, as the owner's shows.
    let mut content = instance_content(&image, "hold");
    content["replaces"] = json!(first);
    node.ccn
        .publish(&Keypair::generate(), MessageType::Instance, content);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(given_up(&node.record(&first).await.state));
    publish(96, 10, Some(&first));
    until_memory(&node, &first, 96).await;
}

/// R1: what was written on one volume does not turn up as another, nor goes when another does.
#[tokio::test]
async fn a_volume_stays_what_it_is_when_others_come_and_go_and_none_takes_its_place() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let image = node.ccn.store(&owner, b"a raw disk");
    let publish = |memory: u64, mounts: &[&str], replaces: Option<&ItemHash>| {
        let mut content = instance_content(&image, "hold");
        content["resources"]["memory"] = memory.into();
        content["allow_amend"] = true.into();
        let volume = |mount: &&str| json!({"persistence": "host", "name": "v", "size_mib": 1, "mount": mount});
        content["volumes"] = mounts.iter().map(volume).collect();
        if let Some(replaces) = replaces {
            content["replaces"] = json!(replaces);
        }
        node.ccn.publish(&owner, MessageType::Instance, content)
    };
    let hash = publish(64, &["/a", "/b"], None);
    node.push(&[&hash]).await;
    until_memory(&node, &hash, 64).await;
    let disk = |name: &str| node.bench.disks(&hash).join(name);
    std::fs::write(disk("vol1.raw"), "on b").unwrap();
    // It may be the same one under another name: that is not for the node to guess.
    let renamed = publish(70, &["/other", "/b"], Some(&hash));
    tokio::time::sleep(Duration::from_millis(500)).await;
    until_memory(&node, &hash, 64).await;
    // Nor does it when it starts anew.
    let again = node.restarted().await;
    again
        .until(&hash, "started", |_| again.bench.started() == 1)
        .await;
    until_memory(&again, &hash, 64).await;
    assert!(disk("vol0.raw").exists());
    again.ccn.set_status(&renamed, "forgotten");

    publish(80, &["/b/"], Some(&hash));
    until_memory(&again, &hash, 80).await;
    assert!(!disk("vol0.raw").exists(), "its owner has taken it away");
    // Versions are in the order of their seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // A new one gets neither the place nor the name of the one that went, before and after a restart.
    publish(90, &["/c", "/b"], Some(&hash));
    until_memory(&again, &hash, 90).await;
    let last = again.restarted().await;
    last.until(&hash, "started", |_| last.bench.started() == 1)
        .await;
    until_memory(&last, &hash, 90).await;
    assert_eq!(std::fs::read(disk("vol1.raw")).unwrap(), b"on b");
    assert_eq!(std::fs::read(disk("vol2.raw")).unwrap(), b"new");
    assert!(!disk("vol0.raw").exists());
}

/// R18: what a message asks of the node is met or refused by its name, however it comes here.
#[tokio::test]
async fn a_machine_for_another_node_is_refused_by_the_field_that_says_so() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let image = node.ccn.store(&owner, b"a raw disk");
    let publish = |number: usize, requirements: Value| {
        let mut content = instance_content(&image, "hold");
        content["metadata"] = json!({ "number": number });
        content["allow_amend"] = true.into();
        content["requirements"] = requirements;
        node.ccn.publish(&owner, MessageType::Instance, content)
    };
    let right = publish(
        0,
        json!({"cpu": {"vendor": "AuthenticAMD", "features": ["avx2"], "architecture": "x86_64"},
               "node": {"node_hash": "c".repeat(64), "address_regex": "127\\.0\\.0\\.1"}}),
    );
    let wrong = [
        (
            "node.node_hash",
            json!({"node": {"node_hash": "d".repeat(64)}}),
        ),
        (
            "node.owner",
            json!({"node": {"owner": Keypair::generate().address()}}),
        ),
        (
            "node.address_regex",
            json!({"node": {"address_regex": "example"}}),
        ),
        ("cpu.vendor", json!({"cpu": {"vendor": "GenuineIntel"}})),
        (
            "cpu.features",
            json!({"cpu": {"features": ["avx2", "sev_snp"]}}),
        ),
    ];
    let wrong: Vec<_> = wrong
        .into_iter()
        .enumerate()
        .map(|(number, (field, asked))| (field, publish(number + 1, asked)))
        .collect();
    let mut all = vec![&right];
    all.extend(wrong.iter().map(|(_, hash)| hash));
    node.push(&all).await;
    node.until_running(&right).await;
    for (field, hash) in &wrong {
        let record = node.until(hash, "refused", failed).await;
        assert!(record.lease.is_none());
        let reason = reason(record.state);
        assert!(
            reason.contains(&format!("requirements.{field}: ")),
            "{reason}"
        );
    }
    // A version that is for another node does not stop the one that runs.
    let mut elsewhere = instance_content(&image, "hold");
    elsewhere["requirements"] = json!({"node": {"node_hash": "d".repeat(64)}});
    elsewhere["replaces"] = json!(right);
    node.ccn.publish(&owner, MessageType::Instance, elsewhere);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(node.record(&right).await.state, State::Running);
    assert_eq!(node.bench.started(), 1);
}

/// R18: every field of a volume is honoured or refused by its name.
#[tokio::test]
async fn a_volume_with_a_parent_begins_as_its_copy_and_is_refused_when_it_is_smaller() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let image = node.ccn.store(&owner, b"a raw disk");
    let parent = node.ccn.store(&owner, &vec![b'p'; (1 << 20) + 1]);
    let publish = |size_mib: u64| {
        let mut content = instance_content(&image, "hold");
        content["volumes"] = json!([
            {"persistence": "host", "name": "data", "size_mib": size_mib, "mount": "/data",
             "parent": {"ref": parent, "use_latest": false}},
        ]);
        node.ccn.publish(&owner, MessageType::Instance, content)
    };
    let (fits, small) = (publish(3), publish(1));
    node.push(&[&fits, &small]).await;
    let record = node.until_running(&fits).await;
    assert_eq!(record.lease.unwrap().disk_mib, 13);
    let disk = std::fs::read(node.bench.disks(&fits).join("vol0.raw")).unwrap();
    assert_eq!(disk.len(), 3 << 20);
    assert!(disk[..1 << 20].iter().all(|byte| *byte == b'p') && disk[2 << 20] == 0);
    let record = node.until(&small, "failed", failed).await;
    assert!(record.lease.is_none());
    let reason = reason(record.state);
    assert!(reason.starts_with("volumes[0].size_mib: "), "{reason}");
}
