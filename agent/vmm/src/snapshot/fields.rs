//! A section's fields, one behind the other: numbers little-endian, what has a length with its length before it.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::SnapshotError;
use super::format::Kind;

/// Puts fields behind each other.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// All of them.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    /// A field of fixed length, as it is in memory.
    pub fn plain<T: IntoBytes + Immutable + ?Sized>(&mut self, value: &T) -> &mut Self {
        self.0.extend_from_slice(value.as_bytes());
        self
    }

    /// Yes or no.
    pub fn flag(&mut self, value: bool) -> &mut Self {
        self.plain(&u8::from(value))
    }

    /// As many as there are.
    pub fn list<T: IntoBytes + Immutable>(&mut self, values: &[T]) -> &mut Self {
        self.plain(&(values.len() as u32)).plain(values)
    }

    /// Text.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.list(value.as_bytes())
    }
}

/// Takes them again.
#[derive(Debug)]
pub struct Reader<'b> {
    section: Kind,
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    /// Of a section of this kind.
    pub const fn new(section: Kind, bytes: &'b [u8]) -> Self {
        Self {
            section,
            rest: bytes,
        }
    }

    /// This field cannot be what it says.
    pub const fn refuse(&self, field: &'static str) -> SnapshotError {
        SnapshotError::Field {
            section: self.section.name(),
            field,
        }
    }

    /// A field of fixed length.
    ///
    /// # Errors
    /// [`SnapshotError::Field`]: the section ends before it.
    pub fn plain<T: FromBytes>(&mut self, field: &'static str) -> Result<T, SnapshotError> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(size_of::<T>())
            .ok_or_else(|| self.refuse(field))?;
        let value = T::read_from_bytes(bytes).map_err(|_| self.refuse(field))?;
        self.rest = rest;
        Ok(value)
    }

    /// Yes or no.
    ///
    /// # Errors
    /// As [`Reader::plain`], also for what is neither.
    pub fn flag(&mut self, field: &'static str) -> Result<bool, SnapshotError> {
        match self.plain::<u8>(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.refuse(field)),
        }
    }

    /// A list of at most `max`.
    ///
    /// # Errors
    /// As [`Reader::plain`], also for a longer one.
    pub fn list<T: FromBytes>(
        &mut self,
        field: &'static str,
        max: usize,
    ) -> Result<Vec<T>, SnapshotError> {
        let count = self.plain::<u32>(field)? as usize;
        // Nothing is allocated for what the section cannot hold.
        if count > max || count > self.rest.len() / size_of::<T>().max(1) {
            return Err(self.refuse(field));
        }
        (0..count).map(|_| self.plain(field)).collect()
    }

    /// Text of at most `max` bytes.
    ///
    /// # Errors
    /// As [`Reader::list`], also for what is no UTF-8.
    pub fn text(&mut self, field: &'static str, max: usize) -> Result<String, SnapshotError> {
        String::from_utf8(self.list(field, max)?).map_err(|_| self.refuse(field))
    }

    /// There is nothing more.
    ///
    /// # Errors
    /// [`SnapshotError::Field`].
    pub fn end(self) -> Result<(), SnapshotError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.refuse("its end"))
        }
    }
}
