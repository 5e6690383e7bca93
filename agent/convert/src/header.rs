//! The header of a qcow2 image (QEMU's docs/interop/qcow2.rst, "Header").
//!
//! Whatever would make a reader look at another file, or that it cannot know, is refused here.

use std::os::unix::fs::FileExt;

use crate::{Error, Result, refuse};

/// `QFI\xfb`
pub const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Length of version 2's header, and least of version 3's, up to and without `compression_type`.
const LENGTH_V2: usize = 72;
const LENGTH_V3: usize = 104;
/// Offset of `compression_type`, present when the header is longer.
const COMPRESSION_TYPE: usize = 104;

const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

/// How compressed clusters are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A raw deflate stream.
    Deflate,
    /// A Zstandard frame.
    Zstd,
}

/// What the header says, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// log2 of a cluster's bytes, 9..=21.
    pub cluster_bits: u32,
    /// Bytes of the disk.
    pub size: u64,
    /// Where the first-level table is, in bytes.
    pub l1_offset: u64,
    /// Entries of it that the disk has need of.
    pub l1_entries: usize,
    /// See [`Compression`].
    pub compression: Compression,
}

impl Header {
    /// Reads and checks an image's header. `max_size` is the largest disk accepted, in bytes.
    ///
    /// # Errors
    /// [`Error::Image`] with the field that is refused, or reading.
    pub fn read(image: &impl FileExt, max_size: u64) -> Result<Self> {
        let mut bytes = [0; LENGTH_V3 + 8];
        let length = read_at_up_to(image, &mut bytes, 0)?;
        Self::parse(&bytes[..length], max_size)
    }

    /// Checks a header in memory: the first 112 bytes of the image, or all it has.
    ///
    /// # Errors
    /// [`Error::Image`].
    pub fn parse(bytes: &[u8], max_size: u64) -> Result<Self> {
        if bytes.len() < LENGTH_V2 || bytes[..4] != MAGIC {
            return refuse("magic", "not a qcow2 image");
        }
        let version = u32_at(bytes, 4);
        let (incompatible, compression) = match version {
            2 => (0, 0),
            3 => version_3(bytes)?,
            other => return refuse("version", format!("is {other}, not 2 or 3")),
        };
        for (bit, what) in [
            (CORRUPT, "the image is marked corrupt"),
            (EXTERNAL_DATA, "its data is in another file"),
            (EXTENDED_L2, "extended L2 entries"),
        ] {
            if incompatible & bit != 0 {
                return refuse("incompatible_features", format!("{what}: not accepted"));
            }
        }
        let unknown = incompatible & !(DIRTY | COMPRESSION);
        if unknown != 0 {
            return refuse(
                "incompatible_features",
                format!("unknown bits {unknown:#x}"),
            );
        }
        let compression = match compression {
            0 => Compression::Deflate,
            1 => Compression::Zstd,
            other => return refuse("compression_type", format!("is {other}, not 0 or 1")),
        };
        if u64_at(bytes, 8) != 0 || u32_at(bytes, 16) != 0 {
            return refuse("backing_file_offset", "the image stands on another file");
        }
        if u32_at(bytes, 32) != 0 {
            return refuse("crypt_method", "the image is encrypted");
        }
        let cluster_bits = u32_at(bytes, 20);
        if !(9..=21).contains(&cluster_bits) {
            return refuse("cluster_bits", format!("is {cluster_bits}, not 9 to 21"));
        }
        let size = u64_at(bytes, 24);
        if size == 0 || size > max_size {
            return refuse("size", format!("is {size} bytes, not 1 to {max_size}"));
        }
        let l1_entries = size.div_ceil(1 << (2 * cluster_bits - 3));
        let l1_size = u64::from(u32_at(bytes, 36));
        if l1_size < l1_entries {
            return refuse(
                "l1_size",
                format!("is {l1_size}; the disk's size needs {l1_entries}"),
            );
        }
        let l1_offset = u64_at(bytes, 40);
        if l1_offset == 0 || !l1_offset.is_multiple_of(1 << cluster_bits) {
            return refuse(
                "l1_table_offset",
                format!("{l1_offset:#x} is no cluster's start"),
            );
        }
        Ok(Self {
            version,
            cluster_bits,
            size,
            l1_offset,
            l1_entries: usize::try_from(l1_entries).map_err(|_| Error::Image {
                field: "size",
                reason: "too large for this machine".to_owned(),
            })?,
            compression,
        })
    }

