//! The memory file: RAM at its offset within all RAM, holes where it is zero, and a page behind it that says which
//! state file it belongs to.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap,
};

use rustix::fs::{FallocateFlags, fallocate};

use super::SnapshotError;
use crate::memory::Ram;
use crate::plan::layout::RamLayout;

/// A page, the grain of holes.
const PAGE: usize = 4096;
/// Bytes looked at in one go.
const PIECE: usize = 256 * PAGE;
/// What the last page begins with; the number behind it follows.
const MAGIC: [u8; 8] = *b"CRNMEM1\n";

/// Ties a memory file to its state file.
pub type Tie = [u8; 16];

/// Writes all of memory into an empty file and makes it durable.
///
/// # Errors
/// [`SnapshotError::Write`].
pub fn write(ram: &Ram, file: &File, tie: Tie) -> Result<(), SnapshotError> {
    try_write(ram, file, tie).map_err(|error| SnapshotError::Write("memory", error))
}

fn try_write(ram: &Ram, file: &File, tie: Tie) -> io::Result<()> {
    let total: u64 = ram.iter().map(GuestMemoryRegion::len).sum();
    super::must_be_empty(file)?;
    file.set_len(total + PAGE as u64)?;
    each_piece(ram, &mut vec![0; PIECE], |piece, offset| {
        write_piece(file, piece, offset)
    })?;
    finish(file, total, tie)
}

/// Brings a copy of the memory file that belongs to `former` up to date and makes it durable. What has changed is found
/// by looking: that costs the guest nothing while it runs, and misses nothing, whoever wrote it.
///
/// # Errors
/// [`SnapshotError::Write`], [`SnapshotError::Read`], [`SnapshotError::Memory`]; the file belongs to no snapshot then.
pub fn update(ram: &Ram, file: &File, former: Tie, tie: Tie) -> Result<(), SnapshotError> {
    let total: u64 = ram.iter().map(GuestMemoryRegion::len).sum();
    must_belong(file, total, former)?;
    try_update(ram, file, total, tie).map_err(|error| SnapshotError::Write("memory", error))
}

fn try_update(ram: &Ram, file: &File, total: u64, tie: Tie) -> io::Result<()> {
    // From here on it is neither.
    file.write_all_at(&[0; PAGE], total)?;
    let (mut piece, mut before) = (vec![0; PIECE], vec![0; PIECE]);
    each_piece(ram, &mut piece, |piece, offset| {
        let before = &mut before[..piece.len()];
        file.read_exact_at(before, offset)?;
        let pages = piece.chunks(PAGE).zip(before.chunks(PAGE));
        for ((page, before), at) in pages.zip((offset..).step_by(PAGE)) {
            if page == before {
                continue;
            }
            if page == [0; PAGE] {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(file, flags, at, PAGE as u64)?;
            } else {
                file.write_all_at(page, at)?;
            }
        }
        Ok(())
    })?;
    finish(file, total, tie)
}

