use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

use super::*;
use crate::intake::ccn::Ccn;

/// A node that answers every download with what `reply` makes of the number of downloads before.
async fn node<R: axum::response::IntoResponse>(
    reply: impl Fn(usize) -> R + Clone + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let handler = move || {
        let answer = reply(counter.fetch_add(1, Ordering::SeqCst)).into_response();
        async move { answer }
    };
    let router = Router::new().route("/api/v0/storage/raw/{hash}", get(handler));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, count)
}

fn cache(dir: &Path, address: SocketAddr, max_bytes: u64) -> Cache {
    let ccn = Ccn::new(&format!("http://{address}"));
    Cache::open(dir, ccn, converter(), max_bytes).unwrap()
}

/// The program itself, built if need be.
fn converter() -> Converter {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let output = std::process::Command::new(env!("CARGO"))
            .args(["build", "-q", "--locked", "-p", "crn-convert"])
            .arg("--message-format=json")
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .find_map(|artifact| artifact["executable"].as_str().map(PathBuf::from))
            .expect("cargo names the program it built")
    });
    Converter {
        program: PROGRAM.clone(),
        max_bytes: 1 << 30,
    }
}

fn temporaries(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("tmp")).unwrap().count()
}

#[tokio::test]
async fn a_corrupt_download_is_tried_again_and_never_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (address, count) = node(|_| "something else").await;
    let cache = cache(dir.path(), address, 1000);
    let hash = ItemHash::of(b"content");
    let error = cache.get(&hash).await.unwrap_err();
    assert!(matches!(*error, ContentError::Corrupt { .. }), "{error}");
    assert_eq!(count.load(Ordering::SeqCst), ATTEMPTS as usize);
    assert!(!dir.path().join(hash.as_str()).exists());
    assert_eq!(temporaries(dir.path()), 0);
}

#[tokio::test]
async fn a_good_copy_after_a_corrupt_one_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (address, count) = node(|n| if n == 0 { "conten" } else { "content" }).await;
    let cache = cache(dir.path(), address, 1000);
    let hash = ItemHash::of(b"content");
    let cached = cache.get(&hash).await.unwrap();
    assert_eq!(
        (
            cached.bytes,
            std::fs::read(&cached.path).unwrap().as_slice()
        ),
        (7, b"content".as_slice())
    );
    assert_eq!(cache.get(&hash).await.unwrap(), cached);
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn many_that_want_one_file_share_one_download() {
    let dir = tempfile::tempdir().unwrap();
    let (address, count) = node(|_| "content").await;
    let cache = cache(dir.path(), address, 1000);
    let hash = ItemHash::of(b"content");
    let results = futures_util::future::join_all((0..20).map(|_| cache.get(&hash))).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_file_above_the_limit_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (address, count) = node(|_| "x".repeat(1001)).await;
    let cache = cache(dir.path(), address, 1000);
    let error = cache
        .get(&ItemHash::of("x".repeat(1001).as_bytes()))
        .await
        .unwrap_err();
    assert!(
        matches!(*error, ContentError::TooLarge { limit: 1000, .. }),
        "{error}"
    );
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_file_without_a_length_is_cut_off_at_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let (address, _) = node(|_| {
        let pieces =
            futures_util::stream::iter((0..20).map(|_| Ok::<_, io::Error>("y".repeat(100))));
        axum::body::Body::from_stream(pieces)
    })
    .await;
    let cache = cache(dir.path(), address, 1000);
    let error = cache.get(&ItemHash::of(b"whatever")).await.unwrap_err();
    assert!(matches!(*error, ContentError::TooLarge { .. }), "{error}");
    assert_eq!(temporaries(dir.path()), 0);
}

#[tokio::test]
async fn a_file_nobody_knows_is_said_to_be_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let (address, _) = node(|_| StatusCode::NOT_FOUND).await;
    let error = cache(dir.path(), address, 1000)
        .get(&ItemHash::of(b"content"))
        .await
        .unwrap_err();
    assert!(matches!(*error, ContentError::Unknown { .. }), "{error}");
}

#[tokio::test]
async fn a_file_named_by_a_cid_is_verified_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let (address, _) = node(|n| {
        if n == 0 {
            "hello worlds\n"
        } else {
            "hello world\n"
        }
    })
    .await;
    let cache = cache(dir.path(), address, 1000);
    // What `ipfs add` calls "hello world\n".
    let hash: ItemHash = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o"
        .parse()
        .unwrap();
    assert_eq!(cache.get(&hash).await.unwrap().bytes, 12);
}

#[test]
fn what_an_interrupted_conversion_left_is_gone_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("tmp")).unwrap();
    std::fs::write(dir.path().join("tmp/half"), "ha").unwrap();
    std::fs::write(dir.path().join("whole"), "whole").unwrap();
    Cache::open(
        dir.path(),
        Ccn::new("http://127.0.0.1:1"),
        converter(),
        1000,
    )
    .unwrap();
    assert_eq!(temporaries(dir.path()), 0);
    assert!(dir.path().join("whole").exists());
}

