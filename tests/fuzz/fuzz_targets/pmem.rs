//! A pmem device whose driver is hostile.

#![no_main]

use crn_fuzz::{Rig, Script, play};
use crn_vmm::devices::pmem::Pmem;
use crn_vmm::plan::layout::{GAP_END, Range};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: Script| {
    let (mut pmem, offer) = Pmem::new(Range {
        start: GAP_END,
        length: 2 << 20,
    });
    play(&mut pmem, &mut Rig::default(), &script, 1, offer.features);
});
