use proptest::prelude::*;

use super::device::Identity;
use super::format::{decode, encode};
use super::*;
use crate::virtio::Progress;
use crate::virtio::negotiate::{Saved, SavedQueue, Stage};
use crate::virtio::pci::SavedFunction;

fn device() -> Device {
    Device {
        identity: Identity {
            name: "root".to_owned(),
            device_id: 2,
            features: 1 << 32,
            queue_sizes: vec![256],
            config: vec![1, 2, 3],
        },
        negotiation: Saved {
            stage: Stage::Live,
            features: 1 << 32,
            queues: vec![SavedQueue {
                size: 16,
                descriptors: 0x1000,
                driver: 0x2000,
                device: 0x3000,
                ready: true,
            }],
            selects: [1, 2, 3],
            causes: 1,
            needs_reset: false,
            vectors: vec![0, 1],
            config: vec![1, 2, 3],
        },
        progress: vec![(
            0,
            Progress {
                next_available: 7,
                next_used: 6,
            },
        )],
        own: vec![1, u64::MAX],
        function: Some(SavedFunction {
            config: vec![4; 256],
            table: vec![5; 32],
            pending: vec![0, 1],
        }),
    }
}

fn host() -> Host {
    Host::here(&[])
}

/// A whole state file; the registers are all zeros.
fn file() -> Vec<u8> {
    let section = |kind, bytes| Section { kind, bytes };
    let mut machine = Writer::default();
    machine
        .plain(&64u32)
        .plain(&[9u8; 16])
        .plain(&1u32)
        .plain(&1u32);
    let mut board = Writer::default();
    for id in 0..3u32 {
        let mut chip = [0u8; size_of::<kvm_bindings::kvm_irqchip>()];
        chip[..4].copy_from_slice(&id.to_le_bytes());
        board.plain(&chip);
    }
    board.plain(&5u64).plain(&1000u32).plain(&[0u8; 9]);
    board.list(b"typed").plain(&0u8).flag(false);
    let vcpu = Vcpu::zeroed().write();
    encode(&[
        section(Kind::Host, host().write()),
        section(Kind::Machine, machine.finish()),
        section(Kind::Board, board.finish()),
        section(Kind::Vcpu, vcpu),
        section(Kind::Device, device().write()),
    ])
}

#[test]
fn what_is_written_is_read() {
    let file = file();
    let snapshot = Snapshot::from_bytes(&file).unwrap();
    assert_eq!(snapshot.to_bytes(), file);
    assert_eq!(snapshot.devices, [device()]);
    assert_eq!(snapshot.board.serial.in_buffer, b"typed");
}

#[test]
fn a_section_that_is_missing_or_there_twice_is_named() {
    let sections = decode(&file()).unwrap();
    for (index, section) in sections.iter().enumerate() {
        let mut fewer = sections.clone();
        fewer.remove(index);
        let mut more = sections.clone();
        more.push(section.clone());
        for wrong in [fewer, more] {
            let error = Snapshot::from_bytes(&encode(&wrong))
                .unwrap_err()
                .to_string();
            assert!(error.contains(section.kind.name()), "{error}");
        }
    }
}

#[test]
fn a_section_cut_anywhere_or_followed_by_anything_is_named() {
    let sections = decode(&file()).unwrap();
    for (index, section) in sections.iter().enumerate() {
        let length = section.bytes.len();
        let mut lengths: Vec<usize> = (0..length.min(300)).collect();
        lengths.extend((300..length).step_by(61));
        for cut in lengths {
            let mut wrong = sections.clone();
            wrong[index].bytes.truncate(cut);
            let error = Snapshot::from_bytes(&encode(&wrong))
                .unwrap_err()
                .to_string();
            assert!(error.contains(section.kind.name()), "{cut}: {error}");
        }
        let mut wrong = sections.clone();
        wrong[index].bytes.push(0);
        assert!(Snapshot::from_bytes(&encode(&wrong)).is_err());
    }
}

proptest! {
    #[test]
    fn whatever_a_stranger_writes_into_a_section_is_read_as_it_is_or_refused(
        index in 0usize..5, at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 1..40)
    ) {
        let mut sections = decode(&file()).unwrap();
        let section = &mut sections[index].bytes;
        let at = at.index(section.len());
        for (byte, new) in section[at..].iter_mut().zip(bytes) {
            *byte = new;
        }
        let file = encode(&sections);
        if let Ok(snapshot) = Snapshot::from_bytes(&file) {
            prop_assert!(snapshot.to_bytes() == file);
        }
    }

    #[test]
    fn any_bytes_are_refused_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Snapshot::from_bytes(&bytes).is_err());
    }
}

#[test]
fn another_cpu_kernel_or_build_is_named_with_both() {
    let here = host();
    here.check(&here).unwrap();
    for (what, change) in [
        (
            "CPU model",
            (|host| host.cpu = "a Z80".to_owned()) as fn(&mut Host),
        ),
        ("kernel", |host| host.kernel = "a Z80".to_owned()),
        ("build of crn-vmm", |host| host.build = "a Z80".to_owned()),
    ] {
        let mut there = host();
        change(&mut there);
        let error = there.check(&here).unwrap_err().to_string();
        assert!(
            error.contains(&format!("another {what}: a Z80, here it is ")),
            "{error}"
        );
    }
    let mut there = host();
    there.leaves.push(kvm_bindings::kvm_cpuid_entry2::default());
    assert!(matches!(
        there.check(&here),
        Err(SnapshotError::CpuFeatures)
    ));
}

#[test]
fn another_machine_is_named_by_what_differs() {
    let snapshot = Snapshot::from_bytes(&file()).unwrap();
    snapshot.check(1, 64, false).unwrap();
    let refusal = |vcpus, mib, pci| snapshot.check(vcpus, mib, pci).unwrap_err().to_string();
    assert!(refusal(2, 64, false).contains("with 1 vCPUs, the description has 2"));
    assert!(refusal(1, 65, false).contains("with 64 MiB of memory, the description has 65"));
    assert!(refusal(1, 64, true).contains("with MMIO as its bus, the description has PCI"));
    snapshot.board.check(1000).unwrap();
    assert!(
        snapshot
            .board
            .check(1001)
            .unwrap_err()
            .to_string()
            .contains("1000 kHz")
    );
}

#[test]
fn another_device_is_named_by_what_differs() {
    let made = device().identity;
    made.check(&made).unwrap();
    for (expected, change) in [
        (
            "root is data",
            (|one| one.name = "data".to_owned()) as fn(&mut Identity),
        ),
        ("another kind", |one| one.device_id = 1),
        ("features 0x100000000 and has 0x0", |one| one.features = 0),
        ("1 queues and has 0", |one| one.queue_sizes.clear()),
        ("another size", |one| one.config[0] = 9),
    ] {
        let mut here = device().identity;
        change(&mut here);
        let error = made.check(&here).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let vsock = |cid: u8| Identity {
        device_id: 19,
        config: vec![cid; 8],
        ..device().identity
    };
    vsock(3).check(&vsock(4)).unwrap();
}
