//! A disk whose driver is hostile: its file keeps its length, and nothing is left in flight.

#![no_main]

use std::fs::File;
use std::os::fd::OwnedFd;

use crn_fuzz::{Rig, Script, play};
use crn_protocol::devices::{Engine, Limits};
use crn_vmm::devices::block::Block;
use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};

const BYTES: u64 = 64 << 10;

fuzz_target!(|input: (bool, bool, Script)| {
    let (uring, read_only, script) = input;
    let disk = memfd_create("disk", MemfdFlags::CLOEXEC).expect("a file");
    let file = File::from(disk.try_clone().expect("a descriptor"));
    file.set_len(BYTES).expect("room");
    let engine = if uring { Engine::Auto } else { Engine::Sync };
    let limits = Limits::default();
    let (mut block, offer) =
        Block::new(OwnedFd::from(file), read_only, "fuzz", 2, engine, &limits).expect("a disk");
    play(&mut block, &mut Rig::default(), &script, 2, offer.features);
    drop(block);
    assert_eq!(File::from(disk).metadata().expect("a length").len(), BYTES);
});
