//! Making a TAP device: `/dev/net/tun` and the one ioctl rtnetlink has no words for.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// `linux/if_tun.h`.
const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
const IFF_TAP: i16 = 0x0002;
const IFF_NO_PI: i16 = 0x1000;
const IFF_VNET_HDR: i16 = 0x4000;
/// `linux/if.h`, with the terminating zero.
const IFNAMSIZ: usize = 16;

/// `struct ifreq` of `linux/if.h` as TUNSETIFF reads and writes it: the name and the flags, padded to the union's size.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; IFNAMSIZ],
    flags: i16,
    padding: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceRequest>() == 40);

/// Makes the TAP device `name` and returns its only queue, non-blocking. The device goes when the queue is closed.
/// Frames bear a virtio-net header.
///
/// # Errors
/// open(2)'s or the ioctl's error; [`io::ErrorKind::InvalidInput`] for a name of 16 bytes or more.
pub fn create(name: &str) -> io::Result<OwnedFd> {
    if name.is_empty() || name.len() >= IFNAMSIZ {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let queue = rustix::fs::open(
        "/dev/net/tun",
        OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut request = InterfaceRequest {
        name: [0; IFNAMSIZ],
        flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR,
        padding: [0; 22],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF takes a pointer to a struct ifreq, which `InterfaceRequest` is in layout and size, and writes
    // the resulting name back into it; `request` lives and is borrowed mutably for the whole call.
    unsafe {
        ioctl(
            &queue,
            Updater::<TUNSETIFF, InterfaceRequest>::new(&mut request),
        )
    }?;
    Ok(queue)
}
