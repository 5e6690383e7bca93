//! Configurations of boot loaders, of any content, on a volume with a kernel. A zero byte begins the next file.

#![no_main]

use std::fs;
use std::sync::LazyLock;

use crn_init::loader::volume::Volume;
use crn_init::loader::{bls, extlinux, grub};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

/// Where each of them is.
const FILES: [&str; 4] = [
    "boot/grub/grub.cfg",
    "boot/grub/grubenv",
    "loader/entries/a.conf",
    "extlinux/extlinux.conf",
];

static TREE: LazyLock<TempDir> = LazyLock::new(|| {
    let tree = TempDir::new_in("/dev/shm").expect("a directory");
    for directory in ["boot/grub", "loader/entries", "extlinux"] {
        fs::create_dir_all(tree.path().join(directory)).expect("a directory");
    }
    for kernel in ["boot/vmlinuz", "boot/initrd.img"] {
        fs::write(tree.path().join(kernel), "x").expect("a file");
    }
    tree
});

fuzz_target!(|bytes: &[u8]| {
    let tree = TREE.path();
    let texts = bytes
        .split(|byte| *byte == 0)
        .chain(std::iter::repeat(&[][..]));
    for (file, text) in FILES.iter().zip(texts) {
        fs::write(tree.join(file), text).expect("a file");
    }
    let volume = |name: &str| {
        Volume::new(tree, name.to_owned(), "0-1".to_owned(), "root".to_owned()).expect("a volume")
    };
    let volumes = [volume("vda1"), volume("vda2")];
    let entries = grub::entries(&volumes, 0)
        .into_iter()
        .chain(bls::of_systemd_boot(&volumes, 0))
        .chain(extlinux::entries(&volumes, 1));
    for entry in entries {
        assert!(entry.kernel.volume < volumes.len());
    }
});
