//! TAP devices, for those who hand them to a VMM.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// linux/if_tun.h.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const IFF_MULTI_QUEUE: libc::c_int = 0x0100;

/// Makes the device and opens so many of its queues; it is up, with this address in a /24. It is gone when they are
/// closed.
///
/// # Errors
/// The kernel's; without the module `tun` there is no such device.
pub fn open(name: &str, address: Ipv4Addr, queues: usize) -> io::Result<Vec<OwnedFd>> {
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if queues > 1 {
        flags |= IFF_MULTI_QUEUE;
    }
    let mut taps = Vec::new();
    for _ in 0..queues {
        let tap = File::options()
            .read(true)
            .write(true)
            .open("/dev/net/tun")?;
        let mut request = named(name);
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        ask(&tap, TUNSETIFF, &mut request)?;
        taps.push(OwnedFd::from(tap));
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    for (call, address) in [
        (libc::SIOCSIFADDR, address),
        (libc::SIOCSIFNETMASK, Ipv4Addr::new(255, 255, 255, 0)),
    ] {
        let mut request = named(name);
        request.ifr_ifru.ifru_addr = internet(address);
        ask(&socket, call, &mut request)?;
    }
    let mut request = named(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    ask(&socket, libc::SIOCSIFFLAGS, &mut request)?;
    Ok(taps)
}

/// Tells the host which MAC address an IPv4 address behind the device has, so that it need not ask.
///
/// # Errors
/// The kernel's.
pub fn neighbour(name: &str, address: Ipv4Addr, mac: [u8; 6]) -> io::Result<()> {
    // SAFETY: an arpreq is plain data; all zeros is a valid one.
    let mut request: libc::arpreq = unsafe { std::mem::zeroed() };
    request.arp_pa = internet(address);
    request.arp_ha.sa_family = libc::ARPHRD_ETHER;
    for (to, from) in request.arp_ha.sa_data.iter_mut().zip(mac) {
        *to = from as libc::c_char;
    }
    request.arp_flags = libc::ATF_COM | libc::ATF_PERM;
    for (to, from) in request.arp_dev.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: SIOCSARP reads the arpreq it is given; the pointer is valid for the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSARP, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// One more descriptor of what this process was started with as `fd`.
///
/// # Errors
/// When it was started without.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: only borrowed for a question to the kernel, which answers EBADF if it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(rustix::io::fcntl_dupfd_cloexec(borrowed, 3)?)
}

fn named(name: &str) -> libc::ifreq {
    // SAFETY: an ifreq is plain data; all zeros is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn internet(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        sa_data: data,
    }
}

fn ask(socket: &impl AsRawFd, call: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: each of these calls reads or fills the ifreq it is given; the pointer is valid for the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), call, &raw mut *request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
