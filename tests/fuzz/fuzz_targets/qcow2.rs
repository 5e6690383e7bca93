//! An image of any content becomes a disk of the size it says, or is refused.

#![no_main]

use std::fs::File;
use std::io::Write;

use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};

const MAX: u64 = 1 << 20;

fn file() -> File {
    File::from(memfd_create("image", MemfdFlags::CLOEXEC).expect("a file"))
}

fuzz_target!(|bytes: &[u8]| {
    let (mut image, disk) = (file(), file());
    image.write_all(bytes).expect("room");
    if let Ok(size) = crn_convert::convert(&image, &disk, MAX) {
        assert!(size <= MAX);
        assert_eq!(disk.metadata().expect("a length").len(), size);
    }
});
