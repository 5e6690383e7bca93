//! The pieces of guest memory that make up one request.

use vm_memory::{Bytes, GuestMemoryBackend, VolatileSlice};

use super::Chain;
use crate::memory::Ram;

/// Pieces in one direction of a request; a chain with more is refused. (The longest honest chain is a queue long:
/// 256, some of them split where guest memory is.)
const MAX_SEGMENTS: usize = 512;

/// A chain that is no request: outside guest memory, too scattered, or readable after writable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the descriptor chain is not a valid request")]
pub struct BadChain;

/// Scattered guest memory in one direction, consumed from its front.
#[derive(Debug, Default, Clone)]
pub struct Segments<'m> {
    slices: Vec<VolatileSlice<'m>>,
    length: usize,
}

impl<'m> Segments<'m> {
    fn push(&mut self, slice: VolatileSlice<'m>) -> Result<(), BadChain> {
        if self.slices.len() == MAX_SEGMENTS {
            return Err(BadChain);
        }
        self.length = self.length.checked_add(slice.len()).ok_or(BadChain)?;
        self.slices.push(slice);
        Ok(())
    }

    /// Bytes left.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The pieces, none empty.
    #[must_use]
    pub fn slices(&self) -> &[VolatileSlice<'m>] {
        &self.slices
    }

    /// Takes the first `count` bytes (or all there are) away.
    #[must_use]
    pub fn take(&mut self, count: usize) -> Self {
        let mut taken = Self::default();
        let mut whole = 0;
        let mut rest = None;
        for slice in &self.slices {
            let wanted = count - taken.length;
            if wanted == 0 {
                break;
            }
            if slice.len() <= wanted {
                taken.slices.push(*slice);
                taken.length += slice.len();
                whole += 1;
            } else if let Ok((front, back)) = slice.split_at(wanted) {
                taken.slices.push(front);
                taken.length += wanted;
                rest = Some(back);
            } else {
                break;
            }
        }
        self.slices.drain(..whole);
        if let (Some(back), Some(first)) = (rest, self.slices.first_mut()) {
            *first = back;
        }
        self.length -= taken.length;
        taken
    }

    /// Copies the first bytes out; how many there were.
    pub fn read(&mut self, into: &mut [u8]) -> usize {
        let taken = self.take(into.len());
        let mut at = 0;
        for slice in &taken.slices {
            at += slice.copy_to(&mut into[at..at + slice.len()]);
        }
        at
    }

    /// Copies bytes in at the front; how many fitted.
    pub fn write(&mut self, from: &[u8]) -> usize {
        let taken = self.take(from.len());
        let mut at = 0;
        for slice in &taken.slices {
            slice.copy_from(&from[at..at + slice.len()]);
            at += slice.len();
        }
        at
    }

    /// Fills all that is left with zeros.
    pub fn zero(&mut self) {
        const ZEROS: [u8; 4096] = [0; 4096];
        while self.write(&ZEROS) > 0 {}
    }
}

/// A request's two directions.
#[derive(Debug, Default, Clone)]
pub struct Buffers<'m> {
    /// What the driver says.
    pub readable: Segments<'m>,
    /// What the device is to fill.
    pub writable: Segments<'m>,
}

impl<'m> Buffers<'m> {
    /// Collects a chain's pieces.
    ///
    /// # Errors
    /// [`BadChain`].
    pub fn of(chain: Chain<'m>, ram: &'m Ram) -> Result<Self, BadChain> {
        let mut buffers = Self::default();
        for descriptor in chain {
            let side = if descriptor.is_write_only() {
                &mut buffers.writable
            } else if buffers.writable.is_empty() {
                &mut buffers.readable
            } else {
                return Err(BadChain);
            };
            for slice in
                GuestMemoryBackend::get_slices(ram, descriptor.addr(), descriptor.len() as usize)
            {
                side.push(slice.map_err(|_| BadChain)?)?;
            }
        }
        Ok(buffers)
    }
}

/// Reads `N` bytes from the front, if there are as many.
pub fn read_array<const N: usize>(segments: &mut Segments<'_>) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    (segments.read(&mut bytes) == N).then_some(bytes)
}

/// Writes one value at an address inside a piece written before; used to patch headers.
pub fn patch(slice: &VolatileSlice<'_>, offset: usize, bytes: &[u8]) -> bool {
    slice.write_slice(bytes, offset).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::GuestAddress;

    use super::*;

    proptest! {
        #[test]
        fn bytes_survive_any_scattering(lengths in prop::collection::vec(1usize..40, 1..20), cuts in prop::collection::vec(0usize..60, 1..20)) {
            let ram = Ram::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap();
            let mut segments = Segments::default();
            for (index, length) in lengths.iter().enumerate() {
                segments.push(ram.get_slice(GuestAddress(index as u64 * 64), *length).unwrap()).unwrap();
            }
            let total: usize = lengths.iter().sum();
            let data: Vec<u8> = (0..total).map(|n| n as u8).collect();
            prop_assert_eq!(segments.clone().write(&data), total);
            let mut got = Vec::new();
            for cut in cuts {
                let mut piece = vec![0; cut];
                let count = segments.read(&mut piece);
                got.extend_from_slice(&piece[..count]);
                prop_assert_eq!(segments.len(), total - got.len());
            }
            prop_assert_eq!(&got[..], &data[..got.len()]);
        }
    }

    #[test]
    fn zeroing_reaches_every_byte() {
        let ram = Ram::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap();
        ram.write_slice(&[7; 0x3000], GuestAddress(0)).unwrap();
        let mut segments = Segments::default();
        segments
            .push(ram.get_slice(GuestAddress(1), 0x2ffe).unwrap())
            .unwrap();
        segments.zero();
        assert!(segments.is_empty());
        let mut bytes = vec![0; 0x3000];
        ram.read_slice(&mut bytes, GuestAddress(0)).unwrap();
        assert_eq!((bytes[0], bytes[0x2fff]), (7, 7));
        assert!(bytes[1..0x2fff].iter().all(|byte| *byte == 0));
    }
}
