//! Files: uploads and what is refused, reading them back, directories, and names that other programs give the same bytes.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::LazyLock;

use aleph_message::{Keypair, MessageType};
use base64::Engine;
use ccn_lite::files::Blobs;
use ccn_lite::files::cid::{Cid, Version};
use ccn_lite::files::tree::{CidHasher, Layout};
use http::Method;
use serde_json::{Value, json};

use super::support::{Node, hash_of, signed};

fn vectors() -> &'static Value {
    static VECTORS: LazyLock<Value> = LazyLock::new(|| {
        serde_json::from_str(include_str!("../vectors/files/files.json")).unwrap()
    });
    &VECTORS
}

/// The bytes `generate.mjs` makes files of.
fn pattern(size: usize) -> Vec<u8> {
    (0..size)
        .map(|i| ((i * 7 + (i >> 8) * 13) % 251) as u8)
        .collect()
}

fn archive(name: &str) -> (&'static Value, Vec<u8>) {
    let mut cars = vectors()["cars"].as_array().unwrap().iter();
    let vector = cars.find(|vector| vector["name"] == name).unwrap();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(vector["car"].as_str().unwrap())
        .unwrap();
    (vector, bytes)
}

#[test]
fn files_get_the_cids_that_other_programs_give_them() {
    let layouts = [
        ("v0", Version::V0, false),
        ("v1", Version::V1, true),
        ("v1_dag_pb_leaves", Version::V1, false),
        ("v0_raw_leaves", Version::V0, true),
    ];
    for vector in vectors()["files"].as_array().unwrap() {
        let size = vector["size"].as_u64().unwrap() as usize;
        let bytes = pattern(size);
        for (name, version, raw_leaves) in layouts {
            let mut hasher = CidHasher::new(Layout {
                version,
                raw_leaves,
            });
            hasher.update(&bytes);
            assert_eq!(
                hasher.finish().to_string(),
                vector["cids"][name],
                "{size} {name}"
            );
        }
    }
}

#[test]
fn archives_of_other_programs_are_kept_and_given_back() {
    for vector in vectors()["cars"].as_array().unwrap() {
        let name = vector["name"].as_str().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let upload = |bytes: &[u8]| {
            let mut upload = blobs.begin(u64::MAX, false).unwrap();
            upload.write(bytes).unwrap();
            upload.finish().unwrap()
        };
        let (_, bytes) = archive(name);
        let imported = blobs.import(&upload(&bytes), 1 << 20).unwrap();
        assert_eq!(imported.root.to_string(), vector["root"], "{name}");
        assert_eq!(
            imported.is_directory,
            vector["entries"][0][1].is_null(),
            "{name}"
        );
        let (root, text) = (imported.root, imported.root.to_string());
        blobs.publish_imported(imported).unwrap();
        assert!(blobs.is_intact(&text).unwrap(), "{name}");
        // What is given back can be taken again, and has the same root.
        let mut given = Vec::new();
        match blobs.archive(&text).unwrap() {
            Some(archive) => archive.write_canonical(&mut given).unwrap(),
            None => drop(
                blobs
                    .export(&root)
                    .unwrap()
                    .unwrap()
                    .read_to_end(&mut given),
            ),
        }
        assert_eq!(
            blobs.import(&upload(&given), 1 << 20).unwrap().root,
            root,
            "{name}"
        );

        // Every damaged archive is refused: no byte of a block can differ.
        for at in (0..bytes.len())
            .step_by(97)
            .chain([0, 1, 20, 40, bytes.len() - 1])
        {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            if let Ok(imported) = blobs.import(&upload(&damaged), 1 << 20) {
                assert_ne!((at, imported.root), (at, root), "{name}");
            }
        }
        assert!(
            blobs
                .import(&upload(&bytes[..bytes.len() - 1]), 1 << 20)
                .is_err()
        );
        if imported_content(vector) > 0 {
            assert!(
                blobs
                    .import(&upload(&bytes), imported_content(vector) - 1)
                    .is_err(),
                "{name}"
            );
        }
    }
}

