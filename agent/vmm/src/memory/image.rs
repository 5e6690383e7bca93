//! A file mapped for reading, to be shown to a guest.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ptr;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The mapping. This process never reads through it: a file cut short under it harms the guest only.
#[derive(Debug)]
pub struct Image {
    address: *mut c_void,
    length: usize,
}

impl Image {
    /// Maps the first `length` bytes, shared with everyone who maps the same file.
    ///
    /// # Errors
    /// mmap(2)'s.
    pub fn map(file: &File, length: u64) -> io::Result<Self> {
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let address = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                ProtFlags::READ,
                MapFlags::SHARED | MapFlags::NORESERVE,
                file,
                0,
            )
        }?;
        Ok(Self { address, length })
    }

    /// First address in this process.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address as u64
    }

    /// Bytes.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length as u64
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own; what used its address (a memory slot) has to be gone before, which
        // its owner sees to.
        let _ = unsafe { munmap(self.address, self.length) };
    }
}
