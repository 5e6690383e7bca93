//! A disk of any content: partition table and superblock.

#![no_main]

use std::io::Cursor;

use crn_init::gpt::root_partition;
use crn_init::loader::superblock::Superblock;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|pieces: Vec<(u32, &[u8])>| {
    let mut disk = vec![0; 0x1_1000];
    for (at, bytes) in pieces {
        let at = at as usize % disk.len();
        let count = bytes.len().min(disk.len() - at);
        disk[at..at + count].copy_from_slice(&bytes[..count]);
    }
    if let Ok(Some(found)) = Superblock::read(&mut Cursor::new(&disk)) {
        assert!(found.uuid.len() == 36 || found.kind == "vfat");
    }
    let _ = root_partition(&mut Cursor::new(&disk));
});
