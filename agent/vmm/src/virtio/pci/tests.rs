//! A driver's way through the registers, and a guest's way across them.

use proptest::prelude::*;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::*;
use crate::memory::Ram;
use crate::pci::Vectors;
use crate::pci::msix::testing::Notes;
use crate::virtio::interrupt::NO_VECTOR;
use crate::virtio::{Interrupt, Offer};

pub(crate) const BASE: u64 = PCI_WINDOW_START + WINDOW_SIZE;
const QUEUES: usize = 2;

pub(crate) fn function() -> (VirtioFunction, Arc<Notes>, Interrupt) {
    let ram = Arc::new(Ram::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap());
    let offer = Offer {
        device_id: 2,
        features: 1 << VIRTIO_F_VERSION_1 | 1 << 9,
        queue_sizes: vec![256; QUEUES],
        config: vec![1, 2, 3, 4, 5].into(),
    };
    let vectors = Vectors::new(QUEUES as u16 + 1).unwrap();
    let notes = Arc::new(Notes::default());
    let wiring: Arc<dyn Wiring> = Arc::<Notes>::clone(&notes);
    let interrupt = Interrupt::messages(Arc::clone(&vectors), QUEUES);
    let doorbells: Vec<_> = (0..QUEUES)
        .map(|_| Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()))
        .collect();
    let negotiator = Negotiator::new(offer, interrupt.clone(), doorbells.clone(), ram);
    let msix = Msix::new(vectors, Arc::clone(&wiring), 100);
    let function = VirtioFunction::new(negotiator, doorbells, msix, wiring, BASE);
    (function, notes, interrupt)
}

