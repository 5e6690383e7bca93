//! A device's configuration space (virtio 1.3, section 2.5), shared by the device in the event loop and by the vCPU
//! threads whose drivers read and write it.
//!
//! Bytes and generation change together under one lock, so a driver that finds the same generation before and after
//! its reads has seen one state. The lock is never held over a call to anything else.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    generation: u32,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    writable: Vec<Range<usize>>,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct ConfigSpace(Arc<Shared>);

impl ConfigSpace {
    /// A space in which drivers may write the fields at these offsets and nothing else.
    #[must_use]
    pub fn new(bytes: Vec<u8>, writable: Vec<Range<usize>>) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                bytes,
                generation: 0,
            }),
            writable,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A driver's read: zeros past the end.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        data.fill(0);
        let state = self.state();
        let from = state.bytes.get(offset..).unwrap_or_default();
        for (to, byte) in data.iter_mut().zip(from) {
            *to = *byte;
        }
    }

    /// A driver's write: lost unless it lies within one writable field.
    pub fn write(&self, offset: usize, data: &[u8]) {
        let Some(end) = offset.checked_add(data.len()) else {
            return;
        };
        let allowed = |field: &Range<usize>| field.start <= offset && end <= field.end;
        if self.0.writable.iter().any(allowed)
            && let Some(place) = self.state().bytes.get_mut(offset..end)
        {
            place.copy_from_slice(data);
        }
    }

    /// The device's change; true when it is one, and the driver is to be told
    /// ([`Interrupt::config_changed`](super::Interrupt::config_changed)).
    #[must_use]
    pub fn update(&self, offset: usize, data: &[u8]) -> bool {
        let mut state = self.state();
        let Some(place) = offset
            .checked_add(data.len())
            .and_then(|end| state.bytes.get_mut(offset..end))
        else {
            return false;
        };
        if place == data {
            return false;
        }
        place.copy_from_slice(data);
        state.generation = state.generation.wrapping_add(1);
        true
    }

    /// Brings back what a driver has written into a space like this one.
    pub fn restore(&self, saved: &[u8]) {
        for field in &self.0.writable {
            if let Some(bytes) = saved.get(field.clone()) {
                self.write(field.start, bytes);
            }
        }
    }

    /// All of it but what drivers write, which is zero.
    #[must_use]
    pub fn fixed(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        for field in &self.0.writable {
            if let Some(bytes) = bytes.get_mut(field.clone()) {
                bytes.fill(0);
            }
        }
        bytes
    }

    /// The 32-bit field at an offset, as the driver or the device left it; 0 past the end.
    #[must_use]
    pub fn le32(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Counts the device's changes, modulo 2³²; buses show as many low bits as their register has.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.state().generation
    }

    /// All of it, as it is now.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }
}

/// A space no driver may write.
impl From<Vec<u8>> for ConfigSpace {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes, Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_generation_counts_the_devices_changes_and_nothing_else() {
        let space = ConfigSpace::new(vec![0; 8], vec![4..8, 10..10]);
        assert!(space.update(0, &[1, 2]));
        assert!(!space.update(0, &[1, 2]), "nothing new");
        assert!(!space.update(7, &[1, 2]), "past the end");
        space.write(4, &[9, 0, 0, 0]);
        assert_eq!((space.generation(), space.le32(4)), (1, 9));
    }

    proptest! {
        #[test]
        fn drivers_write_their_fields_only(offset in any::<usize>(), near in 0usize..16, data in prop::collection::vec(1u8.., 0..9)) {
            for offset in [offset, near] {
                let space = ConfigSpace::new(vec![0; 12], vec![4..8, 10..10]);
                space.write(offset, &data);
                let bytes = space.bytes();
                prop_assert!(bytes[..4].iter().chain(&bytes[8..]).all(|byte| *byte == 0));
                let inside = (4..=8).contains(&offset) && data.len() <= 8 - offset;
                prop_assert_eq!(bytes != [0; 12], inside && !data.is_empty());
            }
        }
    }

    #[test]
    fn a_reader_who_finds_the_same_generation_twice_has_seen_one_state() {
        let space = ConfigSpace::from(vec![0; 8]);
        let writer = space.clone();
        let thread = std::thread::spawn(move || {
            for value in 1..=2000u32 {
                let half = value.to_le_bytes();
                let _ = writer.update(0, &[half, half].concat());
            }
        });
        while !thread.is_finished() {
            let before = space.generation();
            let halves = (space.le32(0), space.le32(4));
            if space.generation() == before {
                assert_eq!(halves.0, halves.1);
            }
        }
        thread.join().unwrap();
    }
}
