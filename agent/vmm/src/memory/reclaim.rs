//! Guest memory goes back to the host.

use std::io;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::{Advice, madvise};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::Ram;

/// The host's page, the least it takes back.
pub const PAGE: u64 = 4096;

/// Takes the whole pages within a range of guest memory back: they read as zeros until the guest writes them again, or as
/// the snapshot has them where the machine goes on from one.
/// Returns how many bytes that was; 0 when the range does not lie within one region of guest memory.
///
/// # Errors
/// madvise(2)'s or fallocate(2)'s.
pub fn take_back(ram: &Ram, start: GuestAddress, length: u64) -> io::Result<u64> {
    let Some(end) = start.0.checked_add(length) else {
        return Ok(0);
    };
    let Some(first) = start.0.checked_next_multiple_of(PAGE) else {
        return Ok(0);
    };
    let end = end / PAGE * PAGE;
    let Some(bytes) = end.checked_sub(first).filter(|bytes| *bytes > 0) else {
        return Ok(0);
    };
    let Some((region, offset)) = ram.to_region_addr(GuestAddress(first)) else {
        return Ok(0);
    };
    if bytes > region.len() - offset.0 {
        return Ok(0);
    }
    let mapping = region.get_mmap();
    if let Some(backing) = mapping.file_offset()
        && mapping.flags() & libc::MAP_SHARED != 0
    {
        let at = backing
            .start()
            .checked_add(offset.0)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(backing.file(), flags, at, bytes)?;
        return Ok(bytes);
    }
    let address = mapping.as_ptr().wrapping_add(offset.0 as usize);
    // SAFETY: the range is page-aligned and within a live mapping of guest memory (checked above), to which no Rust
    // reference exists; that its bytes become zeros is what every reader of guest memory has to expect anyway.
    unsafe { madvise(address.cast(), bytes as usize, Advice::LinuxDontNeed) }?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;
    use vm_memory::{Bytes, FileOffset};

    use super::*;

    const SIZE: u64 = 1 << 20;

    fn filled(ram: Ram) -> Ram {
        ram.write_slice(&[7; SIZE as usize], GuestAddress(0))
            .unwrap();
        ram
    }

    fn content(ram: &Ram) -> Vec<u8> {
        let mut bytes = vec![0; SIZE as usize];
        ram.read_slice(&mut bytes, GuestAddress(0)).unwrap();
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whole_pages_inside_memory_and_nothing_else(start in 0u64..2 * SIZE, length in 0u64..2 * SIZE) {
            let ram = filled(Ram::from_ranges(&[(GuestAddress(0), SIZE as usize)]).unwrap());
            let taken = take_back(&ram, GuestAddress(start), length).unwrap();
            let bytes = content(&ram);
            let zeros = bytes.iter().filter(|byte| **byte == 0).count() as u64;
            prop_assert_eq!(zeros, taken);
            let first = start.next_multiple_of(PAGE);
            let end = (start + length) / PAGE * PAGE;
            let expected = if end <= SIZE { end.saturating_sub(first) } else { 0 };
            prop_assert_eq!(taken, expected);
        }
    }

    #[test]
    fn numbers_at_the_end_of_the_address_space_do_no_harm() {
        let ram = filled(Ram::from_ranges(&[(GuestAddress(0), SIZE as usize)]).unwrap());
        for (start, length) in [
            (u64::MAX, u64::MAX),
            (0, u64::MAX),
            (u64::MAX, 1),
            (u64::MAX - 4096, 4096),
        ] {
            assert_eq!(take_back(&ram, GuestAddress(start), length).unwrap(), 0);
        }
        assert!(content(&ram).iter().all(|byte| *byte == 7));
    }

    #[test]
    fn shared_memory_becomes_a_hole_in_its_file() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        let place = FileOffset::new(file.try_clone().unwrap(), 0);
        let range = (GuestAddress(0), SIZE as usize, Some(place));
        let ram = filled(Ram::from_ranges_with_files(&[range]).unwrap());
        assert_eq!(
            take_back(&ram, GuestAddress(0), SIZE / 2).unwrap(),
            SIZE / 2
        );
        assert!(
            content(&ram)[..SIZE as usize / 2]
                .iter()
                .all(|byte| *byte == 0)
        );
        assert!(file.metadata().unwrap().blocks() * 512 <= SIZE / 2);
    }
}
