//! A PCI bus as the guest reaches it: windows and configuration in memory, configuration through ports, hot plug.

#![no_main]

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use arbitrary::Arbitrary;
use crn_fuzz::{Behind, Nowhere, Rig};
use crn_vmm::pci::{Msix, PciBus, Vectors, Wiring};
use crn_vmm::plan::layout::{PCI_CONFIG_ADDRESS_PORT, PCI_ECAM, PCI_WINDOW_START};
use crn_vmm::plan::{pci_gsi, pci_window};
use crn_vmm::virtio::pci::VirtioFunction;
use libfuzzer_sys::fuzz_target;

/// The one device's number.
const NUMBER: u8 = 1;

/// Where an access goes.
#[derive(Debug, Arbitrary)]
enum Place {
    /// Some window.
    Window(u32),
    /// Some configuration register.
    Configuration(u32),
    /// Anywhere in memory.
    Wild(u64),
    /// A port near those of configuration.
    Port(u8),
    /// A port near those of hot plug.
    HotPlug(u8),
}

#[derive(Debug, Arbitrary)]
struct Access {
    place: Place,
    width: u8,
    written: Option<[u8; 8]>,
    /// The controller asks for the device first.
    ask: bool,
}

fuzz_target!(|accesses: Vec<Access>| {
    let rig = RefCell::new(Rig::default());
    let vectors = Vectors::new(2).expect("vectors");
    let device = RefCell::new(Behind::new(&rig.borrow(), Some(&vectors)));
    let wiring: Arc<dyn Wiring> = Arc::new(Nowhere);
    let function = VirtioFunction::new(
        device.borrow().negotiator(&rig.borrow()),
        device.borrow().doorbells(),
        Msix::new(vectors, Arc::clone(&wiring), pci_gsi(NUMBER)),
        wiring,
        pci_window(NUMBER),
    );
    let bus = PciBus::default();
    bus.insert(NUMBER, function);
    let gone = Cell::new(false);
    let tell = |number, change| {
        assert!(number == NUMBER && !gone.get(), "nothing else is there");
        device.borrow_mut().change(change, &mut rig.borrow_mut());
    };
    for access in accesses.into_iter().take(256) {
        if access.ask && !gone.get() {
            bus.hotplug().request(NUMBER);
        }
        let address = match access.place {
            Place::Window(at) => Ok(PCI_WINDOW_START + u64::from(at % 0x4_0000)),
            Place::Configuration(at) => Ok(PCI_ECAM + u64::from(at % 0x10_0000)),
            Place::Wild(at) => Ok(at),
            Place::Port(at) => Err(PCI_CONFIG_ADDRESS_PORT + u16::from(at % 12)),
            Place::HotPlug(at) => Err(0x600 + u16::from(at % 20)),
        };
        let width = 1 << (access.width % 4);
        match (address, access.written) {
            (Ok(address), Some(bytes)) => bus.memory_write(address, &bytes[..width], &tell),
            (Ok(address), None) => {
                bus.memory_read(address, &mut [0; 8][..width]);
            }
            (Err(port), Some(bytes)) => {
                bus.port_write(port, &bytes[..width.min(4)], &tell, |number| {
                    assert!(number == NUMBER && !gone.replace(true), "it goes once");
                });
            }
            (Err(port), None) => {
                bus.port_read(port, &mut [0; 4][..width.min(4)]);
            }
        }
    }
});
