//! Copies and checks of a node's data while it runs, and what the program says about itself.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test like the tests themselves"
)]

mod support;

use aleph_message::Keypair;
use rusqlite::Connection;
use serde_json::json;
use support::{Ccn, now, post, program};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_while_messages_come_in_is_a_node_of_its_own() {
    let ccn = Ccn::start("[scheduler]\nenabled = false\n").await;
    let key = Keypair::generate();
    let file = ccn.store(&key, b"copied", "hold", now()).await;
    let first = ccn
        .take(&post(&key, "t", None, now(), json!({"n": 0})))
        .await;
    let copy = ccn.dir.path().join("copy");
    let (config, target) = (ccn.config(), copy.clone());
    let backup = tokio::task::spawn_blocking(move || {
        program(&["backup".as_ref(), "--config".as_ref(), &config, &target])
    });
    let mut number = 1;
    while !backup.is_finished() {
        ccn.take(&post(&key, "t", None, now(), json!({"n": number})))
            .await;
        number += 1;
    }
    let (done, report) = backup.await.unwrap();
    assert!(done, "{report}");
    let again = program(&["backup".as_ref(), "--config".as_ref(), &ccn.config(), &copy]);
    assert!(
        !again.0 && again.1.contains("is there already"),
        "{}",
        again.1
    );

    let home = tempfile::tempdir().unwrap();
    std::fs::rename(&copy, home.path().join("state")).unwrap();
    let other = Ccn::start_in(home, "[scheduler]\nenabled = false\n").await;
    assert_eq!(other.status(&first).await, "processed");
    let listed = other
        .ok(&format!("/api/v0/addresses/{}/files", key.address()))
        .await;
    assert_eq!(listed["files"][0]["item_hash"], file.as_str());
    let hash = listed["files"][0]["file_hash"].as_str().unwrap();
    assert_eq!(
        other.bytes(&format!("/api/v0/storage/raw/{hash}")).await,
        b"copied"
    );
    let (sound, report) = program(&["verify".as_ref(), "--config".as_ref(), &other.config()]);
    assert!(sound, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_and_named() {
    let ccn = Ccn::start("[scheduler]\nenabled = false\n").await;
    let key = Keypair::generate();
    let store = ccn.store(&key, b"precious", "hold", now()).await;
    let message = ccn
        .take(&post(&key, "t", None, now(), json!({"n": 1})))
        .await;
    let verify = || program(&["verify".as_ref(), "--config".as_ref(), &ccn.config()]);
    let (sound, report) = verify();
    assert!(
        sound && report.contains("2 messages and 1 files checked, 0 flaws"),
        "{report}"
    );

    let database = Connection::open(ccn.state().join("ccn-lite.sqlite")).unwrap();
    let cases = [
        (
            "UPDATE messages SET item_content = replace(item_content, ':1', ':2') WHERE item_hash = ?",
            "UPDATE messages SET item_content = replace(item_content, ':2', ':1') WHERE item_hash = ?",
            "'item_hash' does not match 'sha256(item_content)'",
        ),
        (
            "UPDATE messages SET channel = NULL, signature = '0x' || substr(signature, 5) || '00' WHERE item_hash = ?",
            "",
            "message ",
        ),
    ];
    for (damage, repair, said) in cases {
        assert_eq!(database.execute(damage, [&message]).unwrap(), 1);
        let (sound, report) = verify();
        assert!(
            !sound && report.contains(said) && report.contains(&message),
            "{report}"
        );
        if !repair.is_empty() {
            database.execute(repair, [&message]).unwrap();
        }
    }
    database
        .execute(
            "UPDATE messages SET updated = NULL WHERE item_hash = ?",
            [&message],
        )
        .unwrap();
    assert!(
        verify()
            .1
            .contains(&format!("POST missing among the posts: {message}"))
    );

    let listed = ccn
        .ok(&format!("/api/v0/addresses/{}/files", key.address()))
        .await;
    assert_eq!(listed["files"][0]["item_hash"], store.as_str());
    let hash = listed["files"][0]["file_hash"].as_str().unwrap();
    let blobs = ccn_lite::files::Blobs::at(&ccn.state().join("files"));
    std::fs::write(blobs.path(hash), b"worthles").unwrap();
    assert!(
        verify()
            .1
            .contains(&format!("file {hash}: its bytes do not have this hash"))
    );
    std::fs::remove_file(blobs.path(hash)).unwrap();
    assert!(verify().1.contains(&format!("file {hash}: is missing")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_served_by_one_node() {
    let ccn = Ccn::start("[scheduler]\nenabled = false\n").await;
    let second = ccn.config();
    let (started, report) = tokio::task::spawn_blocking(move || {
        program(&["serve".as_ref(), "--config".as_ref(), &second])
    })
    .await
    .unwrap();
    assert!(
        !started && report.contains("is used by another ccn-lite"),
        "{report}"
    );
}

#[test]
fn the_program_tells_what_it_can_do_and_where_a_configuration_is_wrong() {
    let (_, help) = program(&["--help".as_ref()]);
    for command in [
        "serve",
        "check-config",
        "backup",
        "verify",
        "export",
        "import",
        "publish",
        "key",
    ] {
        assert!(help.contains(command), "{help}");
    }
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("ccn-lite.toml");
    std::fs::write(
        &config,
        "listen = \"127.0.0.1:0\"\ndata_dir = \"/x\"\n[limits]\nmax_files = 1\n",
    )
    .unwrap();
    let (good, report) = program(&["check-config".as_ref(), &config]);
    assert!(
        !good && report.contains("line 4") && report.contains("max_files"),
        "{report}"
    );
    std::fs::write(&config, "listen = \"127.0.0.1:0\"\ndata_dir = \"/x\"\n").unwrap();
    assert!(program(&["check-config".as_ref(), &config]).0);
}
