//! Requests in flight, under names of our own: nothing a guest chooses ever finds one.

/// A place and how often it had been used before, so that a name is never valid twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// As one number, for a kernel that hands it back.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// The reverse of [`Key::to_bits`].
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            index: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

/// A bounded set of values with keys.
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    capacity: usize,
}

impl<T> Slab<T> {
    /// An empty one.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            capacity,
        }
    }

    /// How many are in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing more fits.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// Puts a value in.
    ///
    /// # Errors
    /// The value, when the slab is full.
    pub fn insert(&mut self, value: T) -> Result<Key, T> {
        if self.is_full() {
            return Err(value);
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place {
                generation: 0,
                value: None,
            });
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[index as usize];
        place.value = Some(value);
        Ok(Key {
            index,
            generation: place.generation,
        })
    }

    fn place(&mut self, key: Key) -> Option<&mut Place<T>> {
        self.places
            .get_mut(key.index as usize)
            .filter(|place| place.generation == key.generation)
    }

    /// The value under a key.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.place(key)?.value.as_mut()
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let place = self.place(key)?;
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(key.index);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_key_finds_its_value_until_it_is_removed_and_never_again(steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..200)) {
            let mut slab = Slab::new(8);
            let mut model: HashMap<u64, usize> = HashMap::new();
            let mut dead: Vec<Key> = Vec::new();
            for (step, (insert, which)) in steps.into_iter().enumerate() {
                if insert {
                    match slab.insert(step) {
                        Ok(key) => prop_assert!(model.insert(key.to_bits(), step).is_none()),
                        Err(_) => prop_assert_eq!(model.len(), 8),
                    }
                } else if !model.is_empty() {
                    let bits = *which.get(&model.keys().copied().collect::<Vec<_>>());
                    let key = Key::from_bits(bits);
                    prop_assert_eq!(slab.remove(key), model.remove(&bits));
                    dead.push(key);
                }
                prop_assert_eq!(slab.len(), model.len());
                for key in &dead {
                    prop_assert!(slab.get_mut(*key).is_none());
                }
                for (bits, value) in &model {
                    prop_assert_eq!(slab.get_mut(Key::from_bits(*bits)).copied(), Some(*value));
                }
            }
        }
    }
}
