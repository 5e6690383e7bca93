//! An entropy source whose driver is hostile.

#![no_main]

use crn_fuzz::{Rig, Script, play};
use crn_protocol::devices::Limits;
use crn_vmm::devices::rng::Rng;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: Script| {
    let (mut rng, offer) = Rng::new(&Limits::default());
    play(&mut rng, &mut Rig::default(), &script, 1, offer.features);
});
