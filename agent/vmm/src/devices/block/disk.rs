//! A raw image: what it is, and what a request may do with it. Formats are never probed.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;

use rustix::fs::OFlags;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ,
    VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
};

use super::request::Refused;
use crate::devices::COMMON_FEATURES;

/// Bytes in a sector, the unit of all positions.
pub const SECTOR: u64 = 512;
/// Descriptors of a queue.
pub const QUEUE_SIZE: u16 = 256;
/// Largest transfer of one request; a driver that asks for more gets an I/O error. Linux stays below 2 MiB.
pub const MAX_TRANSFER: usize = 32 << 20;
/// Length of a device's identity, padded with zeros.
pub const ID_LENGTH: usize = 20;
/// Sectors of one range to discard: 2 GiB, freed by one call to the file system.
pub const MAX_DISCARD_SECTORS: u32 = 1 << 22;
/// Ranges of one request to discard.
pub const MAX_DISCARD_SEGMENTS: u32 = 64;
/// Sectors of one range to zero: 32 MiB, for the file systems on which that means writing.
pub const MAX_ZERO_SECTORS: u32 = 1 << 16;
/// Ranges of one request to zero: Linux never sends more.
pub const MAX_ZERO_SEGMENTS: u32 = 1;
/// A file system's block in sectors, below which nothing is freed.
const DISCARD_ALIGNMENT: u32 = 8;
/// A chain less its header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;

/// See the module.
#[derive(Debug)]
pub struct Disk {
    /// Bytes, a whole number of sectors.
    capacity: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// What GET_ID answers.
    pub id: [u8; ID_LENGTH],
}

impl Disk {
    /// Looks at a regular file or block device. `id` beyond [`ID_LENGTH`] is cut.
    ///
    /// # Errors
    /// When the descriptor is of another kind, opened in a way that does not fit, or its length cannot be found out.
    pub fn new(file: OwnedFd, read_only: bool, id: &str) -> io::Result<(Self, File)> {
        let unfit = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
        let flags = rustix::fs::fcntl_getfl(&file)?;
        if flags.intersects(OFlags::APPEND | OFlags::DIRECT) {
            return Err(unfit("opened with O_APPEND or O_DIRECT"));
        }
        if !read_only && flags & OFlags::ACCMODE != OFlags::RDWR {
            return Err(unfit("not open for reading and writing"));
        }
        let file = File::from(file);
        let metadata = file.metadata()?;
        let length = if metadata.is_file() {
            metadata.len()
        } else if metadata.file_type().is_block_device() {
            rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0))?
        } else {
            return Err(unfit("neither a regular file nor a block device"));
        };
        let capacity = length
            .checked_next_multiple_of(SECTOR)
            .ok_or(io::ErrorKind::FileTooLarge)?;
        let mut identity = [0; ID_LENGTH];
        for (to, from) in identity.iter_mut().zip(id.bytes()) {
            *to = from;
        }
        let disk = Self {
            capacity,
            read_only,
            id: identity,
        };
        Ok((disk, file))
    }

    /// Where a transfer of `length` bytes from `sector` starts, if it lies within the disk.
    pub fn position(&self, sector: u64, length: u64) -> Result<u64, Refused> {
        let start = sector.checked_mul(SECTOR).ok_or(Refused::Io)?;
        let end = start.checked_add(length).ok_or(Refused::Io)?;
        if end > self.capacity || !length.is_multiple_of(SECTOR) {
            return Err(Refused::Io);
        }
        Ok(start)
    }

    /// The feature bits of a disk with so many queues.
    #[must_use]
    pub fn features(&self, queues: u16) -> u64 {
        let mut features = COMMON_FEATURES
            | 1 << VIRTIO_BLK_F_FLUSH
            | 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE;
        features |= if self.read_only {
            1 << VIRTIO_BLK_F_RO
        } else {
            1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES
        };
        if queues > 1 {
            features |= 1 << VIRTIO_BLK_F_MQ;
        }
        features
    }

    /// struct virtio_blk_config (virtio 1.3, section 5.2.4) up to write_zeroes_may_unmap.
    #[must_use]
    pub fn config(&self, queues: u16) -> Vec<u8> {
        let mut config = vec![0; 60];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &(self.capacity / SECTOR).to_le_bytes());
        put(12, &SEG_MAX.to_le_bytes());
        put(20, &(SECTOR as u32).to_le_bytes());
        put(34, &queues.to_le_bytes());
        if !self.read_only {
            put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
            put(40, &MAX_DISCARD_SEGMENTS.to_le_bytes());
            put(44, &DISCARD_ALIGNMENT.to_le_bytes());
            put(48, &MAX_ZERO_SECTORS.to_le_bytes());
            put(52, &MAX_ZERO_SEGMENTS.to_le_bytes());
            put(56, &[1]);
        }
        config
    }
}
