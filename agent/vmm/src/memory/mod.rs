//! The guest's memory: anonymous and private. In ordinary pages it is not reserved, and what the guest never touches
//! costs nothing; huge pages are taken from the host's pool at once.

#[allow(unsafe_code, reason = "madvise(2) takes a raw range")]
mod advice;
#[allow(unsafe_code, reason = "mmap(2)")]
pub mod image;
#[allow(
    unsafe_code,
    reason = "vectored I/O between descriptors and guest memory has no safe interface"
)]
pub mod io;

#[allow(
    unsafe_code,
    reason = "memory the kernel works on outlives every borrow"
)]
pub mod pieces;
#[allow(unsafe_code, reason = "madvise(2) changes what is mapped")]
pub mod reclaim;

use crn_protocol::control::MemoryBacking;
use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::plan::layout::{MIB, RamLayout};
use crate::{Error, Result};

/// Guest memory, as devices see it.
pub type Ram = GuestMemoryMmap<()>;

/// MiB in one page of the pool that this backing takes pages from; `None` for ordinary pages.
#[must_use]
pub const fn huge_page_mib(backing: MemoryBacking) -> Option<u32> {
    match backing {
        MemoryBacking::Thp => None,
        MemoryBacking::Hugetlb2m => Some(2),
        MemoryBacking::Hugetlb1g => Some(1024),
    }
}

/// Maps the guest's memory.
///
/// # Errors
/// [`Error::MapRam`], or [`Error::HugePages`] when the host's pool has too few.
pub fn map(layout: &RamLayout, backing: MemoryBacking) -> Result<Ram> {
    let (bytes, page_mib) = (layout.total(), huge_page_mib(backing));
    let mut regions = Vec::new();
    for range in layout.regions() {
        let mapping =
            map_region(range.length as usize, page_mib).map_err(|source| match page_mib {
                Some(page_mib) => Error::HugePages {
                    bytes,
                    page_mib,
                    source,
                },
                None => Error::MapRam { bytes, source },
            })?;
        if page_mib.is_none() {
            advice::prefer_huge_pages(&mapping);
        }
        let region = GuestRegionMmap::new(mapping, GuestAddress(range.start));
        regions.push(region.ok_or_else(|| Error::MapRam {
            bytes,
            source: std::io::ErrorKind::InvalidInput.into(),
        })?);
    }
    Ram::from_regions(regions).map_err(|error| Error::MapRam {
        bytes,
        source: std::io::Error::other(error),
    })
}

fn map_region(bytes: usize, huge_page_mib: Option<u32>) -> std::io::Result<MmapRegion> {
    let kind = match huge_page_mib {
        None => libc::MAP_NORESERVE,
        // Reserved: a pool that is too small is an error now and not a signal later.
        Some(mib) => {
            let log2 = (u64::from(mib) * MIB).trailing_zeros() as libc::c_int;
            libc::MAP_HUGETLB | log2 << libc::MAP_HUGE_SHIFT
        }
    };
    MmapRegionBuilder::new(bytes)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | kind)
        .with_hugetlbfs(huge_page_mib.is_some())
        .build()
        .map_err(|error| match error {
            MmapRegionError::Mmap(error) => error,
            error => std::io::Error::other(error),
        })
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestMemoryBackend};

    use super::*;

    /// R15: machines had 4.6 % less than their messages asked for.
    #[test]
    fn memory_is_where_the_layout_says_and_zero() {
        let ram = map(&RamLayout::new(64), MemoryBacking::Thp).unwrap();
        assert_eq!(ram.last_addr(), GuestAddress(64 * MIB - 1));
        let value: u64 = ram.read_obj(GuestAddress(64 * MIB - 8)).unwrap();
        assert_eq!(value, 0);
    }

    #[test]
    fn huge_pages_that_the_host_has_not_are_an_error_with_the_size() {
        // More than any host's pool.
        let layout = RamLayout::new(512 * 1024);
        let error = map(&layout, MemoryBacking::Hugetlb1g).unwrap_err();
        assert!(error.to_string().contains("1024 MiB"), "{error}");
    }
}