/// R10: a stale part of a file blocked its download for ever.
#[test]
fn what_came_of_a_file_is_kept_a_day_for_whoever_asks_again() {
    let dir = tempfile::tempdir().unwrap();
    let node = Ccn::new("http://127.0.0.1:1");
    let cache = Cache::open(dir.path(), node, converter(), 1000).unwrap();
    let (old, young) = (
        dir.path().join("partial/old"),
        dir.path().join("partial/young"),
    );
    std::fs::write(&young, "ha").unwrap();
    std::fs::write(&old, "ha").unwrap();
    let then = std::time::SystemTime::now() - PARTIAL - Duration::from_secs(60);
    let file = std::fs::File::options().write(true).open(&old).unwrap();
    file.set_modified(then).unwrap();
    assert_eq!(cache.sweep(Keep::NOTHING).unwrap(), 0);
    assert!(young.exists() && !old.exists());
}

#[tokio::test]
async fn only_what_nobody_uses_is_swept_away() {
    let dir = tempfile::tempdir().unwrap();
    let machine = tempfile::tempdir_in(dir.path()).unwrap();
    let (address, _) = node(|_| "content").await;
    let cache = cache(dir.path(), address, 1000);
    let cached = cache.get(&ItemHash::of(b"content")).await.unwrap();
    let path = cached.path.clone();
    assert_eq!(cache.sweep(Keep::NOTHING).unwrap(), 0);
    cached.link_into(machine.path()).unwrap();
    cached.link_into(machine.path()).unwrap();
    drop(cached);
    assert_eq!(cache.sweep(Keep::NOTHING).unwrap(), 0);
    assert!(path.exists());
    drop(machine);
    let keep = Keep { hours: 1, mib: 1 };
    assert_eq!(cache.sweep(keep).unwrap(), 0);
    let shown = cache.unused(Keep { hours: 1, mib: 0 }).unwrap();
    assert!(
        shown.len() == 1 && shown[0].goes && shown[0].bytes == 7,
        "{shown:?}"
    );
    assert!(path.exists(), "it was only shown");
    assert_eq!(cache.sweep(Keep::NOTHING).unwrap(), 1);
    assert!(!path.exists() && dir.path().join("tmp").exists());
}

/// A qcow2 image of a disk of 1 MiB that begins with `text`.
fn qcow2(dir: &Path, text: &str) -> Vec<u8> {
    let (raw, image) = (dir.join("disk"), dir.join("image"));
    std::fs::write(&raw, text).unwrap();
    std::fs::File::options()
        .write(true)
        .open(&raw)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let status = std::process::Command::new("qemu-img")
        .args(["convert", "-c", "-f", "raw", "-O", "qcow2"])
        .args([&raw, &image])
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::read(image).unwrap()
}

#[tokio::test]
async fn a_qcow2_image_becomes_a_raw_disk_once_and_goes_with_its_last_user() {
    let (dir, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let image = qcow2(work.path(), "a disk");
    let hash = ItemHash::of(&image);
    let (address, _) = node(move |_| image.clone()).await;
    let cache = cache(dir.path(), address, 1 << 20);
    let fetched = cache.get(&hash).await.unwrap();
    let disks = futures_util::future::join_all((0..4).map(|_| cache.raw(&fetched))).await;
    for disk in &disks {
        let disk = disk.as_ref().unwrap();
        assert_eq!(disk.path, dir.path().join(format!("{hash}.raw")));
        assert_eq!(
            (disk.bytes, &std::fs::read(&disk.path).unwrap()[..6]),
            (1 << 20, &b"a disk"[..])
        );
        assert_eq!(cache.raw(disk).await.unwrap(), *disk);
    }
    assert_eq!(temporaries(dir.path()), 0);
    drop(fetched);
    assert_eq!(cache.sweep(Keep::NOTHING).unwrap(), 1);
    drop(disks);
    assert_eq!(cache.sweep(Keep::NOTHING).unwrap(), 1);
}

#[tokio::test]
async fn an_image_that_cannot_be_converted_is_refused_with_its_field() {
    let dir = tempfile::tempdir().unwrap();
    let image = b"QFI\xfb\0\0\0\x09".repeat(20);
    let hash = ItemHash::of(&image);
    let (address, _) = node(move |_| image.clone()).await;
    let cache = cache(dir.path(), address, 1 << 20);
    let fetched = cache.get(&hash).await.unwrap();
    let error = cache.raw(&fetched).await.unwrap_err();
    assert!(!error.is_transient());
    assert!(error.to_string().contains("version: is 9"), "{error}");
    assert_eq!(temporaries(dir.path()), 0);
}
