//! Databases of every released version, brought up to date and served.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test like the tests themselves"
)]

mod support;

use ccn_lite::files::Blobs;
use ccn_lite::store::Store;
use rusqlite::Connection;
use serde_json::json;
use support::Ccn;

const RELEASED: [&str; 3] = [
    include_str!("migrations/v1.sql"),
    include_str!("migrations/v2.sql"),
    include_str!("migrations/v3.sql"),
];
/// The last version with a table of posts, and another of what was forgotten.
const LAST_WITH_POSTS: usize = 2;
/// The account of the fixtures, which began with a million credits and stored a file.
const OWNER: &str = "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A";
const FILE: &[u8] = b"a file from before\n";
/// A message that was forgotten in a database of the past.
const FORGOTTEN: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

fn load(dump: &str, path: &std::path::Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    Connection::open(path)
        .unwrap()
        .execute_batch(&format!("PRAGMA foreign_keys = OFF; {dump}"))
        .unwrap();
}

/// Everything that makes up a schema, as written.
fn schema(path: &std::path::Path) -> Vec<String> {
    let conn = Connection::open(path).unwrap();
    let mut statement = conn
        .prepare("SELECT type || ' ' || name || ': ' || sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY 1")
        .unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn there_is_a_database_of_every_version_but_this_programs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new.sqlite");
    drop(Store::open(&path).unwrap());
    let version: i64 = Connection::open(&path)
        .unwrap()
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    assert_eq!(i64::try_from(RELEASED.len()).unwrap() + 1, version);
}

