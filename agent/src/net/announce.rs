//! Tells the uplink's neighbours at once where a machine's IPv6 address is: an unsolicited neighbour advertisement
//! (RFC 4861 §7.2.6), as any host sends it that has moved. Without it a router that knew the address from another
//! node keeps sending there until its cache expires.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};

use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, bind, ipproto, sendto, socket_with, sockopt,
};

/// All nodes on the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// ICMPv6 type of a neighbour advertisement.
const ADVERTISEMENT: u8 = 136;
/// "What you knew before is out of date."
const OVERRIDE: u8 = 0x20;
/// The option that carries the link-layer address, and its length in units of eight bytes.
const TARGET_LINK_LAYER_ADDRESS: [u8; 2] = [2, 1];
/// What a receiver insists on, since no router lets it through.
const HOPS: u32 = 255;

/// Sends the advertisement of `address` at `mac` on the interface with this index. Does not block.
///
/// # Errors
/// What the socket says.
pub fn neighbour(interface: u32, mac: [u8; 6], address: Ipv6Addr) -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::INET6,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(ipproto::ICMPV6),
    )?;
    // The source is the address itself, which is the guest's and not this host's.
    sockopt::set_ipv6_freebind(&socket, true)?;
    sockopt::set_ipv6_multicast_hops(&socket, HOPS)?;
    bind(&socket, &SocketAddrV6::new(address, 0, 0, 0))?;
    let to = SocketAddrV6::new(ALL_NODES, 0, 0, interface);
    sendto(&socket, &message(mac, address), SendFlags::empty(), &to)?;
    Ok(())
}

/// The message; its checksum is the kernel's affair.
fn message(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    let mut bytes = vec![ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    bytes.extend(address.octets());
    bytes.extend(TARGET_LINK_LAYER_ADDRESS);
    bytes.extend(mac);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_the_one_of_the_standard() {
        let address = "fec0::3:abcd".parse().unwrap();
        let bytes = message([2, 0, 0, 0, 0, 1], address);
        let expected = [
            "88000000",
            "20000000",
            "fec0000000000000000000000003abcd",
            "0201020000000001",
        ];
        assert_eq!(hex::encode(bytes), expected.concat());
    }
}
