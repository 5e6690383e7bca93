//! Addresses and ports in, functions found.

use std::cell::RefCell;

use proptest::prelude::*;

use super::*;
use crate::plan::layout::{HOTPLUG_ADDED_PORT, PCI_WINDOW_END, PCI_WINDOW_START};
use crate::virtio::pci::tests::{BASE, function};

const NUMBER: u8 = 1;
const ECAM: u64 = PCI_ECAM + ((NUMBER as u64) << 15);

fn nobody(_: u8, _: Change) {}

fn bus() -> PciBus {
    let bus = PciBus::default();
    bus.insert(NUMBER, function().0);
    bus
}

fn read32(bus: &PciBus, address: u64) -> Option<u32> {
    let mut data = [0; 4];
    bus.memory_read(address, &mut data)
        .then(|| u32::from_le_bytes(data))
}

fn port32(bus: &PciBus, port: u16) -> Option<u32> {
    let mut data = [0; 4];
    bus.port_read(port, &mut data)
        .then(|| u32::from_le_bytes(data))
}

#[test]
fn a_scan_finds_the_host_bridge_and_the_device_and_nothing_else() {
    let bus = bus();
    for devfn in 0..256u64 {
        let expected = match devfn {
            0 => 0x0008_1b36,
            8 => 0x1042_1af4,
            _ => u32::MAX,
        };
        assert_eq!(read32(&bus, PCI_ECAM + (devfn << 12)), Some(expected));
        bus.port_write(
            PCI_CONFIG_ADDRESS_PORT,
            &(1u32 << 31 | (devfn as u32) << 8).to_le_bytes(),
            &nobody,
            |_| {},
        );
        if devfn % 8 == 0 {
            assert_eq!(port32(&bus, PCI_CONFIG_DATA_PORT), Some(expected));
        } else {
            assert_eq!(port32(&bus, PCI_CONFIG_DATA_PORT), None);
        }
    }
    assert_eq!(read32(&bus, PCI_ECAM + PCI_ECAM_SIZE), None);
}

#[test]
fn registers_are_read_and_written_through_the_ports_in_every_width() {
    let bus = bus();
    let select = |register: u32| {
        let address = 1u32 << 31 | u32::from(NUMBER) << 11 | register;
        bus.port_write(
            PCI_CONFIG_ADDRESS_PORT,
            &address.to_le_bytes(),
            &nobody,
            |_| {},
        );
    };
    select(0);
    let mut half = [0; 2];
    assert!(bus.port_read(PCI_CONFIG_DATA_PORT + 2, &mut half));
    assert_eq!(half, 0x1042u16.to_le_bytes());
    assert!(!bus.port_read(PCI_CONFIG_DATA_PORT + 3, &mut half));
    select(4);
    bus.port_write(PCI_CONFIG_DATA_PORT, &[2], &nobody, |_| {});
    assert_eq!(read32(&bus, ECAM + 4).unwrap() & 0xffff, 2);
    bus.port_write(PCI_CONFIG_ADDRESS_PORT, &[0; 4], &nobody, |_| {});
    assert_eq!(port32(&bus, PCI_CONFIG_DATA_PORT), None, "not enabled");
}

#[test]
fn a_window_answers_where_it_was_moved_to() {
    let bus = bus();
    assert_eq!(read32(&bus, BASE), None, "not decoded");
    bus.memory_write(ECAM + 4, &[2, 0], &nobody);
    // The number of queues, in the second half of the word.
    assert_eq!(read32(&bus, BASE + 0x2000), Some(0x0403_0201));
    let elsewhere = PCI_WINDOW_END - WINDOW_SIZE;
    bus.memory_write(ECAM + 0x10, &elsewhere.to_le_bytes(), &nobody);
    assert_eq!(read32(&bus, BASE + 0x2000), None);
    assert_eq!(read32(&bus, elsewhere + 0x2000), Some(0x0403_0201));
}

#[test]
fn a_device_that_was_let_go_is_gone() {
    let bus = bus();
    bus.memory_write(ECAM + 4, &[2, 0], &nobody);
    bus.hotplug().announce(NUMBER);
    assert_eq!(port32(&bus, HOTPLUG_ADDED_PORT), Some(1 << NUMBER));
    let gone = RefCell::new(Vec::new());
    let eject = |bits: u32| {
        bus.port_write(HOTPLUG_EJECT_PORT, &bits.to_le_bytes(), &nobody, |number| {
            gone.borrow_mut().push(number);
        });
    };
    eject(u32::MAX);
    eject(u32::MAX);
    assert_eq!(*gone.borrow(), [NUMBER], "the host bridge stays");
    assert_eq!(read32(&bus, BASE), None);
    assert_eq!(read32(&bus, ECAM), Some(u32::MAX));
    assert_eq!(read32(&bus, PCI_ECAM), Some(0x0008_1b36));
}

proptest! {
    #[test]
    fn any_access_is_safe(
        accesses in prop::collection::vec(
            (
                prop_oneof![PCI_ECAM..PCI_ECAM + PCI_ECAM_SIZE + 8, ECAM..ECAM + 0x100, PCI_WINDOW_START - 8..PCI_WINDOW_START + 3 * WINDOW_SIZE, any::<u64>()],
                prop_oneof![0x600u16..0x620, 0xcf8u16..0xd04],
                prop::collection::vec(any::<u8>(), 0..=8),
            ),
            0..100,
        )
    ) {
        let bus = bus();
        for (address, port, mut data) in accesses {
            bus.memory_write(address, &data, &nobody);
            bus.port_write(port, &data, &nobody, |_| {});
            bus.memory_read(address, &mut data);
            bus.port_read(port, &mut data);
        }
    }
}