#[test]
fn an_old_database_ends_with_the_schema_of_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let new = dir.path().join("new.sqlite");
    drop(Store::open(&new).unwrap());
    for (number, dump) in RELEASED.iter().enumerate() {
        let old = dir.path().join(format!("v{}.sqlite", number + 1));
        load(dump, &old);
        drop(Store::open(&old).unwrap());
        assert_eq!(schema(&old), schema(&new), "version {}", number + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_database_is_served_with_everything_in_it() {
    for (number, dump) in RELEASED.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let (table, status) = if number < LAST_WITH_POSTS {
            ("forgotten", "")
        } else {
            ("gone", "'forgotten',")
        };
        let dump = format!(
            "{dump} INSERT INTO statuses VALUES ('{FORGOTTEN}', 'forgotten', 1.0);
             INSERT INTO {table} VALUES ('{FORGOTTEN}', {status} 'POST', 'ETH', '{OWNER}', NULL, 'inline', 1.0, NULL,
                 '{OWNER}', 'hold', NULL, 2.0, '[\"by\"]');"
        );
        load(&dump, &state.join("ccn-lite.sqlite"));
        Blobs::open(&state.join("files"))
            .unwrap()
            .put(FILE, false)
            .unwrap();
        let ccn = Ccn::start_in(dir, "[scheduler]\nenabled = false\n").await;

        let listed = ccn.ok("/api/v0/messages.json").await;
        assert_eq!(listed["pagination_total"], 5);
        let balance = ccn.ok(&format!("/api/v0/addresses/{OWNER}/balance")).await;
        assert_eq!(balance["balance"], 1234.5);
        assert_eq!(balance["credit_balance"], 1_000_000);
        // What was granted before there was a history is its beginning.
        let history = ccn
            .ok(&format!("/api/v0/addresses/{OWNER}/credit_history"))
            .await;
        assert_eq!(history["pagination_total"], 1);
        assert_eq!(history["credit_history"][0]["amount"], 1_000_000);
        let costs = ccn
            .ok(&format!("/api/v0/costs?address={OWNER}&include_details=1"))
            .await;
        assert_eq!(costs["resources"][0]["cost_credit"], "0.001247742293793479");
        let stored = ccn.ok(&format!("/api/v0/addresses/{OWNER}/files")).await;
        let hash = stored["files"][0]["file_hash"].as_str().unwrap();
        let (status, body) = ccn.get(&format!("/api/v0/storage/raw/{hash}")).await;
        assert_eq!((status, body), (200, json!("a file from before\n")));

        let gone = ccn.ok(&format!("/api/v0/messages/{FORGOTTEN}")).await;
        assert_eq!(
            (&gone["status"], &gone["forgotten_by"]),
            (&json!("forgotten"), &json!(["by"]))
        );

        let (sound, report) =
            support::program(&["verify".as_ref(), "--config".as_ref(), &ccn.config()]);
        assert!(
            sound && report.contains("5 messages and 1 files checked, 0 flaws"),
            "{report}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_and_amends_of_an_old_database_are_listed_as_they_were() {
    const AUTHOR: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
    const ORIGINAL: &str = "569b99359efa19750ee61a20927b1879583e882c7212071b75e44b8d97756b01";
    const AMEND: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    for (number, dump) in RELEASED.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let content = json!({"address": AUTHOR, "type": "amend", "ref": ORIGINAL, "time": 1_700_000_050.0,
            "content": {"hello": "again", "tags": ["later"]}});
        let (kept, columns, values) = if number < LAST_WITH_POSTS {
            (content.to_string(), "", "")
        } else {
            let values = ", '0xFriend', 1700000050.0";
            (String::new(), ", delegate, content_time", values)
        };
        // Signed by a friend of its owner.
        let amend = format!(
            "INSERT INTO messages (item_hash, status, type, chain, sender, signature, item_type, item_content, content,
                 time, channel, size, reception_time, owner, content_type, content_ref, tags{columns})
             VALUES ('{AMEND}', 'processed', 'POST', 'ETH', '0xFriend', '0x', 'inline', '{content}', '{kept}',
                 1700000051.0, 'TEST', 100, 1700000052.0, '{AUTHOR}', 'amend', '{ORIGINAL}', '[\"later\"]'{values});"
        );
        let shown = if number < LAST_WITH_POSTS {
            format!(
                "INSERT INTO posts VALUES ('{AMEND}', '{AUTHOR}', 'amend', '{ORIGINAL}', '{ORIGINAL}', 'TEST',
                     '{{\"hello\":\"again\"}}', 1700000050.0, NULL, 1700000050.0);
                 UPDATE posts SET latest_amend = '{AMEND}', last_updated = 1700000050.0
                     WHERE item_hash = '{ORIGINAL}';"
            )
        } else {
            format!(
                "UPDATE messages SET amended_by = '{AMEND}', updated = 1700000050.0 WHERE item_hash = '{ORIGINAL}';"
            )
        };
        let dump = format!("{dump} {amend} {shown}");
        load(&dump, &state.join("ccn-lite.sqlite"));
        let ccn = Ccn::start_in(dir, "[scheduler]\nenabled = false\n").await;

        let posts = ccn
            .ok(&format!("/api/v1/posts.json?addresses={AUTHOR}"))
            .await;
        assert_eq!(posts["pagination_total"], 1);
        let post = &posts["posts"][0];
        assert_eq!(post["original_item_hash"], ORIGINAL);
        assert_eq!(post["item_hash"], AMEND);
        assert_eq!(post["content"], content["content"]);
        assert_eq!(post["last_updated"], "2023-11-14T22:14:10.000000+00:00");

        let tagged = ccn.ok("/api/v1/posts.json?tags=later").await;
        assert_eq!(tagged["posts"], posts["posts"]);

        let of_friend = ccn.ok("/api/v0/messages.json?addresses=0xFriend").await;
        assert_eq!(of_friend["messages"][0]["item_hash"], AMEND);
        assert_eq!(of_friend["messages"][0]["content"], content);
        let counted = ccn
            .ok(&format!("/api/v0/addresses/stats.json?addresses={AUTHOR}"))
            .await;
        assert_eq!(counted["data"][AUTHOR]["post"], 2);
    }
}
