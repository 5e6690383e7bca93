//! A balloon whose driver is hostile.

#![no_main]

use crn_fuzz::{Rig, Script, play};
use crn_vmm::devices::balloon::Balloon;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: Script| {
    let (mut balloon, offer) = Balloon::new(0);
    play(
        &mut balloon,
        &mut Rig::default(),
        &script,
        4,
        offer.features,
    );
});
