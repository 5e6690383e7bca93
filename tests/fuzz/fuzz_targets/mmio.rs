//! The registers of virtio-mmio, and a device behind them that is activated and reset as they say.

#![no_main]

use crn_fuzz::{Behind, Rig};
use crn_vmm::virtio::mmio::MmioTransport;
use libfuzzer_sys::fuzz_target;

/// One access: where, how many bytes, and what is written.
type Access = (u16, u8, Option<[u8; 8]>);

fuzz_target!(|accesses: Vec<Access>| {
    let mut rig = Rig::default();
    let mut device = Behind::new(&rig, None);
    let mut transport = MmioTransport::new(device.negotiator(&rig));
    for (offset, width, value) in accesses.into_iter().take(256) {
        let (offset, width) = (u64::from(offset % 0x220), usize::from(width % 9));
        match value {
            Some(value) => {
                if let Some(change) = transport.write(offset, &value[..width]) {
                    device.change(change, &mut rig);
                }
            }
            None => transport.read(offset, &mut [0; 8][..width]),
        }
    }
});
