//! A guest's memory statistics (virtio 1.3, section 5.5.6.3): packed pairs of a 16-bit tag and a 64-bit value.

use crn_protocol::devices::GuestMemory;

use crate::virtio::Segments;
use crate::virtio::buffers::read_array;

const MAJOR_FAULTS: u16 = 2;
const FREE: u16 = 4;
const TOTAL: u16 = 5;
const AVAILABLE: u16 = 6;
const CACHES: u16 = 7;
/// Pairs that are looked at; there are 16 tags.
const MAX_PAIRS: usize = 32;

/// Takes over what a driver tells; tags it leaves out stay as they were, unknown ones are ignored.
#[must_use]
pub fn parse(pairs: &mut Segments<'_>, before: GuestMemory) -> GuestMemory {
    let mut memory = before;
    for _ in 0..MAX_PAIRS {
        let Some([t0, t1, value @ ..]) = read_array::<10>(pairs) else {
            break;
        };
        let value = u64::from_le_bytes(value);
        match u16::from_le_bytes([t0, t1]) {
            MAJOR_FAULTS => memory.major_faults = value,
            FREE => memory.free = value,
            TOTAL => memory.total = value,
            AVAILABLE => memory.available = value,
            CACHES => memory.caches = value,
            _ => {}
        }
    }
    memory
}
