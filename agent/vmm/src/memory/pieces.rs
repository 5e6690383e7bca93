//! Pieces of guest memory that outlive the call that found them: for I/O the host works on by itself.

use std::sync::Arc;

use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap, VolatileSlice};

use super::Ram;
use crate::virtio::Segments;

/// Scattered guest memory, kept mapped by what holds it. Consumed from its front.
#[derive(Debug)]
pub struct Pieces {
    /// Kept for the mapping behind `vectors`.
    _ram: Arc<Ram>,
    /// Ranges within the mapping, none empty.
    vectors: Vec<libc::iovec>,
    /// How many of them are used up.
    first: usize,
    length: usize,
}

impl Pieces {
    /// The same memory as `segments`; `None` if that is not part of `ram`.
    #[must_use]
    pub fn new(ram: &Arc<Ram>, segments: &Segments<'_>) -> Option<Self> {
        let mut vectors = Vec::with_capacity(segments.slices().len());
        for slice in segments.slices() {
            let start = slice.ptr_guard().as_ptr() as usize;
            let end = start.checked_add(slice.len())?;
            let holds = |region: &GuestRegionMmap| {
                let first = region.get_mmap().as_ptr() as usize;
                first <= start && end - first <= region.len() as usize
            };
            if !ram.iter().any(holds) {
                return None;
            }
            vectors.push(libc::iovec {
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: slice.len(),
            });
        }
        Some(Self {
            _ram: Arc::clone(ram),
            vectors,
            first: 0,
            length: segments.len(),
        })
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

    /// What is left, as the kernel wants it. The ranges stay mapped as long as `self` lives; the array stays where it
    /// is until [`Pieces::advance`].
    #[must_use]
    pub fn vectors(&self) -> &[libc::iovec] {
        &self.vectors[self.first..]
    }

    /// What is left.
    #[must_use]
    pub fn slices(&self) -> Vec<VolatileSlice<'_>> {
        self.vectors()
            .iter()
            .map(|vector| {
                // SAFETY: `new` has checked that the range lies within a region of `ram`, which `self` keeps mapped for
                // as long as the slice borrows it. Guest memory is only ever accessed by volatile or kernel copies.
                unsafe { VolatileSlice::new(vector.iov_base.cast(), vector.iov_len) }
            })
            .collect()
    }

    /// Takes the first `count` bytes (or all there are) away.
    pub fn advance(&mut self, count: usize) {
        let mut left = count.min(self.length);
        self.length -= left;
        while left > 0
            && let Some(vector) = self.vectors.get_mut(self.first)
        {
            if vector.iov_len <= left {
                left -= vector.iov_len;
                self.first += 1;
            } else {
                vector.iov_base = vector.iov_base.wrapping_byte_add(left);
                vector.iov_len -= left;
                left = 0;
            }
        }
    }

    /// Copies bytes to the front; how many fitted. They stay what is left.
    pub fn write(&self, bytes: &[u8]) -> usize {
        let mut at = 0;
        for slice in self.slices() {
            let count = slice.len().min(bytes.len() - at);
            slice.copy_from(&bytes[at..at + count]);
            at += count;
        }
        at
    }

    /// Fills all that is left with zeros.
    pub fn zero(&mut self) {
        const ZEROS: [u8; 4096] = [0; 4096];
        while !self.is_empty() {
            let count = self.write(&ZEROS);
            self.advance(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::devices::testing::{Driver, WRITE};
    use crate::virtio::Buffers;

    fn segments<'m>(ram: &'m Ram, lengths: &[u32]) -> Segments<'m> {
        let mut driver = Driver::new(ram, 0);
        let chain: Vec<_> = lengths
            .iter()
            .enumerate()
            .map(|(index, length)| (0x10_0000 + index as u64 * 0x1000, *length, WRITE))
            .collect();
        driver.offer(&chain);
        let chain = driver.live().pop(ram).unwrap().unwrap();
        Buffers::of(chain, ram).unwrap().writable
    }

    proptest! {
        #[test]
        fn bytes_and_zeros_land_in_order(lengths in prop::collection::vec(1u32..200, 1..20), cut in 0usize..2000) {
            let ram = Arc::new(crate::devices::testing::ram());
            let mut segments = segments(&ram, &lengths);
            let mut pieces = Pieces::new(&ram, &segments).unwrap();
            let data: Vec<u8> = (0..pieces.len()).map(|n| n as u8 | 1).collect();
            prop_assert_eq!(pieces.write(&data), data.len());
            let cut = cut.min(data.len());
            pieces.advance(cut);
            prop_assert_eq!(pieces.len(), data.len() - cut);
            prop_assert_eq!(pieces.vectors().iter().map(|one| one.iov_len).sum::<usize>(), pieces.len());
            pieces.zero();
            let mut got = vec![0; data.len()];
            segments.read(&mut got);
            prop_assert_eq!(&got[..cut], &data[..cut]);
            prop_assert!(got[cut..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn memory_of_another_machine_is_refused() {
        let (one, other) = (
            Arc::new(crate::devices::testing::ram()),
            Arc::new(crate::devices::testing::ram()),
        );
        let segments = segments(&one, &[16]);
        assert!(Pieces::new(&other, &segments).is_none());
        assert!(Pieces::new(&one, &segments).is_some());
        let mut byte = [1];
        one.read_slice(&mut byte, GuestAddress(0x10_0000)).unwrap();
        assert_eq!(byte, [0]);
    }
}
