//! Machines that go on from snapshots, in the sandbox and under the host's own KVM. Without /dev/kvm, or without root,
//! nothing is tested.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod guest;
mod machine;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

use crn_protocol::control::{ExitReason, Request, Transport};

use self::machine::{Files, MEMORY_MIB, Machine};

/// Three copies go on with the same registers, memory and queues, and with nothing else in common.
fn go_on(transport: Transport) {
    let Some(mut original) = Machine::launch(transport) else {
        return;
    };
    let before: Vec<_> = "abc".chars().map(|one| original.type_letter(one)).collect();
    assert_eq!(
        (before[2].sums[0], before[2].events),
        (96_354, 0),
        "as \"abc\".hashCode()"
    );
    original.ask(Request::Pause, &[]).unwrap();
    let files = original.snapshot().unwrap();
    original.ask(Request::Resume, &[]).unwrap();
    let copy = || Machine::restore(&files, transport, |_| {}).unwrap();
    let mut machines = [original, copy(), copy(), copy()];
    let after = machines.each_mut().map(|machine| {
        let lines: Vec<_> = "de".chars().map(|one| machine.type_letter(one)).collect();
        assert_ne!(lines[0].random, lines[1].random);
        lines
    });
    for lines in &after {
        for (line, expected) in lines.iter().zip(&after[0]) {
            assert_eq!(line.sums, expected.sums);
        }
    }
    assert_eq!(after[0][1].sums[0], 92_599_395, "as \"abcde\".hashCode()");
    let distinct = |numbers: Vec<u64>| numbers.into_iter().collect::<BTreeSet<_>>().len();
    let randoms = after.iter().flatten().map(|line| line.random).collect();
    assert_eq!(distinct(randoms), 8);
    let generations = after.iter().map(|lines| lines[1].generation).collect();
    assert_eq!(distinct(generations), 4);
    assert_eq!(after[0][1].generation, before[0].generation);
    let events: Vec<u64> = after.iter().map(|lines| lines[1].events).collect();
    assert_eq!(
        events,
        [0, 1, 1, 1],
        "copies hear that their connections are gone"
    );
    // In copies every vector there is, of queues and configurations, most of them never sent before.
    let interrupts = after.map(|lines| lines[1].interrupts);
    let sent = before[2].interrupts;
    let expected = match transport {
        Transport::Mmio => [0; 4],
        Transport::Pci => [sent, 0x30f, 0x30f, 0x30f],
    };
    assert_eq!(interrupts, expected);
    assert_ne!(sent, 0x30f);
    for machine in &mut machines {
        machine.type_letter('q');
        assert_eq!(machine.end().0, ExitReason::PowerOff);
    }
}

#[test]
fn copies_go_on_where_the_machine_was_with_an_identity_of_their_own() {
    go_on(Transport::Mmio);
}

#[test]
fn copies_go_on_over_pci() {
    go_on(Transport::Pci);
}

#[test]
fn a_copy_of_a_copy_goes_on_and_its_memory_takes_no_more_room_than_was_written() {
    let Some(mut first) = Machine::launch(Transport::Mmio) else {
        return;
    };
    first.type_letter('a');
    first.ask(Request::Pause, &[]).unwrap();
    let files = first.snapshot().unwrap();
    let mut second = Machine::restore(&files, Transport::Mmio, |_| {}).unwrap();
    second.type_letter('b');
    second.ask(Request::Pause, &[]).unwrap();
    let files = second.snapshot().unwrap();
    let mut third = Machine::restore(&files, Transport::Mmio, |_| {}).unwrap();
    let line = third.type_letter('c');
    assert_eq!((line.sums[0], line.events), (96_354, 2));
    let metadata = files.memory.metadata().unwrap();
    assert_eq!(metadata.len(), (u64::from(MEMORY_MIB) << 20) + 4096);
    assert!(
        metadata.blocks() * 512 < 1 << 20,
        "{} blocks",
        metadata.blocks()
    );
}

#[test]
fn a_machine_is_snapshotted_into_empty_files_while_it_is_paused() {
    let Some(mut machine) = Machine::launch(Transport::Mmio) else {
        return;
    };
    let refused = machine.snapshot().err().unwrap();
    assert_eq!(refused, "the machine is not paused");
    machine.ask(Request::Pause, &[]).unwrap();
    let files = Files::empty();
    machine.snapshot_into(&files).unwrap();
    let refused = machine.snapshot_into(&files).unwrap_err();
    assert!(refused.contains("not an empty regular file"), "{refused}");
    // It goes on all the same.
    machine.ask(Request::Resume, &[]).unwrap();
    assert_eq!(machine.type_letter('a').sums[0], 97);
}

