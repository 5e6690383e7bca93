//! Against `qemu-img convert`, and against images that are broken on purpose; always through the confined program.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use proptest::prelude::*;
use tempfile::TempDir;

const MAX: u64 = 64 << 20;

fn qemu_img(arguments: &[&str]) {
    let output = Command::new("qemu-img").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "qemu-img {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A raw disk: pieces of one byte at multiples of 512 bytes, or noise where the byte is zero.
fn raw(directory: &Path, size: u64, pieces: &[(u64, usize, u8)]) -> PathBuf {
    let path = directory.join("raw");
    let file = File::create(&path).unwrap();
    file.set_len(size).unwrap();
    for (at, length, byte) in pieces {
        let at = at % size / 512 * 512;
        let length = (*length).min((size - at) as usize);
        let mut state = at | 1;
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                if *byte == 0 {
                    (state >> 56) as u8
                } else {
                    *byte
                }
            })
            .collect();
        file.write_all_at(&bytes, at).unwrap();
    }
    path
}

fn convert(image: &Path, disk: &Path, max: u64) -> Output {
    Command::new(env!("CARGO_BIN_EXE_crn-convert"))
        .args(["--max-size", &max.to_string()])
        .stdin(File::open(image).unwrap())
        .stdout(Stdio::from(
            File::options()
                .create(true)
                .truncate(true)
                .read(true)
                .write(true)
                .open(disk)
                .unwrap(),
        ))
        .stderr(Stdio::piped())
        .output()
        .unwrap()
}

fn refused(image: &Path, max: u64) -> String {
    let disk = image.with_extension("out");
    let output = convert(image, &disk, max);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(fs::metadata(&disk).unwrap().blocks(), 0);
    String::from_utf8(output.stderr).unwrap()
}

fn made(directory: &TempDir, options: &str, compressed: bool) -> PathBuf {
    let raw = raw(
        directory.path(),
        9 << 20,
        &[(0, 70_000, 7), (5 << 20, 200_000, 0), (9 << 20, 512, 1)],
    );
    let image = directory.path().join("image");
    let mut arguments = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
    if compressed {
        arguments.push("-c");
    }
    arguments.extend([raw.to_str().unwrap(), image.to_str().unwrap()]);
    qemu_img(&arguments);
    image
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_disk_is_the_one_that_went_in(
        sectors in 1u64..40_000,
        pieces in prop::collection::vec((any::<u64>(), 1usize..300_000, any::<u8>()), 0..12),
        cluster in prop::sample::select(vec!["512", "4096", "65536", "2097152"]),
        form in prop::sample::select(vec!["compat=0.10", "compat=1.1", "compat=1.1,compression_type=zstd"]),
        compressed in any::<bool>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let raw = raw(directory.path(), sectors * 512, &pieces);
        let image = directory.path().join("image");
        let options = format!("{form},cluster_size={cluster}");
        let mut arguments = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", &options];
        if compressed {
            arguments.push("-c");
        }
        arguments.extend([raw.to_str().unwrap(), image.to_str().unwrap()]);
        qemu_img(&arguments);
        let disk = directory.path().join("disk");
        let output = convert(&image, &disk, MAX);
        prop_assert!(output.status.success(), "{:?}", output);
        prop_assert!(fs::read(&raw).unwrap() == fs::read(&disk).unwrap(), "{options} {compressed}");
    }

    /// Whatever is changed, the answer is a disk or one line, never a crash, and never more than the limit.
    #[test]
    fn a_damaged_image_is_survived(
        form in prop::sample::select(vec!["compat=0.10", "compat=1.1,compression_type=zstd"]),
        damage in prop::collection::vec((0u64..0x6_0000, any::<u8>()), 1..40),
        near in any::<bool>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let image = made(&directory, &format!("{form},cluster_size=4096"), true);
        let file = File::options().write(true).open(&image).unwrap();
        for (at, byte) in damage {
            // The tables are at the image's start.
            file.write_all_at(&[byte], if near { at % 0x6000 } else { at }).unwrap();
        }
        let disk = directory.path().join("disk");
        let output = convert(&image, &disk, MAX);
        prop_assert!(matches!(output.status.code(), Some(0 | 1)), "{:?}", output);
        prop_assert!(fs::metadata(&disk).unwrap().len() <= MAX);
    }
}

#[test]
fn zeros_take_no_room() {
    let directory = tempfile::tempdir().unwrap();
    let image = made(&directory, "compat=1.1,cluster_size=2097152", false);
    let disk = directory.path().join("disk");
    assert!(convert(&image, &disk, MAX).status.success());
    let metadata = fs::metadata(&disk).unwrap();
    assert_eq!(metadata.len(), (9 << 20));
    assert!(metadata.blocks() * 512 < 400_000, "{}", metadata.blocks());
}

/// S8: an image that named another file as its own was followed there, as root.
#[test]
fn images_that_need_another_file_a_key_or_too_much_room_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let base = made(&directory, "compat=1.1", false);
    qemu_img(&[
        "create",
        "-f",
        "qcow2",
        "-F",
        "qcow2",
        "-b",
        base.to_str().unwrap(),
        &at("on-another"),
    ]);
    assert!(refused(Path::new(&at("on-another")), MAX).contains("backing_file_offset"));
    let options = format!("data_file={}", at("data"));
    qemu_img(&[
        "create",
        "-f",
        "qcow2",
        "-o",
        &options,
        &at("elsewhere"),
        "1M",
    ]);
    assert!(refused(Path::new(&at("elsewhere")), MAX).contains("incompatible_features"));
    qemu_img(&[
        "create",
        "-f",
        "qcow2",
        "--object",
        "secret,id=s,data=abc",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s",
        &at("secret"),
        "1M",
    ]);
    assert!(refused(Path::new(&at("secret")), MAX).contains("crypt_method"));
    qemu_img(&[
        "create",
        "-f",
        "qcow2",
        "-o",
        "extended_l2=on",
        &at("extended"),
        "1M",
    ]);
    assert!(refused(Path::new(&at("extended")), MAX).contains("incompatible_features"));
    qemu_img(&["create", "-f", "qcow2", &at("large"), "1T"]);
    assert!(refused(Path::new(&at("large")), MAX).contains("size: is"));
    fs::write(at("raw-disk"), vec![0; 4096]).unwrap();
    assert!(refused(Path::new(&at("raw-disk")), MAX).contains("magic"));
    fs::write(at("empty"), []).unwrap();
    assert!(refused(Path::new(&at("empty")), MAX).contains("magic"));
}

#[test]
fn an_image_cut_short_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let image = made(&directory, "compat=1.1,cluster_size=65536", false);
    let file = File::options().write(true).open(&image).unwrap();
    file.set_len(0x3_0000).unwrap();
    assert!(refused(&image, MAX).contains("l1_table_offset"));
}
