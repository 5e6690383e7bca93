//! Where the clusters of a disk are in the image: two levels of tables (qcow2.rst, "Cluster mapping").

use std::os::unix::fs::FileExt;

use crate::header::{Header, read_at_up_to, u64_at};
use crate::{Result, refuse};

/// Bits 9–55: an offset in the image.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Of a second-level entry.
const COMPRESSED: u64 = 1 << 62;
/// Of an uncompressed second-level entry of version 3.
const ZERO: u64 = 1;
/// What a compressed cluster's length is counted in, bytes.
const SECTOR: u64 = 512;

/// Where a cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: it reads as zeros.
    Hole,
    /// As it is, at this byte of the image.
    Plain(u64),
    /// Packed, in at most so many bytes.
    Compressed {
        /// First byte.
        offset: u64,
        /// The stream ends within them.
        length: usize,
    },
}

/// Takes a second-level entry apart.
///
/// # Errors
/// [`crate::Error::Image`] for an offset that is no cluster's start.
pub fn place(header: &Header, entry: u64) -> Result<Place> {
    if entry & COMPRESSED != 0 {
        let split = 62 - (header.cluster_bits - 8);
        let offset = entry & ((1 << split) - 1);
        let sectors = (entry & (COMPRESSED - 1)) >> split;
        let length = (sectors + 1) * SECTOR - offset % SECTOR;
        return Ok(Place::Compressed {
            offset,
            // At most 2^14 sectors: the field has cluster_bits - 8 bits.
            length: usize::try_from(length).unwrap_or(usize::MAX),
        });
    }
    if header.version >= 3 && entry & ZERO != 0 {
        return Ok(Place::Hole);
    }
    match entry & OFFSET {
        0 => Ok(Place::Hole),
        offset if offset.is_multiple_of(header.cluster_size() as u64) => Ok(Place::Plain(offset)),
        offset => refuse("l2_entry", format!("{offset:#x} is no cluster's start")),
    }
}

/// The tables of an image, one second-level table in memory at a time.
#[derive(Debug)]
pub struct Tables<'a, F> {
    image: &'a F,
    header: &'a Header,
    l2: Vec<u8>,
    next: u64,
}

impl<'a, F: FileExt> Tables<'a, F> {
    /// Tables before the disk's first cluster.
    pub fn new(image: &'a F, header: &'a Header) -> Self {
        Self {
            image,
            header,
            l2: Vec::new(),
            next: 0,
        }
    }

    /// The next cluster's index and place; holes that a whole second-level table is missing for are passed over.
    ///
    /// # Errors
    /// A table that is not where it is said to be.
    pub fn advance(&mut self) -> Result<Option<(u64, Place)>> {
        let clusters = self.header.size.div_ceil(self.header.cluster_size() as u64);
        let per_table = self.header.l2_entries() as u64;
        while self.next < clusters {
            let index = self.next;
            let within = index % per_table;
            if within == 0 && !self.load(index / per_table)? {
                self.next += per_table;
                continue;
            }
            self.next += 1;
            let entry = u64_at(&self.l2, within as usize * 8);
            return Ok(Some((index, place(self.header, entry)?)));
        }
        Ok(None)
    }

    /// Loads a second-level table; `false` when there is none.
    fn load(&mut self, number: u64) -> Result<bool> {
        let mut entry = [0; 8];
        let at = self.header.l1_offset.saturating_add(number * 8);
        if read_at_up_to(self.image, &mut entry, at)? < entry.len() {
            return refuse(
                "l1_table_offset",
                "the table is beyond the end of the image",
            );
        }
        let offset = u64::from_be_bytes(entry) & OFFSET;
        if offset == 0 {
            return Ok(false);
        }
        let size = self.header.cluster_size();
        if !offset.is_multiple_of(size as u64) {
            return refuse("l1_entry", format!("{offset:#x} is no cluster's start"));
        }
        self.l2.resize(size, 0);
        if read_at_up_to(self.image, &mut self.l2, offset)? < size {
            return refuse(
                "l1_entry",
                format!("the table at {offset:#x} is beyond the end of the image"),
            );
        }
        Ok(true)
    }
}
