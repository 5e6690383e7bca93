//! A queue of a TAP device.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use vm_memory::VolatileSlice;

use super::HEADER;

/// linux/if_tun.h.
const TUNGETIFF: libc::c_ulong = 0x8004_54d2;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;

/// Why a descriptor cannot be a NIC.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// It is no TAP at all.
    #[error("the descriptor is not a TAP device's")]
    NotATap(#[source] io::Error),
    /// It was opened without `IFF_TAP`, with packet information, or without `IFF_VNET_HDR`.
    #[error("the TAP has flags {0:#x} instead of IFF_TAP | IFF_NO_PI | IFF_VNET_HDR")]
    Flags(u32),
    /// It does not take a 12-byte header.
    #[error("the TAP refuses a virtio header of {HEADER} bytes")]
    HeaderSize(#[source] io::Error),
    /// It cannot be made non-blocking.
    #[error("the TAP cannot be made non-blocking")]
    NonBlocking(#[source] io::Error),
}

/// The open queue.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
}

impl Tap {
    /// Checks the descriptor and sets the header's size.
    ///
    /// # Errors
    /// See [`TapError`].
    pub fn new(fd: OwnedFd) -> Result<Self, TapError> {
        // SAFETY: an ifreq is plain data; all zeros is a valid one.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // SAFETY: TUNGETIFF fills the ifreq it is given; the pointer is valid for the call.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNGETIFF, &raw mut request) })
            .map_err(TapError::NotATap)?;
        // SAFETY: TUNGETIFF has filled in the flags.
        let flags = u32::from(unsafe { request.ifr_ifru.ifru_flags } as u16);
        let wanted = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as u32;
        if flags & (wanted | libc::IFF_TUN as u32) != wanted {
            return Err(TapError::Flags(flags));
        }
        let size = HEADER as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads an int; the pointer is valid for the call.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETVNETHDRSZ, &raw const size) })
            .map_err(TapError::HeaderSize)?;
        rustix::io::ioctl_fionbio(&fd, true)
            .map_err(|error| TapError::NonBlocking(error.into()))?;
        Ok(Self { fd })
    }

    /// Sets what the guest accepts undone in packets it receives.
    ///
    /// # Errors
    /// ioctl(2)'s.
    pub fn set_offloads(&self, checksum: bool, tso4: bool, tso6: bool) -> io::Result<()> {
        let mut offloads = 0;
        // Segmentation without checksums is not a combination the kernel has.
        if checksum {
            offloads |= TUN_F_CSUM;
            offloads |= if tso4 { TUN_F_TSO4 } else { 0 };
            offloads |= if tso6 { TUN_F_TSO6 } else { 0 };
        }
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), TUNSETOFFLOAD, offloads) })
    }

    /// One packet from the host's side, header included.
    ///
    /// # Errors
    /// read(2)'s; [`io::ErrorKind::WouldBlock`] when there is none.
    pub fn read(&self, packet: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(&self.fd, &mut *packet) {
                Ok(length) => return Ok(length),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Hands one packet to the host, header included.
    ///
    /// # Errors
    /// writev(2)'s: the packet is lost.
    pub fn write(&self, packet: &[VolatileSlice<'_>]) -> io::Result<usize> {
        crate::memory::io::write(self.fd.as_fd(), packet)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
