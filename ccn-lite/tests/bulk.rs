//! Messages out of one node and into another by files: everything they say is said again, what is wrong is named, and a
//! run that is killed is gone on with.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test like the tests themselves"
)]

mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aleph_message::{Envelope, ItemHash, Keypair, MessageType};
use proptest::prelude::*;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use support::money::{balances, credits, grant, grants, network};
use support::{Ccn, now, post, program};

const QUIET: &str = "[scheduler]\nenabled = false\n";

/// Routes whose answers say everything messages have done.
const SAID: [&str; 10] = [
    "/api/v0/messages.json?pagination=0",
    "/api/v0/messages.json?pagination=0&msgStatuses=forgotten",
    "/api/v1/posts.json?pagination=0",
    "/api/v0/aggregates.json?pagination=500",
    "/api/v0/balances?pagination=0",
    "/api/v0/credit_balances?pagination=0",
    "/api/v0/costs?payment_type=credit&pagination=1000",
    "/api/v0/costs?payment_type=hold&pagination=1000",
    "/api/v1/addresses/stats.json?pagination=0",
    "/api/v0/channels/list.json",
];

/// The data directory of a node that is to be, and its configuration.
struct Home {
    dir: tempfile::TempDir,
    more: String,
}

impl Home {
    fn new(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        // What a network begins with names its node, so all nodes here are the same one.
        std::fs::create_dir(&state).unwrap();
        std::fs::write(state.join("node.key"), "1".repeat(64)).unwrap();
        let text = format!("listen = \"127.0.0.1:0\"\ndata_dir = {state:?}\n{more}");
        std::fs::write(dir.path().join("ccn-lite.toml"), text).unwrap();
        Self {
            dir,
            more: more.to_owned(),
        }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("ccn-lite.toml")
    }

    /// Runs `import` with more arguments; its exit status and what it said.
    fn import(&self, arguments: &[&Path]) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_ccn-lite"))
            .args(["import", "--config"])
            .arg(self.config())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap(), said)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    async fn serve(self) -> Ccn {
        Ccn::start_in(self.dir, &self.more).await
    }
}

fn export(ccn: &Ccn, to: &Path) {
    let (done, report) = program(&[
        "export".as_ref(),
        "--config".as_ref(),
        &ccn.config(),
        "--output".as_ref(),
        to,
    ]);
    assert!(done, "{report}");
}

fn lines(messages: &[Envelope]) -> String {
    messages
        .iter()
        .map(|message| serde_json::to_string(message).unwrap() + "\n")
        .collect()
}

