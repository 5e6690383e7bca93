//! preadv(2) and its kin over pieces of guest memory.
//!
//! The kernel copies straight between the file and the guest; the guest may change the bytes meanwhile, which the
//! kernel tolerates and no Rust reference ever sees.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::VolatileSlice;

/// Pieces handed to one call; more are left for the next one (the kernel's limit, UIO_MAXIOV).
const MAX_PIECES: usize = 1024;

enum Call {
    Read,
    Write,
    ReadAt(libc::off_t),
    WriteAt(libc::off_t),
}

fn vectored(fd: BorrowedFd<'_>, pieces: &[VolatileSlice<'_>], call: Call) -> io::Result<usize> {
    let guards: Vec<_> = pieces
        .iter()
        .take(MAX_PIECES)
        .map(VolatileSlice::ptr_guard_mut)
        .collect();
    let vectors: Vec<libc::iovec> = guards
        .iter()
        .map(|guard| libc::iovec {
            iov_base: guard.as_ptr().cast(),
            iov_len: guard.len(),
        })
        .collect();
    let (fd, first, count) = (
        fd.as_raw_fd(),
        vectors.as_ptr(),
        vectors.len() as libc::c_int,
    );
    loop {
        // SAFETY: `vectors` holds `count` entries and outlives the call; each entry is a range of guest memory that
        // stays mapped while its `VolatileSlice` (borrowed here) lives. Guest memory is only ever accessed through
        // volatile or kernel copies, so writes by the kernel alias no reference.
        let result = unsafe {
            match call {
                Call::Read => libc::readv(fd, first, count),
                Call::Write => libc::writev(fd, first, count),
                Call::ReadAt(offset) => libc::preadv(fd, first, count, offset),
                Call::WriteAt(offset) => libc::pwritev(fd, first, count, offset),
            }
        };
        match usize::try_from(result) {
            Ok(bytes) => return Ok(bytes),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// readv(2), EINTR repeated.
///
/// # Errors
/// readv's.
pub fn read(fd: BorrowedFd<'_>, into: &[VolatileSlice<'_>]) -> io::Result<usize> {
    vectored(fd, into, Call::Read)
}

/// writev(2), EINTR repeated.
///
/// # Errors
/// writev's.
pub fn write(fd: BorrowedFd<'_>, from: &[VolatileSlice<'_>]) -> io::Result<usize> {
    vectored(fd, from, Call::Write)
}

/// preadv(2), EINTR repeated; may be short.
///
/// # Errors
/// preadv's.
pub fn read_at(fd: BorrowedFd<'_>, into: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
    vectored(fd, into, Call::ReadAt(file_offset(offset)?))
}

/// pwritev(2), EINTR repeated; may be short.
///
/// # Errors
/// pwritev's.
pub fn write_at(fd: BorrowedFd<'_>, from: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
    vectored(fd, from, Call::WriteAt(file_offset(offset)?))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

    use super::*;
    use crate::memory::Ram;

    #[test]
    fn bytes_travel_between_a_file_and_scattered_memory() {
        let ram = Ram::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        ram.write_slice(b"hello", GuestAddress(0)).unwrap();
        let file = tempfile::tempfile().unwrap();
        let out = [
            ram.get_slice(GuestAddress(0), 2).unwrap(),
            ram.get_slice(GuestAddress(2), 3).unwrap(),
        ];
        assert_eq!(write_at(file.as_fd(), &out, 7).unwrap(), 5);
        let back = [
            ram.get_slice(GuestAddress(0x100), 1).unwrap(),
            ram.get_slice(GuestAddress(0x200), 9).unwrap(),
        ];
        assert_eq!(read_at(file.as_fd(), &back, 7).unwrap(), 5);
        let mut tail = [0; 4];
        ram.read_slice(&mut tail, GuestAddress(0x200)).unwrap();
        assert_eq!(&tail, b"ello");
        assert_eq!(
            read_at(file.as_fd(), &back, u64::MAX).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }
}