fn imported_content(vector: &Value) -> u64 {
    let entries = vector["entries"].as_array().unwrap().iter();
    entries.filter_map(|entry| entry[1].as_u64()).sum()
}

#[tokio::test]
async fn a_file_is_read_whole_in_part_and_in_text() {
    let node = Node::start().await;
    let key = Keypair::generate();
    let bytes = pattern(300_000);
    let (store, file) = node.store(&key, &bytes, json!({})).await;
    let path = format!("/api/v0/storage/raw/{file}");
    let whole = node.ask(Method::GET, &format!("{path}?find"), &[]).await;
    assert_eq!((whole.status.as_u16(), &whole.body[..]), (200, &bytes[..]));
    assert_eq!(whole.headers["content-type"], "application/octet-stream");
    assert_eq!(whole.headers["accept-ranges"], "bytes");
    let head = node.ask(Method::HEAD, &path, &[]).await;
    assert_eq!(
        (head.status.as_u16(), &head.headers["content-length"]),
        (200, &"300000".parse().unwrap())
    );
    for (range, expected) in [
        ("bytes=0-9", &bytes[..10]),
        ("bytes=299990-", &bytes[299_990..]),
        ("bytes=-5", &bytes[299_995..]),
        ("bytes=5-999999999", &bytes[5..]),
    ] {
        let part = node.ask(Method::GET, &path, &[("range", range)]).await;
        assert_eq!(
            (part.status.as_u16(), &part.body[..]),
            (206, expected),
            "{range}"
        );
    }
    let beyond = node
        .ask(Method::GET, &path, &[("range", "bytes=300000-")])
        .await;
    assert_eq!(beyond.status, 416);

    let (_, text) = node.get(&format!("/api/v0/storage/{file}")).await;
    let content = text["content"].as_str().unwrap().replace('\n', "");
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(content)
        .unwrap();
    assert_eq!((&text["engine"], decoded), (&json!("storage"), bytes));
    let (_, about) = node.get(&format!("/api/v0/storage/metadata/{file}")).await;
    assert_eq!(
        about,
        json!({"file_hash": file, "type": "file", "size": 300_000, "download_url": path})
    );
    let (_, named) = node
        .get(&format!("/api/v0/storage/by-message-hash/{store}"))
        .await;
    assert_eq!(
        (&named["ref"], &named["owner"]),
        (&json!(store), &json!(key.address()))
    );
    assert_eq!(
        node.get(&format!("/api/v0/storage/by-ref/{store}")).await.1["file_hash"],
        json!(file)
    );
    assert_eq!(node.get("/api/v0/storage/by-ref/name").await.0, 400);
    assert!(
        node.get(&format!("/api/v0/storage/count/{file}"))
            .await
            .1
            .as_u64()
            >= Some(1)
    );
    let unknown = "e".repeat(64);
    assert_eq!(
        node.get(&format!("/api/v0/storage/raw/{unknown}")).await.0,
        404
    );
    assert_eq!(node.get(&format!("/api/v0/storage/{unknown}")).await.0, 404);
    assert_eq!(node.get("/api/v0/storage/raw/..%2Fx").await.0, 400);
}

