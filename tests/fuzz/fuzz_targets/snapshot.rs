//! A snapshot's state file: with a right checksum, for behind it everything is parsed as a stranger's.

#![no_main]

use crn_vmm::snapshot::Snapshot;
use crn_vmm::snapshot::format::{Kind, Section, decode, encode};
use libfuzzer_sys::fuzz_target;

const KINDS: [Kind; 5] = [
    Kind::Host,
    Kind::Machine,
    Kind::Board,
    Kind::Vcpu,
    Kind::Device,
];

fuzz_target!(|sections: Vec<(u8, Vec<u8>)>| {
    if let Some((_, bytes)) = sections.first() {
        let _ = decode(bytes);
    }
    let sections: Vec<Section> = sections
        .into_iter()
        .map(|(kind, bytes)| Section {
            kind: KINDS[usize::from(kind) % KINDS.len()],
            bytes,
        })
        .collect();
    let file = encode(&sections);
    // What is read is what was written, section by section.
    if let Ok(snapshot) = Snapshot::from_bytes(&file) {
        assert!(Snapshot::from_bytes(&snapshot.to_bytes()).is_ok());
    }
});