#[test]
fn differences_on_top_of_a_snapshot_are_a_snapshot() {
    let Some(mut machine) = Machine::launch(Transport::Mmio) else {
        return;
    };
    let duplicate = |files: &Files| {
        let mut bytes = Vec::new();
        let mut memory = &files.memory;
        memory.rewind().unwrap();
        memory.read_to_end(&mut bytes).unwrap();
        Files {
            memory: file(&bytes),
            ..Files::empty()
        }
    };
    machine.type_letter('a');
    machine.ask(Request::Pause, &[]).unwrap();
    let refused = machine.differences_into(&Files::empty()).unwrap_err();
    assert!(refused.contains("no snapshot before"), "{refused}");
    let first = machine.snapshot().unwrap();
    machine.ask(Request::Resume, &[]).unwrap();
    machine.type_letter('b');
    machine.ask(Request::Pause, &[]).unwrap();
    let second = duplicate(&first);
    machine.differences_into(&second).unwrap();
    let restore = |files: &Files| Machine::restore(files, Transport::Mmio, |_| {}).unwrap();
    // One of the copy's own, on top of where it comes from.
    let mut copy = restore(&second);
    copy.type_letter('c');
    copy.ask(Request::Pause, &[]).unwrap();
    let third = duplicate(&second);
    copy.differences_into(&third).unwrap();
    let sums = restore(&third).type_letter('d').sums;
    let (a, ab, abc, abcd) = (97, 3105, 96_354, 2_987_074);
    assert_eq!(
        sums,
        [abcd, a + ab + abc + abcd, 4 * a + 3 * ab + 2 * abc + abcd]
    );
    // A file that is not a copy of the last one is not touched.
    let refused = copy.differences_into(&duplicate(&first)).unwrap_err();
    assert!(
        refused.contains("belongs to another state file"),
        "{refused}"
    );
}

/// Another file with this content.
fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn what_is_not_the_snapshot_of_the_described_machine_is_refused_by_name() {
    let Some(mut machine) = Machine::launch(Transport::Mmio) else {
        return;
    };
    machine.ask(Request::Pause, &[]).unwrap();
    let (files, others) = (machine.snapshot().unwrap(), machine.snapshot().unwrap());
    let mmio = Transport::Mmio;
    let refused = |files: &Files, change: fn(&mut _), expected: &str| {
        let error = Machine::restore(files, mmio, change).err().unwrap();
        assert!(error.contains(expected), "{error}");
    };
    refused(
        &files,
        |spec| spec.hardware.vcpus = 2,
        "with 1 vCPUs, the description has 2",
    );
    refused(
        &files,
        |spec| spec.hardware.memory_mib = 128,
        "with 64 MiB of memory",
    );
    refused(
        &files,
        |spec| spec.hardware.transport = Transport::Pci,
        "MMIO as its bus",
    );
    refused(
        &files,
        |spec| spec.hardware.vsock = None,
        "2 devices, the description has 1",
    );
    refused(
        &files,
        |spec| spec.state = spec.memory,
        "which another field has",
    );

    let length = files.state.metadata().unwrap().len();
    let mut state = vec![0; length as usize];
    files.state.read_exact_at(&mut state, 0).unwrap();
    let with_state = |state: &[u8]| Files {
        state: file(state),
        memory: files.memory.try_clone().unwrap(),
    };
    refused(&with_state(&[]), |_| {}, "is no snapshot");
    refused(&with_state(&state[..1000]), |_| {}, "has 1000 bytes");
    let mut damaged = state.clone();
    damaged[5000] ^= 1;
    refused(&with_state(&damaged), |_| {}, "checksum");
    let swapped = Files {
        state: files.state.try_clone().unwrap(),
        memory: others.memory,
    };
    refused(&swapped, |_| {}, "belongs to another state file");
    let cut = Files {
        state: files.state.try_clone().unwrap(),
        memory: file(&[0; 4096]),
    };
    refused(&cut, |_| {}, "is not a regular file of");
    // They are all right, after all.
    let mut copy = Machine::restore(&files, mmio, |_| {}).unwrap();
    assert_eq!(copy.type_letter('a').sums[0], 97);
}
