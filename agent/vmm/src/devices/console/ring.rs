//! The last output, for readers that come at their own pace.

use std::collections::VecDeque;

/// Bytes kept; what is older is gone.
pub const CAPACITY: usize = 64 * 1024;

/// Positions count every byte ever written.
#[derive(Debug, Default)]
pub struct Ring {
    bytes: VecDeque<u8>,
    end: u64,
}

impl Ring {
    /// Appends.
    pub fn push(&mut self, bytes: &[u8]) {
        self.end += bytes.len() as u64;
        let kept = &bytes[bytes.len().saturating_sub(CAPACITY)..];
        let room = CAPACITY - kept.len();
        if self.bytes.len() > room {
            self.bytes.drain(..self.bytes.len() - room);
        }
        self.bytes.extend(kept);
    }

    /// Behind the newest byte.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Where the oldest byte is.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    /// At most `count` bytes from a position on, or from the oldest one if that is gone; and where they begin.
    #[must_use]
    pub fn read(&self, position: u64, count: usize) -> (u64, Vec<u8>) {
        let from = position.clamp(self.start(), self.end);
        let skip = (from - self.start()) as usize;
        (
            from,
            self.bytes.iter().skip(skip).take(count).copied().collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_reader_sees_what_was_written_or_its_newest_part(
            writes in prop::collection::vec(prop_oneof![0usize..100, 0usize..200_000], 0..20),
            position in any::<prop::sample::Index>(),
            count in 0usize..100_000,
        ) {
            let mut ring = Ring::default();
            let mut all: Vec<u8> = Vec::new();
            for length in writes {
                let bytes: Vec<u8> = (all.len()..all.len() + length).map(|n| (n / 3) as u8).collect();
                ring.push(&bytes);
                all.extend(bytes);
            }
            prop_assert_eq!(ring.end(), all.len() as u64);
            prop_assert_eq!(ring.start(), all.len().saturating_sub(CAPACITY) as u64);
            let position = position.index(all.len() + 1) as u64;
            let (from, bytes) = ring.read(position, count);
            prop_assert_eq!(from, position.max(ring.start()));
            prop_assert_eq!(bytes.len(), count.min(all.len() - from as usize));
            prop_assert_eq!(&bytes[..], &all[from as usize..from as usize + bytes.len()]);
        }
    }
}