#[tokio::test]
async fn an_upload_is_checked_before_it_is_kept() {
    let node =
        Node::start_with("[limits]\nmax_file_bytes = 5000\nmax_unauthenticated_file_bytes = 100")
            .await;
    let key = Keypair::generate();
    let file = |bytes: &[u8]| aleph_message::ItemHash::of(bytes).to_string();
    let store = |bytes: &[u8], payment: &str| {
        signed(
            &key,
            MessageType::Store,
            json!({"item_type": "storage", "item_hash": file(bytes), "payment": {"type": payment}}),
        )
    };
    let metadata = |message: &Value| json!({"message": message, "sync": true}).to_string();
    let send = async |metadata: &str, bytes: &[u8]| {
        // The message may come before the file or after it.
        let parts: [(&str, &[u8]); 2] = [("file", bytes), ("metadata", metadata.as_bytes())];
        let (code, body) = node.upload("/api/v0/storage/add_file", &parts).await;
        let stored = node
            .get(&format!("/api/v0/storage/raw/{}", file(bytes)))
            .await
            .0;
        assert_eq!(stored == 200, code == 200, "{code} {body}");
        code
    };
    let (small, large) = (pattern(50), pattern(1000));
    let mut forged = store(&small, "hold");
    forged["signature"] = store(&large, "hold")["signature"].clone();
    assert_eq!(send(&metadata(&forged), &small).await, 403);
    assert_eq!(send("{", &small).await, 422);
    assert_eq!(
        send(
            &json!({"message": store(&small, "hold")}).to_string(),
            &small
        )
        .await,
        422
    );
    assert_eq!(send(&metadata(&store(&large, "hold")), &small).await, 422);
    let post = super::support::post(&key, "t", json!(1));
    assert_eq!(send(&metadata(&post), &small).await, 422);
    assert_eq!(send(&metadata(&store(&small, "credit")), &small).await, 402);
    assert_eq!(
        send(&metadata(&store(&pattern(5001), "hold")), &pattern(5001)).await,
        413
    );
    assert_eq!(send(&metadata(&store(&small, "hold")), &small).await, 200);

    let alone: [(&str, &[u8]); 1] = [("file", &large)];
    assert_eq!(node.upload("/api/v0/storage/add_file", &alone).await.0, 413);
    assert_eq!(
        node.upload("/api/v0/storage/add_file", &[("other", b"x")])
            .await
            .0,
        422
    );
    let request = http::Request::post(format!("{}/api/v0/storage/add_file", node.url))
        .body(axum::body::Body::from(pattern(60)))
        .unwrap();
    let bare: Value = serde_json::from_slice(&node.send(request).await.body).unwrap();
    assert_eq!(
        bare,
        json!({"status": "success", "hash": file(&pattern(60))})
    );
    let (_, limits) = node.get("/api/v0/storage/limits.json").await;
    assert_eq!(
        limits["storage"],
        json!({"max_file_size": 5000, "max_unauthenticated_upload_file_size": 100})
    );
}

#[tokio::test]
async fn a_file_may_be_kept_under_any_cid_of_its_bytes() {
    let node = Node::start().await;
    let key = Keypair::generate();
    let bytes = pattern(262_145);
    let vector = &vectors()["files"].as_array().unwrap()[5];
    let (code, body) = node
        .upload("/api/v0/ipfs/add_file", &[("file", &bytes)])
        .await;
    assert_eq!(
        (code, &body["hash"], &body["size"]),
        (200, &vector["cids"]["v0"], &json!(262_145))
    );
    assert_eq!(body["name"], "f.bin");
    for name in ["v0", "v1", "v1_dag_pb_leaves", "v0_raw_leaves"] {
        let cid = vector["cids"][name].as_str().unwrap();
        let message = signed(
            &key,
            MessageType::Store,
            json!({"item_type": "ipfs", "item_hash": cid}),
        );
        let metadata = json!({"message": message, "sync": true}).to_string();
        let parts: [(&str, &[u8]); 2] = [("metadata", metadata.as_bytes()), ("file", &bytes)];
        let (code, body) = node.upload("/api/v0/ipfs/add_file", &parts).await;
        assert_eq!((code, &body["hash"]), (200, &json!(cid)), "{name}: {body}");
        assert_eq!(
            node.message(&hash_of(&message)).await.1["status"],
            "processed"
        );
        let raw = node
            .ask(Method::GET, &format!("/api/v0/storage/raw/{cid}"), &[])
            .await;
        assert_eq!(&raw.body[..], &bytes[..]);
        // Given back as blocks it can be taken again.
        let accept = [("accept", "application/vnd.ipld.car")];
        let car = node
            .ask(Method::GET, &format!("/api/v0/storage/raw/{cid}"), &accept)
            .await;
        assert_eq!(car.headers["content-type"], "application/vnd.ipld.car");
        let parts: [(&str, &[u8]); 2] = [("metadata", metadata.as_bytes()), ("file", &car.body)];
        let (code, body) = node.upload("/api/v0/ipfs/add_car", &parts).await;
        assert_eq!((code, &body["hash"]), (200, &json!(cid)), "{name}: {body}");
    }
    let other = vectors()["files"][1]["cids"]["v0"].as_str().unwrap();
    let message = signed(
        &key,
        MessageType::Store,
        json!({"item_type": "ipfs", "item_hash": other}),
    );
    let metadata = json!({"message": message, "sync": true}).to_string();
    let parts: [(&str, &[u8]); 2] = [("metadata", metadata.as_bytes()), ("file", &bytes)];
    assert_eq!(node.upload("/api/v0/ipfs/add_file", &parts).await.0, 422);
    let (_, json_file) = node
        .post_json("/api/v0/ipfs/add_json", &json!({"b": 1, "a": [2]}))
        .await;
    let mut hasher = CidHasher::new(Layout::V0);
    hasher.update(br#"{"a":[2],"b":1}"#);
    assert_eq!(json_file["hash"], hasher.finish().to_string());
}

fn untar(bytes: &[u8]) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut entries = BTreeMap::new();
    for entry in tar::Archive::new(bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry
            .path()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_end_matches('/')
            .to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let is_directory = entry.header().entry_type().is_dir();
        entries.insert(path, (!is_directory).then_some(content));
    }
    entries
}