    /// Bytes of a cluster.
    #[must_use]
    pub const fn cluster_size(&self) -> usize {
        1 << self.cluster_bits
    }

    /// Entries of a second-level table, which fills a cluster.
    #[must_use]
    pub const fn l2_entries(&self) -> usize {
        self.cluster_size() / 8
    }
}

/// Incompatible features and compression type.
fn version_3(bytes: &[u8]) -> Result<(u64, u8)> {
    if bytes.len() < LENGTH_V3 {
        return refuse("header_length", "the image ends within its header");
    }
    let incompatible = u64_at(bytes, 72);
    let length = u32_at(bytes, 100) as usize;
    if length < LENGTH_V3 || !length.is_multiple_of(8) {
        return refuse("header_length", format!("is {length}"));
    }
    let given = if length > COMPRESSION_TYPE {
        bytes.get(COMPRESSION_TYPE).copied().unwrap_or(0)
    } else {
        0
    };
    if (given != 0) != (incompatible & COMPRESSION != 0) {
        return refuse("compression_type", "contradicts the incompatible features");
    }
    Ok((incompatible, given))
}

/// Reads from an offset until the buffer is full or the image ends.
pub(crate) fn read_at_up_to(image: &impl FileExt, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        let at = offset
            .checked_add(done as u64)
            .ok_or_else(|| Error::Read(std::io::ErrorKind::InvalidInput.into()))?;
        match image.read_at(&mut buffer[done..], at) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Read(error)),
        }
    }
    Ok(done)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(value)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: u64 = 1 << 40;

    /// A version 3 header of a 1 GiB disk with 64 KiB clusters.
    fn plain() -> Vec<u8> {
        let mut bytes = vec![0; 112];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&3u32.to_be_bytes());
        bytes[20..24].copy_from_slice(&16u32.to_be_bytes());
        bytes[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
        bytes[36..40].copy_from_slice(&2u32.to_be_bytes());
        bytes[40..48].copy_from_slice(&0x3_0000u64.to_be_bytes());
        bytes[100..104].copy_from_slice(&112u32.to_be_bytes());
        bytes
    }

    fn refused(change: impl FnOnce(&mut Vec<u8>)) -> &'static str {
        let mut bytes = plain();
        change(&mut bytes);
        match Header::parse(&bytes, MAX) {
            Err(Error::Image { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_plain_header_is_accepted() {
        let header = Header::parse(&plain(), MAX).unwrap();
        assert_eq!(
            (
                header.l1_entries,
                header.cluster_size(),
                header.l2_entries()
            ),
            (2, 65536, 8192)
        );
        assert_eq!(header.compression, Compression::Deflate);
    }

    #[test]
    fn what_is_refused_is_named() {
        assert_eq!(refused(|b| b[0] = 0), "magic");
        assert_eq!(refused(|b| b.truncate(60)), "magic");
        assert_eq!(refused(|b| b.truncate(80)), "header_length");
        assert_eq!(refused(|b| b[7] = 4), "version");
        assert_eq!(refused(|b| b[15] = 1), "backing_file_offset");
        assert_eq!(refused(|b| b[19] = 9), "backing_file_offset");
        assert_eq!(refused(|b| b[23] = 8), "cluster_bits");
        assert_eq!(refused(|b| b[23] = 22), "cluster_bits");
        assert_eq!(refused(|b| b[24] = 0x7f), "size");
        assert_eq!(refused(|b| b[28] = 0), "size");
        assert_eq!(refused(|b| b[35] = 2), "crypt_method");
        assert_eq!(refused(|b| b[39] = 1), "l1_size");
        assert_eq!(refused(|b| b[47] = 1), "l1_table_offset");
        assert_eq!(refused(|b| b[79] = 2), "incompatible_features");
        assert_eq!(refused(|b| b[79] = 4), "incompatible_features");
        assert_eq!(refused(|b| b[79] = 16), "incompatible_features");
        assert_eq!(refused(|b| b[72] = 1), "incompatible_features");
        assert_eq!(refused(|b| b[104] = 1), "compression_type");
        assert_eq!(refused(|b| (b[79], b[104]) = (8, 2)), "compression_type");
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer(mut bytes in prop::collection::vec(any::<u8>(), 0..120), keep in any::<bool>()) {
            if keep && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
            }
            if let Ok(header) = Header::parse(&bytes, MAX) {
                prop_assert!(header.size <= MAX && header.l1_entries > 0);
            }
        }
    }
}