async fn same(a: &Ccn, b: &Ccn, routes: &[&str]) {
    for route in routes {
        assert_eq!(a.ok(route).await, b.ok(route).await, "{route}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_made_from_the_export_of_another_says_the_same() {
    let (authority, config) = network("");
    let ccn = Home::new(&config).serve().await;
    let (alice, bob) = (Keypair::generate(), Keypair::generate());
    let (a, b) = (alice.address(), bob.address());
    let start = now() - 1000.0;
    let time = |n: u32| start + f64::from(n);
    ccn.take(&balances(&authority, start, 10, json!({&a: 100, &b: 2.5})))
        .await;
    let granted = grants(json!([grant(&a, 1_000_000), grant(&b, 5)]));
    ccn.take(&credits(
        &authority,
        "aleph_credit_distribution",
        time(1),
        granted,
    ))
    .await;
    let expense = json!({"expense": {"credits": [{"address": a, "amount": 30, "execution_id": "e".repeat(64)}]}});
    ccn.take(&credits(
        &authority,
        "aleph_credit_expense",
        time(2),
        expense,
    ))
    .await;
    let transfer = json!({"transfer": {"credits": [{"address": b, "amount": 100}]}});
    ccn.take(&credits(&alice, "aleph_credit_transfer", time(3), transfer))
        .await;
    // Later in time than what comes after it.
    let original = post(&alice, "t", Some("C"), time(90), json!({"tags": ["x"]}));
    let original = ccn.take(&original).await;
    let amend = json!({"type": "amend", "ref": original, "content": {"tags": ["y"]}});
    let amend = Envelope::sign(&alice, MessageType::Post, None, time(91), amend).unwrap();
    ccn.take(&amend).await;
    let rules = json!({"key": "security", "content": {"authorizations": [{"address": b}]}});
    ccn.take(&Envelope::sign(&alice, MessageType::Aggregate, None, time(4), rules).unwrap())
        .await;
    let on_behalf = json!({"address": a, "key": "k", "content": {"n": 1}});
    ccn.take(&Envelope::sign(&bob, MessageType::Aggregate, None, time(5), on_behalf).unwrap())
        .await;
    let image = ccn.store(&alice, b"an image", "credit", time(6)).await;
    ccn.store(&bob, b"held", "hold", time(7)).await;
    let instance = json!({
        "allow_amend": false, "environment": {"hypervisor": "qemu"}, "payment": {"type": "credit"},
        "resources": {"vcpus": 1, "memory": 2048}, "volumes": [],
        "rootfs": {"parent": {"ref": image, "use_latest": true}, "persistence": "host", "size_mib": 20480},
    });
    ccn.take(&Envelope::sign(&alice, MessageType::Instance, None, time(8), instance).unwrap())
        .await;

    let regretted = ccn.take(&post(&alice, "t", None, time(9), json!(1))).await;
    let forget = json!({"hashes": [regretted]});
    ccn.take(&Envelope::sign(&alice, MessageType::Forget, None, time(10), forget).unwrap())
        .await;

    let home = Home::new(&config);
    let exported = ccn.dir.path().join("messages.jsonl");
    export(&ccn, &exported);
    let files = ccn.state().join("files");
    let arguments = ["--files".as_ref(), files.as_path(), exported.as_path()];
    let (code, said) = home.import(&arguments);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("13 lines: 13 messages taken, 0 there before, 0 refused; 0 wait"),
        "{said}"
    );
    let (code, said) = home.import(&arguments);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("0 messages taken, 13 there before"), "{said}");

    let other = home.serve().await;
    same(&ccn, &other, &SAID).await;
    for address in [&a, &b] {
        let of = |what: &str| format!("/api/v0/addresses/{address}/{what}");
        let routes = [
            of("balance?include_credit_details=true"),
            of("credit_history?sort_order=1"),
            of("files"),
        ];
        let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
        for route in routes {
            let (mut mine, mut theirs) = (ccn.ok(route).await, other.ok(route).await);
            for answer in [&mut mine, &mut theirs] {
                // When a node learned of a file is its own business.
                for file in answer["files"].as_array_mut().into_iter().flatten() {
                    file["created"] = Value::Null;
                }
            }
            assert_eq!(mine, theirs, "{route}");
        }
    }
    let (sound, report) = program(&["verify".as_ref(), "--config".as_ref(), &other.config()]);
    assert!(sound, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_message_is_believed_when_its_own_sender_forgot_it() {
    let (alice, mallory) = (Keypair::generate(), Keypair::generate());
    let message = post(&alice, "t", None, now(), json!(1));
    let forget = |key: &Keypair| {
        let content = json!({"hashes": [message.item_hash]});
        Envelope::sign(key, MessageType::Forget, None, now(), content).unwrap()
    };
    let remains = |by: &Envelope| {
        json!({"sender": message.sender, "chain": "ETH", "signature": message.signature, "type": "POST",
            "item_type": "inline", "item_hash": message.item_hash, "time": message.time, "channel": null,
            "owner": message.sender, "payment_type": "hold", "size": null, "status": "forgotten",
            "forgotten_at": by.time, "forgotten_by": [by.item_hash]})
    };
    let (own, others) = (forget(&alice), forget(&mallory));
    let home = Home::new(QUIET);
    let mut unsigned = remains(&own);
    unsigned["signature"] = json!(own.signature);
    let text = format!(
        "{}{}\n{unsigned}\n",
        lines(std::slice::from_ref(&others)),
        remains(&others)
    );
    let file = home.file("others", &text);
    let (code, said) = home.import(&[&file]);
    assert_eq!(code, 3, "{said}");
    assert!(
        said.contains("others:2: PERMISSION_DENIED: no FORGET here by"),
        "{said}"
    );
    assert!(said.contains("others:3: INVALID_SIGNATURE"), "{said}");
    assert!(
        said.contains("0 messages taken, 0 there before, 2 refused; 1 wait"),
        "{said}"
    );

    let file = home.file(
        "own",
        &format!("{}{}\n", lines(std::slice::from_ref(&own)), remains(&own)),
    );
    let (code, said) = home.import(&[&file]);
    // What the other FORGET names is known now, and nothing is left to forget.
    assert!(code == 0 || code == 3, "{said}");
    let ccn = home.serve().await;
    assert_eq!(ccn.status(message.item_hash.as_str()).await, "forgotten");
    assert_eq!(ccn.status(own.item_hash.as_str()).await, "processed");
    assert_eq!(ccn.publish(&message).await.0, 410);
}

/// What the `n`-th message is about.
#[derive(Debug, Clone)]
enum Saying {
    Post { kind: u8, tag: u8 },
    Amend { of: usize },
    Aggregate { key: u8, name: u8 },
}

fn sayings() -> impl Strategy<Value = Vec<Saying>> {
    let saying = prop_oneof![
        (0..3_u8, 0..4_u8).prop_map(|(kind, tag)| Saying::Post { kind, tag }),
        any::<usize>().prop_map(|of| Saying::Amend { of }),
        (0..2_u8, 0..4_u8).prop_map(|(key, name)| Saying::Aggregate { key, name }),
    ];
    prop::collection::vec(saying, 1..60)
}

fn say(sayings: &[Saying], keys: &[Keypair]) -> Vec<Envelope> {
    let mut posts: Vec<(ItemHash, usize)> = Vec::new();
    let mut messages = Vec::new();
    for (n, saying) in sayings.iter().enumerate() {
        let mut who = n % keys.len();
        let (kind, content) = match saying {
            Saying::Amend { of } if !posts.is_empty() => {
                let (original, author) = &posts[of % posts.len()];
                who = *author;
                let content = json!({"type": "amend", "ref": original, "content": {"n": n}});
                (MessageType::Post, content)
            }
            Saying::Aggregate { key, name } => {
                let content = json!({"key": format!("k{key}"), "content": {format!("n{name}"): n}});
                (MessageType::Aggregate, content)
            }
            Saying::Post { .. } | Saying::Amend { .. } => {
                let (kind, tag) = match saying {
                    Saying::Post { kind, tag } => (*kind, *tag),
                    _ => (0, 0),
                };
                let content = json!({"type": format!("t{kind}"), "content": {"n": n, "tags": [format!("g{tag}")]}});
                (MessageType::Post, content)
            }
        };
        let is_original = content["type"].as_str().is_some_and(|kind| kind != "amend");
        let time = 1_700_000_000.0 + n as f64;
        let message = Envelope::sign(&keys[who], kind, Some("C"), time, content).unwrap();
        if is_original {
            posts.push((message.item_hash.clone(), who));
        }
        messages.push(message);
    }
    messages
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn whatever_order_lines_come_in_the_node_ends_the_same(
        (sayings, shuffled) in sayings().prop_flat_map(|sayings| {
            let order: Vec<usize> = (0..sayings.len()).collect();
            (Just(sayings), Just(order).prop_shuffle())
        })
    ) {
        let keys = [Keypair::generate(), Keypair::generate()];
        let messages = say(&sayings, &keys);
        let reordered: Vec<Envelope> = shuffled.iter().map(|n| messages[*n].clone()).collect();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut nodes = Vec::new();
            for messages in [&messages, &reordered] {
                let home = Home::new(QUIET);
                let file = home.file("messages", &lines(messages));
                let (code, said) = home.import(&[&file]);
                assert_eq!(code, 0, "{said}");
                nodes.push(home.serve().await);
            }
            same(&nodes[0], &nodes[1], &SAID).await;
            let listed = nodes[0].ok(SAID[0]).await;
            assert_eq!(listed["pagination_total"], messages.len());
            // What one of them writes is what another takes.
            let home = Home::new(QUIET);
            let exported = home.dir.path().join("exported");
            export(&nodes[1], &exported);
            let (code, said) = home.import(&[&exported]);
            assert_eq!(code, 0, "{said}");
            same(&nodes[0], &home.serve().await, &SAID).await;
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_named_by_its_line_and_stops_nothing() {
    let key = Keypair::generate();
    let good = post(&key, "t", None, now(), json!({"n": 1}));
    let also_good = post(&key, "t", None, now(), json!({"n": 2}));
    let mut forged = post(&key, "t", None, now(), json!({"n": 3}));
    forged.signature = good.signature.clone();
    let mut altered = serde_json::to_value(post(&key, "t", None, now(), json!({"n": 4}))).unwrap();
    altered["item_content"] = json!("{}");
    let early = post(&key, "t", None, now() + 1e6, json!({"n": 5}));
    let of_other = json!({"address": Keypair::generate().address(), "type": "t", "content": 1});
    let of_other = Envelope::sign(&key, MessageType::Post, None, now(), of_other).unwrap();
    let text = [
        serde_json::to_string(&good).unwrap(),
        "{\"half\": ".to_owned(),
        String::new(),
        serde_json::to_string(&forged).unwrap(),
        altered.to_string(),
        serde_json::to_string(&early).unwrap(),
        "[1]".to_owned(),
        serde_json::to_string(&of_other).unwrap(),
        serde_json::to_string(&also_good).unwrap(),
        serde_json::to_string(&good).unwrap(),
    ]
    .join("\n");
    let home = Home::new(QUIET);
    let file = home.file("mixed", &text);
    let (code, said) = home.import(&[&file]);
    assert_eq!(code, 3, "{said}");
    let reasons = [
        (2, "not a JSON object"),
        (4, "INVALID_SIGNATURE"),
        (5, "'item_hash' does not match"),
        (6, "ahead of this node's clock"),
        (7, "INVALID_FORMAT"),
        (8, "PERMISSION_DENIED"),
    ];
    let place = |number: u32| format!("{}:{number}: ", file.display());
    for (number, reason) in reasons {
        let line = said.lines().find(|line| line.starts_with(&place(number)));
        assert!(
            line.is_some_and(|line| line.contains(reason)),
            "{number}: {said}"
        );
    }
    for number in [1, 3, 9, 10] {
        assert!(!said.contains(&place(number)), "{number}: {said}");
    }
    assert!(
        said.contains("9 lines: 2 messages taken, 1 there before, 6 refused; 0 wait"),
        "{said}"
    );
    let (code, said) = home.import(&["/nowhere/messages".as_ref()]);
    assert!(code == 1 && said.contains("/nowhere/messages"), "{said}");
    let ccn = home.serve().await;
    let listed = ccn.ok(SAID[0]).await;
    let listed: BTreeSet<&str> = listed["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["item_hash"].as_str().unwrap())
        .collect();
    let expected = [good.item_hash.as_str(), also_good.item_hash.as_str()];
    assert_eq!(listed, BTreeSet::from(expected));
    // A node that serves is not written to by anybody else.
    let (done, said) = program(&["import".as_ref(), "--config".as_ref(), &ccn.config(), &file]);
    assert!(
        !done && said.contains("is used by another ccn-lite"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_and_files_come_from_directories_and_what_is_not_there_waits() {
    let key = Keypair::generate();
    let sender = key.address();
    let content =
        json!({"type": "t", "address": sender, "time": now(), "content": {"n": 1}}).to_string();
    let hash = ItemHash::of(content.as_bytes());
    let signature = key.sign_eip191(format!("ETH\n{sender}\nPOST\n{hash}").as_bytes());
    let elsewhere = json!({"sender": sender, "chain": "ETH", "type": "POST", "item_type": "storage", "item_hash": hash,
        "item_content": null, "time": now(), "channel": null, "signature": signature.unwrap()});
    let bytes = b"stored bytes";
    let stored = ItemHash::of(bytes);
    let store = json!({"item_type": "storage", "item_hash": stored, "payment": {"type": "hold"}});
    let store = Envelope::sign(&key, MessageType::Store, None, now(), store).unwrap();
    let home = Home::new(QUIET);
    let file = home.file(
        "messages",
        &format!("{elsewhere}\n{}", lines(std::slice::from_ref(&store))),
    );
    let (code, said) = home.import(&[&file]);
    assert_eq!(code, 4, "{said}");
    for (hash, code) in [
        (&hash, "CONTENT_UNAVAILABLE"),
        (&store.item_hash, "FILE_UNAVAILABLE"),
    ] {
        assert!(said.contains(&format!("{hash} waits: {code}")), "{said}");
    }
    assert!(said.contains("0 refused; 2 wait"), "{said}");

    // Under the right name, but not the right bytes.
    let directory = home.dir.path().join("contents");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join(hash.as_str()), "{}").unwrap();
    let (code, said) = home.import(&["--files".as_ref(), &directory, &file]);
    assert!(
        code == 4 && said.contains("its bytes do not have this hash"),
        "{said}"
    );

    std::fs::write(directory.join(hash.as_str()), &content).unwrap();
    std::fs::write(directory.join(stored.as_str()), bytes).unwrap();
    let (code, said) = home.import(&["--files".as_ref(), &directory, &file]);
    assert!(code == 0 && said.contains("2 messages taken"), "{said}");
    let ccn = home.serve().await;
    let shown = ccn.ok(&format!("/api/v0/messages/{hash}/content")).await;
    assert_eq!(shown, json!({"n": 1}));
    assert_eq!(
        ccn.bytes(&format!("/api/v0/storage/raw/{stored}")).await,
        bytes
    );
}

/// Messages that are committed.
fn committed(home: &Home) -> usize {
    let path = home.dir.path().join("state/ccn-lite.sqlite");
    let count = || -> rusqlite::Result<i64> {
        let conn = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        conn.query_row("SELECT count(*) FROM messages", [], |row| row.get(0))
    };
    // There is none, or it has no schema, before the run has come so far.
    count().map_or(0, |count| count.try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_killed_is_gone_on_with_where_it_was() {
    const MESSAGES: usize = 1600;
    let key = Keypair::generate();
    let messages: Vec<Envelope> = (0..MESSAGES)
        .map(|n| {
            post(
                &key,
                "t",
                None,
                1_700_000_000.0 + n as f64,
                json!({"n": n, "tags": ["x"]}),
            )
        })
        .collect();
    let home = Home::new(QUIET);
    let file = home.file("messages", &lines(&messages));
    let mut before = 0;
    for goal in [1, 600, 1100] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ccn-lite"))
            .args(["import", "--config"])
            .arg(home.config())
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (mut input, text) = (child.stdin.take().unwrap(), std::fs::read(&file).unwrap());
        // It is killed before it has read everything, or after it.
        let feeding = std::thread::spawn(move || drop(input.write_all(&text)));
        while committed(&home) < goal && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        feeding.join().unwrap();
        let (sound, report) = program(&["verify".as_ref(), "--config".as_ref(), &home.config()]);
        assert!(sound, "after {goal}: {report}");
        let now = committed(&home);
        assert!(now >= goal.max(before), "{now} of {before}");
        before = now;
    }
    let (code, said) = home.import(&[&file]);
    assert_eq!(code, 0, "{said}");
    let rest = MESSAGES - before;
    assert!(
        said.contains(&format!(
            "{MESSAGES} lines: {rest} messages taken, {before} there before"
        )),
        "{said}"
    );
    let ccn = home.serve().await;
    let listed = ccn.ok("/api/v0/messages.json?pagination=1").await;
    assert_eq!(listed["pagination_total"], MESSAGES);
}
