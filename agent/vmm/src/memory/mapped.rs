//! A file read into guest memory without being copied: its whole pages are mapped there, privately. What the guest only
//! reads is the host's one copy of the file, for all machines with the same kernel.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use rustix::mm::{MapFlags, ProtFlags, mmap};
use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

use super::reclaim::PAGE;

/// Less is copied: a mapping costs as much.
const LEAST: usize = 64 << 10;

/// A file that stays as it is while it is mapped: cut short, its pages would end the monitor.
#[derive(Debug)]
pub struct Mapped<'a>(&'a mut File);

impl<'a> Mapped<'a> {
    /// Reads `file` by mapping it into guest memory of ordinary pages.
    pub fn new(file: &'a mut File) -> Self {
        Self(file)
    }
}

impl Read for Mapped<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Seek for Mapped<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl ReadVolatile for Mapped<'_> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buffer: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        self.fill(buffer).map_err(VolatileMemoryError::IOError)
    }
}

impl Mapped<'_> {
    fn fill<B: BitmapSlice>(&mut self, buffer: &mut VolatileSlice<'_, B>) -> io::Result<usize> {
        let position = self.0.stream_position()?;
        let length = self.0.metadata()?.len();
        let guard = buffer.ptr_guard_mut();
        let address = guard.as_ptr() as usize;
        let ends_inside = position
            .checked_add(buffer.len() as u64)
            .is_some_and(|end| end <= length);
        let Some((head, whole)) =
            whole_pages(address, buffer.len(), position).filter(|_| ends_inside)
        else {
            return self.0.read_volatile(buffer).map_err(io::Error::other);
        };
        self.copy(buffer, 0, head)?;
        let offset = position + head as u64;
        // SAFETY: the range lies within `buffer`, a piece of guest memory, and its ends are pages' ends; it is replaced
        // by a mapping that may be read and written as the one before and that goes with it. No Rust reference to guest
        // memory exists, and what it holds may change at any time. The file is as long as what is mapped of it.
        unsafe {
            mmap(
                guard.as_ptr().wrapping_add(head).cast(),
                whole,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
                &*self.0,
                offset,
            )
        }?;
        self.0.seek(SeekFrom::Start(offset + whole as u64))?;
        let done = head + whole;
        self.copy(buffer, done, buffer.len() - done)?;
        Ok(buffer.len())
    }

    fn copy<B: BitmapSlice>(
        &mut self,
        buffer: &VolatileSlice<'_, B>,
        offset: usize,
        count: usize,
    ) -> io::Result<()> {
        buffer
            .subslice(offset, count)
            .and_then(|mut part| self.0.read_exact_volatile(&mut part))
            .map_err(io::Error::other)
    }
}

/// How many bytes stand before the whole pages of a piece of memory, and how many those have; `None` when the file's
/// pages are not the memory's, or there are too few of them.
fn whole_pages(address: usize, length: usize, position: u64) -> Option<(usize, usize)> {
    let page = PAGE as usize;
    let head = address.next_multiple_of(page) - address;
    let whole = length.checked_sub(head)? / page * page;
    let same = (position + head as u64).is_multiple_of(PAGE);
    (same && whole >= LEAST).then_some((head, whole))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::memory::Ram;

    const SIZE: usize = 512 << 10;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn what_is_mapped_is_what_reading_gives_and_stays_the_guests_own(
            at in 0..PAGE, from in 0..PAGE, aligned: bool, length in 0..SIZE - 2 * PAGE as usize,
        ) {
            let from = if aligned { at } else { from };
            let bytes: Vec<u8> = (0..SIZE as u32).map(|n| (n ^ n >> 8) as u8).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            file.seek(SeekFrom::Start(from)).unwrap();
            let ram = Ram::from_ranges(&[(GuestAddress(0), SIZE)]).unwrap();
            ram.write_slice(&[9; SIZE], GuestAddress(0)).unwrap();
            ram.read_exact_volatile_from(GuestAddress(at), &mut Mapped::new(&mut file), length)
                .unwrap();
            prop_assert_eq!(file.stream_position().unwrap(), from + length as u64);
            let mut seen = vec![0; SIZE];
            ram.read_slice(&mut seen, GuestAddress(0)).unwrap();
            let (at, from) = (at as usize, from as usize);
            prop_assert!(seen[..at].iter().all(|byte| *byte == 9));
            prop_assert_eq!(&seen[at..at + length], &bytes[from..from + length]);
            prop_assert!(seen[at + length..].iter().all(|byte| *byte == 9));

            ram.write_slice(&vec![7; length], GuestAddress(at as u64)).unwrap();
            let mut kept = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut kept).unwrap();
            prop_assert_eq!(kept, bytes);
        }
    }

    #[test]
    fn a_file_that_is_too_short_is_an_error_and_no_mapping() {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(SIZE as u64 - 1).unwrap();
        let ram = Ram::from_ranges(&[(GuestAddress(0), SIZE)]).unwrap();
        let read = ram.read_exact_volatile_from(GuestAddress(0), &mut Mapped::new(&mut file), SIZE);
        assert!(read.is_err());
    }
}