#[tokio::test]
async fn a_directory_is_brought_as_an_archive_and_read_as_tar() {
    let node = Node::start().await;
    let key = Keypair::generate();
    for name in ["directory v1", "directory v0", "sharded directory"] {
        let (vector, car) = archive(name);
        let root = vector["root"].as_str().unwrap();
        let message = signed(
            &key,
            MessageType::Store,
            json!({"item_type": "ipfs", "item_hash": root}),
        );
        let metadata = json!({"message": message, "sync": true}).to_string();
        let add = async |car: &[u8], metadata: &str| {
            let parts: [(&str, &[u8]); 2] = [("file", car), ("metadata", metadata.as_bytes())];
            node.upload("/api/v0/ipfs/add_car", &parts).await
        };
        assert_eq!(
            node.upload("/api/v0/ipfs/add_car", &[("file", &car)])
                .await
                .0,
            422
        );
        assert_eq!(add(&car[..car.len() - 1], &metadata).await.0, 422);
        let (_, other) = archive("file v0");
        assert_eq!(add(&other, &metadata).await.0, 422);
        let (code, body) = add(&car, &metadata).await;
        assert_eq!(
            (code, &body["hash"], &body["status"]),
            (200, &json!(root), &json!("success")),
            "{body}"
        );
        assert_eq!(
            node.message(&hash_of(&message)).await.1["status"],
            "processed"
        );

        let (_, about) = node.get(&format!("/api/v0/storage/metadata/{root}")).await;
        assert_eq!(
            (&about["type"], &about["size"]),
            (&json!("dir"), &body["size"])
        );
        let raw = node
            .ask(Method::GET, &format!("/api/v0/storage/raw/{root}"), &[])
            .await;
        assert_eq!(raw.headers["content-type"], "application/x-tar");
        let expected: BTreeMap<String, Option<Vec<u8>>> = vector["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                let path = format!("{root}{}", entry[0].as_str().unwrap());
                (path, entry[1].as_u64().map(|size| pattern(size as usize)))
            })
            .collect();
        assert_eq!(untar(&raw.body), expected, "{name}");
        let car = node
            .ask(
                Method::GET,
                &format!("/api/v0/storage/raw/{root}?format=car"),
                &[],
            )
            .await;
        assert_eq!((car.status.as_u16(), car.body.is_empty()), (200, false));
        assert_eq!(add(&car.body, &metadata).await.0, 200);
        assert_eq!(node.get(&format!("/api/v0/storage/{root}")).await.0, 400);
        let head = node
            .ask(Method::HEAD, &format!("/api/v0/storage/raw/{root}"), &[])
            .await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
        assert!(root.parse::<Cid>().is_ok());
    }
}