fn config(function: &mut VirtioFunction, offset: u16) -> u32 {
    let mut data = [0; 4];
    function.config_read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn read(function: &mut VirtioFunction, offset: u64, width: usize) -> u64 {
    let mut data = [0; 8];
    function.window_read(offset, &mut data[..width]);
    u64::from_le_bytes(data)
}

fn write(function: &mut VirtioFunction, offset: u64, width: usize, value: u64) -> Option<Change> {
    function.window_write(offset, &value.to_le_bytes()[..width])
}

/// Each capability: where it is, its identifier, its second word.
fn capabilities(function: &mut VirtioFunction) -> Vec<(u16, u8, [u8; 4])> {
    let mut found = Vec::new();
    let mut at = config(function, 0x34) as u16 & 0xff;
    while at != 0 {
        let head = config(function, at).to_le_bytes();
        found.push((at, head[0], head));
        at = u16::from(head[1]);
    }
    found
}

/// What a driver writes to bring the device to life with one queue and three vectors.
fn bring_up(function: &mut VirtioFunction) -> Option<Change> {
    for (offset, width, value) in [
        (0x14, 1, 1),
        (0x14, 1, 3),
        (0x08, 4, 1),
        (0x0c, 4, 1),
        (0x14, 1, 11),
        (0x10, 2, 0),
        (0x16, 2, 0),
        (0x18, 2, 64),
        (0x1a, 2, 1),
        (0x20, 4, 0x1000),
        (0x24, 4, 0),
        (0x28, 8, 0x2000),
        (0x30, 8, 0x3000),
        (0x1c, 2, 1),
    ] {
        assert!(write(function, offset, width, value).is_none());
    }
    write(function, 0x14, 1, 15)
}

#[test]
fn a_driver_finds_a_modern_device_and_its_structures() {
    let (mut function, _, _) = function();
    assert_eq!(config(&mut function, 0), 0x1042_1af4);
    assert_eq!(config(&mut function, 8) & 0xff, 1, "revision");
    let found = capabilities(&mut function);
    let kinds: Vec<_> = found.iter().map(|(_, id, head)| (*id, head[3])).collect();
    assert_eq!(
        kinds,
        [(0x11, 0), (9, 1), (9, 3), (9, 4), (9, 2), (9, 5)],
        "MSI-X, then common, ISR, device, notify, access"
    );
    assert_eq!(config(&mut function, found[0].0) >> 16, 2, "three vectors");
    assert_eq!(u64::from(config(&mut function, found[0].0 + 4)), MSIX_TABLE);
    let notify = found[4].0;
    assert_eq!(u64::from(config(&mut function, notify + 8)), NOTIFY);
    assert_eq!(config(&mut function, notify + 16), NOTIFY_MULTIPLIER);
    assert_eq!(read(&mut function, 0x12, 2), QUEUES as u64);
    assert_eq!(read(&mut function, DEVICE, 8), 0x05_0403_0201);
}

#[test]
fn a_driver_by_the_book_gets_its_queue_and_its_vectors() {
    let (mut function, _, interrupt) = function();
    assert_eq!(read(&mut function, 0x18, 2), 256, "the largest size");
    let Some(Change::Activate { features, queues }) = bring_up(&mut function) else {
        panic!("not activated");
    };
    assert_eq!((features, queues.count()), (1 << VIRTIO_F_VERSION_1, 1));
    for (offset, width, value) in [
        (0x14, 1, 15),
        (0x18, 2, 64),
        (0x1a, 2, 1),
        (0x1c, 2, 1),
        (0x20, 8, 0x1000),
        (0x30, 4, 0x3000),
    ] {
        assert_eq!(read(&mut function, offset, width), value, "{offset:#x}");
    }
    assert_eq!(
        (interrupt.config_vector(), interrupt.queue_vector(0)),
        (0, 1)
    );
    // A queue's size is the device's now.
    assert!(write(&mut function, 0x18, 2, 0).is_none());
    assert_eq!(read(&mut function, 0x18, 2), 64);
    assert!(write(&mut function, 0x1a, 2, 3).is_none());
    assert_eq!(read(&mut function, 0x1a, 2), u64::from(NO_VECTOR));
}

#[test]
fn reading_the_cause_of_an_interrupt_clears_it() {
    let (mut function, _, interrupt) = function();
    interrupt.used_buffers();
    assert_eq!(read(&mut function, ISR, 1), 1);
    assert_eq!(read(&mut function, ISR, 1), 0);
}

#[test]
fn doorbells_are_where_the_window_is_and_nowhere_while_it_is_off() {
    let (mut function, notes, _) = function();
    let at = || notes.doorbells.lock().unwrap().clone();
    assert!(at().is_empty());
    assert!(function.config_write(4, &[2, 0]).moved);
    assert_eq!(at(), [BASE + NOTIFY, BASE + NOTIFY + 4]);
    // A search for the window's size, with the window left on.
    assert!(function.config_write(0x10, &[0xff; 4]).moved);
    assert!(at().is_empty() && function.window().is_none());
    assert_eq!(config(&mut function, 0x10), 0xffff_8004);
    let elsewhere = (PCI_WINDOW_END - WINDOW_SIZE) as u32;
    assert!(function.config_write(0x10, &elsewhere.to_le_bytes()).moved);
    assert_eq!(at()[0], u64::from(elsewhere) + NOTIFY);
    assert!(!function.config_write(0x3c, &[7]).moved);
    drop(function);
    assert!(at().is_empty());
}

#[test]
fn a_doorbell_the_kernel_has_not_got_rings_all_the_same() {
    let (mut function, _, _) = function();
    assert!(write(&mut function, NOTIFY + 4, 2, 1).is_none());
    assert!(write(&mut function, NOTIFY + 8, 2, 2).is_none());
    assert!(function.doorbells[0].read().is_err());
    assert_eq!(function.doorbells[1].read().unwrap(), 1);
}

#[test]
fn the_window_is_reached_through_configuration_registers() {
    let (mut function, _, _) = function();
    let access = capabilities(&mut function)[5].0;
    let place = |function: &mut VirtioFunction, bar: u8, offset: u32, length: u32| {
        let _ = function.config_write(access + 4, &[bar]);
        let _ = function.config_write(access + 8, &offset.to_le_bytes());
        let _ = function.config_write(access + 12, &length.to_le_bytes());
    };
    place(&mut function, 0, 0x14, 1);
    let _ = function.config_write(access + 16, &[1, 0, 0, 0]);
    assert_eq!(read(&mut function, 0x14, 1), 1);
    assert_eq!(config(&mut function, access + 16), 1);
    for (bar, offset, length) in [(1, 0x14, 1), (0, 0x8000, 1), (0, 0x14, 3), (0, 0x15, 2)] {
        place(&mut function, bar, offset, length);
        let _ = function.config_write(access + 16, &[3, 0, 0, 0]);
        assert_eq!(read(&mut function, 0x14, 1), 1, "{bar} {offset} {length}");
    }
}

#[test]
fn a_function_that_loses_the_bus_stops() {
    let (mut function, _, _) = function();
    assert!(function.config_write(4, &[6, 0]).change.is_none());
    assert!(bring_up(&mut function).is_some());
    let effect = function.config_write(4, &[2, 0]);
    assert!(matches!(effect.change, Some(Change::Reset)));
    assert!(bring_up(&mut function).is_none(), "not without a reset");
    assert!(write(&mut function, 0x14, 1, 0).is_none());
    assert!(bring_up(&mut function).is_some());
}

#[derive(Debug, Clone)]
enum Access {
    ConfigRead(u16, usize),
    ConfigWrite(u16, Vec<u8>),
    Read(u64, usize),
    Write(u64, Vec<u8>),
    Step(u64, usize, u64),
}

fn access() -> impl Strategy<Value = Access> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..=8);
    let window = || {
        prop_oneof![
            0..WINDOW_SIZE,
            0u64..0x40,
            (0u64..0x100).prop_map(|n| MSIX_TABLE + n)
        ]
    };
    let steps = prop::sample::select(vec![
        (0x14u64, 1usize, 0u64),
        (0x14, 1, 1),
        (0x14, 1, 3),
        (0x14, 1, 11),
        (0x14, 1, 15),
        (0x08, 4, 1),
        (0x0c, 4, 1),
        (0x18, 2, 64),
        (0x20, 8, 0x1000),
        (0x28, 8, 0x2000),
        (0x30, 8, 0x3000),
        (0x1c, 2, 1),
    ]);
    prop_oneof![
        (0u16..0x1000, 0usize..=8).prop_map(|(at, width)| Access::ConfigRead(at, width)),
        (0u16..0xb0, bytes()).prop_map(|(at, data)| Access::ConfigWrite(at, data)),
        (window(), 0usize..=8).prop_map(|(at, width)| Access::Read(at, width)),
        (window(), bytes()).prop_map(|(at, data)| Access::Write(at, data)),
        steps.prop_map(|(at, width, value)| Access::Step(at, width, value)),
    ]
}

