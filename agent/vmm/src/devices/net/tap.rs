//! A queue of a TAP device.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use vm_memory::VolatileSlice;

use super::HEADER;
use super::offload::{TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_UFO, TUN_F_USO};
use super::receive::Source;
use super::send::Sink;

/// linux/if_tun.h.
const TUNGETIFF: libc::c_ulong = 0x8004_54d2;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
const TUNSETQUEUE: libc::c_ulong = 0x4004_54d9;
const IFF_MULTI_QUEUE: u32 = 0x0100;
const IFF_ATTACH_QUEUE: libc::c_short = 0x0200;
const IFF_DETACH_QUEUE: libc::c_short = 0x0400;

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
    /// The offload flags it takes.
    offloads: u32,
}

impl Tap {
    /// Checks the descriptor, sets the header's size and finds out which offloads there are. `several`: the device has
    /// to be one with several queues.
    ///
    /// # Errors
    /// See [`TapError`].
    pub fn new(fd: OwnedFd, several: bool) -> Result<Self, TapError> {
        // SAFETY: an ifreq is plain data; all zeros is a valid one.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // SAFETY: TUNGETIFF fills the ifreq it is given; the pointer is valid for the call.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNGETIFF, &raw mut request) })
            .map_err(TapError::NotATap)?;
        // SAFETY: TUNGETIFF has filled in the flags.
        let flags = u32::from(unsafe { request.ifr_ifru.ifru_flags } as u16);
        let mut wanted = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as u32;
        if several {
            wanted |= IFF_MULTI_QUEUE;
        }
        if flags & (wanted | libc::IFF_TUN as u32) != wanted {
            return Err(TapError::Flags(flags));
        }
        let size = HEADER as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads an int; the pointer is valid for the call.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETVNETHDRSZ, &raw const size) })
            .map_err(TapError::HeaderSize)?;
        rustix::io::ioctl_fionbio(&fd, true)
            .map_err(|error| TapError::NonBlocking(error.into()))?;
        let mut tap = Self { fd, offloads: 0 };
        let least = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
        for offloads in [least | TUN_F_UFO | TUN_F_USO, least | TUN_F_UFO, least] {
            if tap.set_offloads(offloads).is_ok() {
                tap.offloads = offloads;
                break;
            }
        }
        // Until a guest says what it takes, it gets whole packets.
        let _ = tap.set_offloads(0);
        Ok(tap)
    }

    /// The offload flags it takes.
    #[must_use]
    pub const fn offloads(&self) -> u32 {
        self.offloads
    }

    /// Sets what the guest accepts undone in packets it receives (`TUN_F_*`).
    ///
    /// # Errors
    /// ioctl(2)'s.
    pub fn set_offloads(&self, offloads: u32) -> io::Result<()> {
        let offloads = libc::c_ulong::from(offloads);
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), TUNSETOFFLOAD, offloads) })
    }

    /// Lets the host use this queue of several, or not. A queue that is in that state already says so with an error
    /// that means nothing.
    pub fn attach(&self, attached: bool) {
        // SAFETY: an ifreq is plain data; all zeros is a valid one.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_ifru.ifru_flags = if attached {
            IFF_ATTACH_QUEUE
        } else {
            IFF_DETACH_QUEUE
        };
        // SAFETY: TUNSETQUEUE reads the ifreq it is given; the pointer is valid for the call.
        let result =
            check(unsafe { libc::ioctl(self.fd.as_raw_fd(), TUNSETQUEUE, &raw const request) });
        if let Err(error) = result {
            tracing::trace!(%error, attached, "the TAP queue stays as it is");
        }
    }
}

impl Source for Tap {
    fn read(&self, packet: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(&self.fd, &mut *packet) {
                Ok(length) => return Ok(length),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn scatter(&self, packet: &[VolatileSlice<'_>]) -> io::Result<usize> {
        crate::memory::io::read(self.fd.as_fd(), packet)
    }
}

impl Sink for Tap {
    fn write(&self, packet: &[VolatileSlice<'_>]) -> io::Result<usize> {
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

#[cfg(test)]
pub mod testing {
    //! TAP devices, on hosts that let us make them.

    use std::fs::File;

    use super::*;

    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;

    /// Queues of a new device, which goes away with them; `None` without the permission.
    pub fn queues(name: &str, count: usize, more: libc::c_int) -> Option<Vec<OwnedFd>> {
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | more;
        (0..count)
            .map(|_| {
                let tap = File::options()
                    .read(true)
                    .write(true)
                    .open("/dev/net/tun")
                    .ok()?;
                // SAFETY: an ifreq is plain data; all zeros is a valid one.
                let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
                for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
                    *to = from as libc::c_char;
                }
                request.ifr_ifru.ifru_flags = flags as libc::c_short;
                // SAFETY: TUNSETIFF reads and fills the ifreq it is given; the pointer is valid for the call.
                check(unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETIFF, &raw mut request) }).ok()?;
                Some(tap.into())
            })
            .collect()
    }

    /// Flags of a device with a virtio header and several queues.
    pub const SEVERAL: libc::c_int = libc::IFF_VNET_HDR | IFF_MULTI_QUEUE as libc::c_int;
}
