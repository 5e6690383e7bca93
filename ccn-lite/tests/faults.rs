//! A node that is killed, and a disk that is full: what was acknowledged is there, what was not is there whole or not at
//! all.
//!
//! `CCN_KILLS` says how often the node is killed; `make soak` does so many times.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test like the tests themselves"
)]

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aleph_message::{Envelope, ItemHash, Keypair, MessageType};
use serde_json::json;
use support::{Ccn, now, post};

const PUBLISHERS: u64 = 6;
const UPLOADERS: u64 = 2;

/// The real program, killed when dropped.
struct Program(Child);

impl Program {
    async fn start(config: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_ccn-lite"))
            .args(["serve", "--config"])
            .arg(config)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// SIGKILL: nothing is flushed, closed or finished.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the node said it has.
#[derive(Default)]
struct Acknowledged {
    messages: Vec<String>,
    /// STORE message, file hash.
    files: Vec<(String, String)>,
}

fn file_of(round: u64, uploader: u64, number: u64) -> Vec<u8> {
    format!("{round} {uploader} {number} ")
        .into_bytes()
        .repeat(20_000)
}

/// Publishes until the node is gone.
async fn publish(
    client: Arc<Ccn>,
    key: Keypair,
    round: u64,
    who: u64,
    said: Arc<Mutex<Acknowledged>>,
) {
    for number in 0.. {
        let message = match number % 3 {
            0 => {
                let content = json!({"key": format!("k{who}"), "content": {format!("{round}-{number}"): number}});
                Envelope::sign(&key, MessageType::Aggregate, None, now(), content).unwrap()
            }
            _ => {
                let content =
                    json!({"round": round, "who": who, "number": number, "tags": ["a", "b"]});
                post(&key, "killed", Some("faults"), now(), content)
            }
        };
        let body = json!({"sync": true, "message": message});
        match client.try_post("/api/v0/messages", &body).await {
            Some((200, _)) => said
                .lock()
                .unwrap()
                .messages
                .push(message.item_hash.to_string()),
            Some((status, body)) => panic!("answered {status}: {body}"),
            None => return,
        }
    }
}

/// Uploads files with their messages until the node is gone.
async fn upload(
    client: Arc<Ccn>,
    key: Keypair,
    round: u64,
    who: u64,
    said: Arc<Mutex<Acknowledged>>,
) {
    for number in 0.. {
        let bytes = file_of(round, who, number);
        let file = ItemHash::of(&bytes);
        let content =
            json!({"item_type": "storage", "item_hash": file, "payment": {"type": "hold"}});
        let message = Envelope::sign(&key, MessageType::Store, None, now(), content).unwrap();
        match client.try_upload(&bytes, &message).await {
            Some((200, _)) => said
                .lock()
                .unwrap()
                .files
                .push((message.item_hash.to_string(), file.to_string())),
            Some((status, body)) => panic!("answered {status}: {body}"),
            None => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_killed_node_has_everything_it_acknowledged_and_nothing_by_halves() {
    let kills: u64 = std::env::var("CCN_KILLS").map_or(4, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = dir.path().join("ccn-lite.toml");
    let state = dir.path().join("state");
    std::fs::write(
        &config,
        format!(
            "listen = \"127.0.0.1:{port}\"\ndata_dir = {state:?}\n[scheduler]\nenabled = false\n"
        ),
    )
    .unwrap();
    let said = Arc::new(Mutex::new(Acknowledged::default()));
    for round in 0..kills {
        let mut program = Program::start(&config).await;
        let client = Arc::new(Ccn::elsewhere(&format!("http://127.0.0.1:{port}")));
        client.until_it_serves().await;
        let before = said.lock().unwrap().messages.len();
        let mut tasks = Vec::new();
        for who in 0..PUBLISHERS {
            tasks.push(tokio::spawn(publish(
                client.clone(),
                Keypair::generate(),
                round,
                who,
                said.clone(),
            )));
        }
        for who in 0..UPLOADERS {
            tasks.push(tokio::spawn(upload(
                client.clone(),
                Keypair::generate(),
                round,
                who,
                said.clone(),
            )));
        }
        // In the middle of things, wherever that is; but something must have been acknowledged.
        while said.lock().unwrap().messages.len() < before + 20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..300))).await;
        program.kill();
        for task in tasks {
            task.await.unwrap();
        }
        // As the kill left it, and as the next start does.
        let (sound, report) = support::program(&["verify".as_ref(), "--config".as_ref(), &config]);
        assert!(sound, "after kill {round}: {report}");
    }
    let _program = Program::start(&config).await;
    let client = Ccn::elsewhere(&format!("http://127.0.0.1:{port}"));
    client.until_it_serves().await;
    let said = std::mem::take(&mut *said.lock().unwrap());
    for hash in &said.messages {
        assert_eq!(
            client.status(hash).await,
            "processed",
            "{hash} was acknowledged"
        );
    }
    for (message, file) in &said.files {
        assert_eq!(
            client.status(message).await,
            "processed",
            "{message} was acknowledged"
        );
        let bytes = client.bytes(&format!("/api/v0/storage/raw/{file}")).await;
        assert_eq!(ItemHash::of(&bytes).as_str(), file, "the file of {message}");
    }
    assert!(said.messages.len() as u64 >= 20 * kills && !said.files.is_empty());
}

/// A file system of a few megabytes, gone with the value.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(at: &Path, bytes: u64) -> Result<Self, rustix::io::Errno> {
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        rustix::mount::mount(
            "small",
            at,
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            Some(options.as_c_str()),
        )?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: the node may still have files open.
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_a_node_refuses_with_the_reason_keeps_what_it_has_and_goes_on_when_there_is_space()
 {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let small = match Small::mount(&state, 24 << 20) {
        Ok(small) => small,
        Err(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {
            eprintln!("skipped: a small file system can be mounted by root only");
            return;
        }
        Err(error) => panic!("cannot mount a small file system: {error}"),
    };
    // Without a watermark, so that the disk itself says no.
    let ccn = Ccn::start_in(
        dir,
        "[scheduler]\nenabled = false\n[limits]\nmin_free_disk_bytes = 0\n",
    )
    .await;
    let key = Keypair::generate();
    let filler = state.join("filler");
    std::fs::write(&filler, vec![0; 12 << 20]).unwrap();
    let mut taken = Vec::new();
    let mut refused = None;
    for number in 0..500 {
        let content = json!({"number": number, "text": "x".repeat(100_000)});
        let message = post(&key, "large", None, now(), content);
        match ccn.publish(&message).await {
            (200, _) => taken.push(message.item_hash.to_string()),
            (status, body) => {
                refused = Some((
                    status,
                    body.as_str().unwrap_or_default().to_owned(),
                    message,
                ));
                break;
            }
        }
    }
    let (status, reason, message) = refused.expect("the disk never became full");
    assert_eq!(
        (status, reason.contains("disk is full")),
        (507, true),
        "{reason}"
    );
    let file = vec![1; 10 << 20];
    let content = json!({"item_type": "storage", "item_hash": ItemHash::of(&file), "payment": {"type": "hold"}});
    let store = Envelope::sign(&key, MessageType::Store, None, now(), content).unwrap();
    let (status, body) = ccn.upload(&file, &store).await;
    assert_eq!(status, 507, "{body}");

    // What was taken is served; what was refused is not known.
    for hash in &taken {
        assert_eq!(ccn.status(hash).await, "processed");
    }
    assert_eq!(
        ccn.get(&format!("/api/v0/messages/{}", message.item_hash))
            .await
            .0,
        404
    );

    std::fs::remove_file(&filler).unwrap();
    ccn.take(&message).await;
    let (sound, report) =
        support::program(&["verify".as_ref(), "--config".as_ref(), &ccn.config()]);
    assert!(sound, "{report}");
    drop(ccn);
    drop(small);
}