proptest! {
    /// Whatever the guest does, in whatever width: a device is activated at most once between resets, its doorbells
    /// are where its window is, and its window is where the bridge forwards to.
    #[test]
    fn random_accesses_keep_function_and_machine_together(accesses in prop::collection::vec(access(), 0..200)) {
        let (mut function, notes, _) = function();
        let mut live = false;
        for access in accesses {
            let mut data = [0; 8];
            let change = match access {
                Access::ConfigRead(at, width) => {
                    function.config_read(at, &mut data[..width]);
                    None
                }
                Access::ConfigWrite(at, data) => function.config_write(at, &data).change,
                Access::Read(at, width) => {
                    function.window_read(at, &mut data[..width]);
                    None
                }
                Access::Write(at, data) => function.window_write(at, &data),
                Access::Step(at, width, value) => write(&mut function, at, width, value),
            };
            match change {
                Some(Change::Activate { .. }) => {
                    prop_assert!(!live);
                    live = true;
                }
                Some(Change::Reset) => {
                    prop_assert!(live);
                    live = false;
                }
                None => {}
            }
            prop_assert_eq!(read(&mut function, 0x14, 1) == 15, live);
            let doorbells = notes.doorbells.lock().unwrap().clone();
            match function.window() {
                None => prop_assert!(doorbells.is_empty()),
                Some(base) => {
                    prop_assert!(base >= PCI_WINDOW_START && base + WINDOW_SIZE <= PCI_WINDOW_END);
                    prop_assert_eq!(doorbells, [base + NOTIFY, base + NOTIFY + 4]);
                }
            }
        }
    }
}
