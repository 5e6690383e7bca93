//! The guest's memory: anonymous, private, not reserved; what the guest never touches costs nothing.

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

use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::plan::layout::RamLayout;
use crate::{Error, Result};

/// Guest memory, as devices see it.
pub type Ram = GuestMemoryMmap<()>;

/// Maps the guest's memory.
///
/// # Errors
/// [`Error::MapRam`].
pub fn map(layout: &RamLayout) -> Result<Ram> {
    let ranges: Vec<(GuestAddress, usize)> = layout
        .regions()
        .map(|region| (GuestAddress(region.start), region.length as usize))
        .collect();
    Ram::from_ranges(&ranges).map_err(|source| Error::MapRam {
        bytes: layout.total(),
        source,
    })
}
