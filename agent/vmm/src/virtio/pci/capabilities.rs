//! What a function's capabilities say (virtio 1.3, section 4.1.4): where in the window each structure is, where the
//! interrupt table is, and the way into the window through configuration registers.

use super::{
    COMMON, DEVICE, ISR, MSIX_PENDING, MSIX_TABLE, NOTIFY, NOTIFY_MULTIPLIER, PAGE, WINDOW_SIZE,
};
use crate::pci::ConfigRegisters;
use crate::pci::msix::CONTROL_WRITABLE;

/// Capability identifiers (PCI Code and ID Assignment 1.11, chapter 2).
const VENDOR_SPECIFIC: u8 = 0x09;
const MSIX: u8 = 0x11;

/// Kinds of structures.
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;

/// Length of a capability with nothing behind it, identifier and link included.
const LENGTH: u8 = 16;
/// Where in a capability its fields are.
const BAR_FIELD: u16 = 4;
const OFFSET_FIELD: u16 = 8;
const DATA_FIELD: u16 = 16;

/// Where the capabilities are that the guest writes.
#[derive(Debug, Clone, Copy)]
pub struct Capabilities {
    msix: u16,
    access: u16,
}

impl Capabilities {
    /// Adds them all. Everything is in the window of base address 0.
    pub fn add_to(config: &mut ConfigRegisters, msix_control: [u8; 2]) -> Self {
        let mut msix = Vec::from(msix_control);
        // Offsets are multiples of eight; their low bits name the base address.
        msix.extend_from_slice(&(MSIX_TABLE as u32).to_le_bytes());
        msix.extend_from_slice(&(MSIX_PENDING as u32).to_le_bytes());
        let msix = config.add_capability(MSIX, &msix, &CONTROL_WRITABLE);
        let places = [
            (COMMON_CFG, COMMON),
            (ISR_CFG, ISR),
            (DEVICE_CFG, DEVICE),
            (NOTIFY_CFG, NOTIFY),
        ];
        for (kind, offset) in places {
            let tail: &[u8] = match kind {
                NOTIFY_CFG => &NOTIFY_MULTIPLIER.to_le_bytes(),
                _ => &[],
            };
            let body = body(kind, offset, PAGE, tail);
            config.add_capability(VENDOR_SPECIFIC, &body, &[]);
        }
        // The guest chooses base address, offset and length, then accesses the data behind them (section 4.1.4.9).
        let writable = [0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0];
        let body = body(PCI_CFG, 0, 0, &[0; 4]);
        let access = config.add_capability(VENDOR_SPECIFIC, &body, &writable);
        Self { msix, access }
    }

    /// The high byte of the MSI-X control register.
    pub fn msix_control(self, config: &ConfigRegisters) -> u8 {
        config.bytes(self.msix + 3, 1)[0]
    }

    /// The offset in the window and the width that an access to the configuration registers at `offset` is really
    /// for; `None` for all that are not for the window, and for those whose place is not in it.
    pub fn access(self, config: &ConfigRegisters, offset: u16) -> Option<(u64, usize)> {
        if offset != self.access + DATA_FIELD {
            return None;
        }
        let field = |at: u16| {
            let mut value = [0; 4];
            value.copy_from_slice(config.bytes(self.access + at, 4));
            u32::from_le_bytes(value)
        };
        let at = u64::from(field(OFFSET_FIELD));
        let length = field(OFFSET_FIELD + 4) as usize;
        let inside = field(BAR_FIELD) as u8 == 0 && at < WINDOW_SIZE;
        let aligned = matches!(length, 1 | 2 | 4) && at.is_multiple_of(length as u64);
        (inside && aligned).then_some((at, length))
    }
}

/// A capability's content behind identifier and link.
fn body(kind: u8, offset: u64, length: u64, tail: &[u8]) -> Vec<u8> {
    let mut body = vec![LENGTH + tail.len() as u8, kind, 0, 0, 0, 0];
    body.extend_from_slice(&(offset as u32).to_le_bytes());
    body.extend_from_slice(&(length as u32).to_le_bytes());
    body.extend_from_slice(tail);
    body
}
