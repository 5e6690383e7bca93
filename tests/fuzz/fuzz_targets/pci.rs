//! The configuration registers, the window and the MSI-X table of virtio-pci, and a device behind them.

#![no_main]

use std::sync::Arc;

use crn_fuzz::{Behind, Nowhere, Rig};
use crn_vmm::pci::{Msix, Vectors, Wiring};
use crn_vmm::plan::pci_window;
use crn_vmm::virtio::pci::{VirtioFunction, WINDOW_SIZE};
use libfuzzer_sys::fuzz_target;

/// One access: to the window or not, where, how many bytes, and what is written.
type Access = (bool, u16, u8, Option<[u8; 8]>);

fuzz_target!(|accesses: Vec<Access>| {
    let mut rig = Rig::default();
    let vectors = Vectors::new(2).expect("vectors");
    let mut device = Behind::new(&rig, Some(&vectors));
    let wiring: Arc<dyn Wiring> = Arc::new(Nowhere);
    let negotiator = device.negotiator(&rig);
    let doorbells = device.doorbells();
    let msix = Msix::new(vectors, Arc::clone(&wiring), 100);
    let mut function = VirtioFunction::new(negotiator, doorbells, msix, wiring, pci_window(1));
    for (window, offset, width, value) in accesses.into_iter().take(256) {
        let change = match (window, value) {
            (true, Some(value)) => {
                let offset = u64::from(offset) % WINDOW_SIZE;
                function.window_write(offset, &value[..usize::from(width % 9)])
            }
            (true, None) => {
                let offset = u64::from(offset) % WINDOW_SIZE;
                function.window_read(offset, &mut [0; 8][..usize::from(width % 9)]);
                None
            }
            (false, Some(value)) => {
                let width = 1 << (width % 3);
                let effect = function.config_write(offset % 0x1000, &value[..width]);
                effect.change
            }
            (false, None) => {
                function.config_read(offset % 0x1000, &mut [0; 4][..1 << (width % 3)]);
                None
            }
        };
        if let Some(change) = change {
            device.change(change, &mut rig);
        }
    }
});
