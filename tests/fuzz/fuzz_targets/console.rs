//! A virtio console whose driver is hostile.

#![no_main]

use crn_fuzz::{Rig, Script, play};
use crn_vmm::devices::console::Console;
use crn_vmm::devices::console::device::VirtioConsole;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: Script| {
    let output = std::fs::File::options().write(true).open("/dev/null");
    let (end, console) = Console::new(output.expect("/dev/null").into(), 0).expect("a console");
    let (mut device, offer) = VirtioConsole::new(&end);
    play(&mut device, &mut Rig::default(), &script, 2, offer.features);
    drop(console);
});
