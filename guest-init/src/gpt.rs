//! Which partition of a GUID partition table says that it is the root (UEFI 2.10 §5.3, Discoverable Partitions
//! Specification). The kernel has parsed the table already but does not tell partition types.

use std::io::{Read, Seek, SeekFrom};

/// Root of an x86-64 system, 4f68bce3-e8cd-4db1-96e7-fbcaf984b709, in the table's mixed-endian order.
const ROOT_X86_64: [u8; 16] = [
    0xe3, 0xbc, 0x68, 0x4f, 0xcd, 0xe8, 0xb1, 0x4d, 0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09,
];

const SECTOR: u64 = 512;
const SIGNATURE: &[u8; 8] = b"EFI PART";
/// No tool writes more than 128 entries; a table that claims more is read this far.
const MAX_ENTRIES: u32 = 1024;

/// Number, from 1, of the first partition with the x86-64 root type; `None` without one or without a readable table.
pub fn root_partition(disk: &mut (impl Read + Seek)) -> Option<u32> {
    let mut header = [0; 92];
    disk.seek(SeekFrom::Start(SECTOR)).ok()?;
    disk.read_exact(&mut header).ok()?;
    if &header[..8] != SIGNATURE {
        return None;
    }
    let entries = u64::from_le_bytes(header[72..80].try_into().ok()?);
    let count = u32::from_le_bytes(header[80..84].try_into().ok()?).min(MAX_ENTRIES);
    let size = u32::from_le_bytes(header[84..88].try_into().ok()?);
    // "A value of 128 x 2^n".
    if size < 128 || !size.is_power_of_two() || size > 4096 {
        return None;
    }
    disk.seek(SeekFrom::Start(entries.checked_mul(SECTOR)?))
        .ok()?;
    let mut entry = vec![0; size as usize];
    for number in 1..=count {
        disk.read_exact(&mut entry).ok()?;
        if entry[..16] == ROOT_X86_64 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn table(types: &[[u8; 16]]) -> Vec<u8> {
        let mut disk = vec![0; 512 * 40];
        disk[512..520].copy_from_slice(SIGNATURE);
        disk[512 + 72..512 + 80].copy_from_slice(&2u64.to_le_bytes());
        disk[512 + 80..512 + 84].copy_from_slice(&128u32.to_le_bytes());
        disk[512 + 84..512 + 88].copy_from_slice(&128u32.to_le_bytes());
        for (at, kind) in types.iter().enumerate() {
            disk[1024 + at * 128..][..16].copy_from_slice(kind);
        }
        disk
    }

    #[test]
    fn the_root_type_is_found_at_its_number() {
        assert_eq!(
            root_partition(&mut Cursor::new(table(&[[1; 16], [2; 16], ROOT_X86_64]))),
            Some(3)
        );
    }

    #[test]
    fn a_table_without_a_root_names_none() {
        assert_eq!(root_partition(&mut Cursor::new(table(&[[1; 16]]))), None);
        assert_eq!(root_partition(&mut Cursor::new(vec![0; 4096])), None);
    }

    proptest! {
        #[test]
        fn any_header_is_survived(header in prop::collection::vec(any::<u8>(), 84)) {
            let mut disk = table(&[]);
            disk[520..604].copy_from_slice(&header);
            let _ = root_partition(&mut Cursor::new(disk));
        }
    }
}
