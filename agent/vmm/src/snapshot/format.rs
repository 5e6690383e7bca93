//! The state file's container.
//!
//! ```text
//! 0   magic
//! 8   version               u32, all numbers little-endian
//! 12  number of sections    u32
//! 16  length of the file    u64
//! 24  sections: kind u32, length u32, content
//! …   CRC-32 (IEEE) of everything before, u32
//! ```
//!
//! The checksum finds damage, not malice: every section is parsed as what a stranger has written.

use super::SnapshotError;

/// What a state file begins with.
pub const MAGIC: [u8; 8] = *b"CRNSNAP\n";
/// Of this layout and of all sections. There is no other: a snapshot is made where it is used.
pub const VERSION: u32 = 1;
/// The longest file that is looked at; 64 vCPUs with all their registers and 31 devices take 1 MiB.
pub const MAX_BYTES: u64 = 8 << 20;
/// Sections of one file at most: 64 vCPUs, 31 devices, and a few.
const MAX_SECTIONS: usize = 128;
const HEADER: usize = 24;
const CHECKSUM: usize = 4;

/// What a section is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// The host, KVM and this program.
    Host = 1,
    /// The machine as it was described.
    Machine = 2,
    /// Interrupt controllers, clock, serial port.
    Board = 3,
    /// A vCPU, in the order of their numbers.
    Vcpu = 4,
    /// A device, in the order of their indices.
    Device = 5,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Host,
        Self::Machine,
        Self::Board,
        Self::Vcpu,
        Self::Device,
    ];

    /// As errors name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Machine => "machine",
            Self::Board => "board",
            Self::Vcpu => "vCPU",
            Self::Device => "device",
        }
    }
}

/// One section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// What it is about.
    pub kind: Kind,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// The file of these sections.
#[must_use]
pub fn encode(sections: &[Section]) -> Vec<u8> {
    let content: usize = sections.iter().map(|section| 8 + section.bytes.len()).sum();
    let length = HEADER + content + CHECKSUM;
    let mut file = Vec::with_capacity(length);
    file.extend(MAGIC);
    file.extend(VERSION.to_le_bytes());
    file.extend((sections.len() as u32).to_le_bytes());
    file.extend((length as u64).to_le_bytes());
    for section in sections {
        file.extend((section.kind as u32).to_le_bytes());
        file.extend((section.bytes.len() as u32).to_le_bytes());
        file.extend(&section.bytes);
    }
    file.extend(crc32fast::hash(&file).to_le_bytes());
    file
}

/// The sections of a file.
///
/// # Errors
/// [`SnapshotError::NotASnapshot`], [`SnapshotError::Version`], [`SnapshotError::Length`],
/// [`SnapshotError::Checksum`], [`SnapshotError::Section`].
pub fn decode(file: &[u8]) -> Result<Vec<Section>, SnapshotError> {
    let word = |at: usize| {
        let bytes = file.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    if !file.starts_with(&MAGIC) {
        return Err(SnapshotError::NotASnapshot);
    }
    let found = word(8).ok_or(SnapshotError::NotASnapshot)?;
    if found != VERSION {
        return Err(SnapshotError::Version { found });
    }
    let length = word(16)
        .zip(word(20))
        .map(|(low, high)| u64::from(high) << 32 | u64::from(low));
    if length != Some(file.len() as u64) || file.len() < HEADER + CHECKSUM {
        return Err(SnapshotError::Length {
            found: file.len() as u64,
            stated: length.unwrap_or(0),
        });
    }
    let end = file.len() - CHECKSUM;
    if word(end) != Some(crc32fast::hash(&file[..end])) {
        return Err(SnapshotError::Checksum);
    }
    let count = word(12).unwrap_or(0) as usize;
    if count > MAX_SECTIONS {
        return Err(SnapshotError::Section { number: count });
    }
    let mut sections = Vec::with_capacity(count);
    let mut rest = &file[HEADER..end];
    for number in 0..count {
        let taken = take(rest).ok_or(SnapshotError::Section { number })?;
        sections.push(taken.0);
        rest = taken.1;
    }
    if rest.is_empty() {
        Ok(sections)
    } else {
        Err(SnapshotError::Section { number: count })
    }
}

fn take(bytes: &[u8]) -> Option<(Section, &[u8])> {
    let (kind, rest) = bytes.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let kind = u32::from_le_bytes(*kind);
    let kind = Kind::ALL.into_iter().find(|one| *one as u32 == kind)?;
    let (content, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let bytes = content.to_vec();
    Some((Section { kind, bytes }, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sections() -> impl Strategy<Value = Vec<Section>> {
        let kind = prop::sample::select(Kind::ALL.to_vec());
        let section = (kind, prop::collection::vec(any::<u8>(), 0..64))
            .prop_map(|(kind, bytes)| Section { kind, bytes });
        prop::collection::vec(section, 0..6)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(sections in sections()) {
            prop_assert_eq!(decode(&encode(&sections)).unwrap(), sections);
        }

        #[test]
        fn a_file_cut_anywhere_or_with_any_bit_changed_is_refused(
            sections in sections(), cut in any::<prop::sample::Index>(), bit in 0u8..8
        ) {
            let mut file = encode(&sections);
            let at = cut.index(file.len());
            prop_assert!(decode(&file[..at]).is_err());
            file[at] ^= 1 << bit;
            prop_assert!(decode(&file).is_err());
        }

        #[test]
        fn sections_that_a_stranger_wrote_are_within_the_file(bytes in prop::collection::vec(any::<u8>(), 0..64), count in 0u32..4) {
            let mut file = MAGIC.to_vec();
            file.extend(VERSION.to_le_bytes());
            file.extend(count.to_le_bytes());
            file.extend((28 + bytes.len() as u64).to_le_bytes());
            file.extend(&bytes);
            file.extend(crc32fast::hash(&file).to_le_bytes());
            if let Ok(sections) = decode(&file) {
                prop_assert_eq!(encode(&sections), file);
            }
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut file = encode(&[]);
        file[8] = 9;
        assert!(matches!(
            decode(&file),
            Err(SnapshotError::Version { found: 9 })
        ));
        assert!(matches!(decode(b"QFI"), Err(SnapshotError::NotASnapshot)));
    }
}