/// Goes through all of memory.
fn each_piece(
    ram: &Ram,
    piece: &mut [u8],
    mut look: impl FnMut(&[u8], u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut offset = 0;
    for region in ram.iter() {
        let (start, end) = (region.start_addr().0, region.start_addr().0 + region.len());
        let mut at = start;
        while at < end {
            let length = piece.len().min((end - at) as usize);
            ram.read_slice(&mut piece[..length], GuestAddress(at))
                .map_err(io::Error::other)?;
            look(&piece[..length], offset)?;
            at += length as u64;
            offset += length as u64;
        }
    }
    Ok(())
}

/// The last page; everything is durable then.
fn finish(file: &File, total: u64, tie: Tie) -> io::Result<()> {
    let mut last = [0; PAGE];
    last[..MAGIC.len()].copy_from_slice(&MAGIC);
    last[MAGIC.len()..][..tie.len()].copy_from_slice(&tie);
    file.sync_data()?;
    file.write_all_at(&last, total)?;
    file.sync_data()
}

/// The file is the memory of this state file, with so many bytes.
fn must_belong(file: &File, total: u64, tie: Tie) -> Result<(), SnapshotError> {
    let read = |error| SnapshotError::Read("memory", error);
    let metadata = file.metadata().map_err(read)?;
    let expected = total + PAGE as u64;
    if !metadata.is_file() || metadata.len() != expected {
        return Err(SnapshotError::Memory(format!(
            "is not a regular file of {expected} bytes"
        )));
    }
    let mut last = [0; MAGIC.len() + size_of::<Tie>()];
    file.read_exact_at(&mut last, total).map_err(read)?;
    if last[..MAGIC.len()] != MAGIC || last[MAGIC.len()..] != tie {
        return Err(SnapshotError::Memory(
            "belongs to another state file".to_owned(),
        ));
    }
    Ok(())
}

/// Writes the runs of pages that are not zero.
fn write_piece(file: &File, piece: &[u8], offset: u64) -> io::Result<()> {
    let zero = |page: usize| {
        piece
            .chunks(PAGE)
            .nth(page)
            .is_none_or(|page| page == [0; PAGE])
    };
    let pages = piece.len() / PAGE;
    let mut page = 0;
    while page < pages {
        let first = page;
        while page < pages && !zero(page) {
            page += 1;
        }
        if page > first {
            let bytes = &piece[first * PAGE..page * PAGE];
            file.write_all_at(bytes, offset + (first * PAGE) as u64)?;
        }
        page += 1;
    }
    Ok(())
}

/// Maps memory from a file: what the guest does not write is shared by all that map it.
///
/// # Errors
/// [`SnapshotError::Memory`], [`SnapshotError::Read`].
pub fn map(layout: &RamLayout, file: &File, tie: Tie) -> Result<Ram, SnapshotError> {
    let read = |error| SnapshotError::Read("memory", error);
    must_belong(file, layout.total(), tie)?;
    let mut offset = 0;
    let mut regions = Vec::new();
    for range in layout.regions() {
        let place = FileOffset::new(file.try_clone().map_err(read)?, offset);
        let mapping = MmapRegionBuilder::new(range.length as usize)
            .with_file_offset(place)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_NORESERVE)
            .build()
            .map_err(|error| {
                read(match error {
                    MmapRegionError::Mmap(error) => error,
                    error => io::Error::other(error),
                })
            })?;
        let region = GuestRegionMmap::new(mapping, GuestAddress(range.start));
        regions.push(region.ok_or_else(|| read(io::ErrorKind::InvalidInput.into()))?);
        offset += range.length;
    }
    Ram::from_regions(regions).map_err(|error| read(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use crn_protocol::control::MemoryBacking;
    use proptest::prelude::*;

    use super::*;
    use crate::memory;

    const TIE: Tie = [7; 16];

    fn saved(marks: &[(u64, u8)]) -> (File, RamLayout) {
        let layout = RamLayout::new(32);
        let ram = memory::map(&layout, MemoryBacking::Thp).unwrap();
        for (at, value) in marks {
            ram.write_obj(*value, GuestAddress(*at)).unwrap();
        }
        let file = tempfile::tempfile().unwrap();
        write(&ram, &file, TIE).unwrap();
        (file, layout)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn memory_comes_back_and_only_its_pages_take_room(marks in prop::collection::vec((0u64..32 << 20, 1u8..), 0..20)) {
            let (file, layout) = saved(&marks);
            let ram = map(&layout, &file, TIE).unwrap();
            let mut expected = vec![0u8; 32 << 20];
            for (at, value) in &marks {
                expected[*at as usize] = *value;
            }
            let mut bytes = vec![0; 32 << 20];
            ram.read_slice(&mut bytes, GuestAddress(0)).unwrap();
            prop_assert!(bytes == expected);
            let blocks = file.metadata().unwrap().blocks() * 512;
            prop_assert!(blocks <= (marks.len() as u64 + 1) * PAGE as u64 * 4);
        }
    }

    #[test]
    fn copies_do_not_see_each_others_writes() {
        let (file, layout) = saved(&[(0x5000, 9)]);
        let copies = [0, 1].map(|_| map(&layout, &file, TIE).unwrap());
        copies[0].write_obj(1u8, GuestAddress(0x5000)).unwrap();
        let values = copies.map(|copy| copy.read_obj::<u8>(GuestAddress(0x5000)).unwrap());
        assert_eq!(values, [1, 9]);
        let mut byte = [0];
        file.read_exact_at(&mut byte, 0x5000).unwrap();
        assert_eq!(byte, [9]);
    }

    #[test]
    fn a_file_brought_up_to_date_is_the_one_that_would_have_been_written_anew() {
        let (file, layout) = saved(&[(0x5000, 9), (0x6000, 9), (0x1f_f000, 1)]);
        let ram = map(&layout, &file, TIE).unwrap();
        ram.write_obj(0u8, GuestAddress(0x5000)).unwrap();
        ram.write_obj(3u8, GuestAddress(0x6001)).unwrap();
        ram.write_obj(4u8, GuestAddress(0x1_0000)).unwrap();
        let anew = tempfile::tempfile().unwrap();
        write(&ram, &anew, [8; 16]).unwrap();
        let copy = tempfile::tempfile().unwrap();
        let content = |file: &File| {
            let mut bytes = vec![0; (32 << 20) + PAGE];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        copy.write_all_at(&content(&file), 0).unwrap();
        assert!(
            update(&ram, &copy, [9; 16], [8; 16]).is_err(),
            "not its own"
        );
        update(&ram, &copy, TIE, [8; 16]).unwrap();
        assert!(content(&copy) == content(&anew));
        map(&layout, &copy, [8; 16]).unwrap();
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (file, layout) = saved(&[]);
        assert!(matches!(
            map(&layout, &file, [8; 16]),
            Err(SnapshotError::Memory(_))
        ));
        let other = RamLayout::new(64);
        assert!(matches!(
            map(&other, &file, TIE),
            Err(SnapshotError::Memory(_))
        ));
        let ram = memory::map(&layout, MemoryBacking::Thp).unwrap();
        assert!(write(&ram, &file, TIE).is_err(), "it is not empty");
    }
}
