//! Packets by hand, honest and other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

pub fn udp(from: &str, to: &str, text: &[u8]) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let length = u16::try_from(text.len() + 8).unwrap().to_be_bytes();
    let datagram = [
        &from.port().to_be_bytes()[..],
        &to.port().to_be_bytes(),
        &length,
        &[0, 0],
        text,
    ]
    .concat();
    ip(from.ip(), to.ip(), 17, datagram, 6, 64)
}

/// An echo request of either family.
pub fn ping(from: &str, to: &str, text: &[u8]) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let (protocol, kind) = if from.is_ipv4() { (1, 8) } else { (58, 128) };
    let request = [&[kind, 0, 0, 0, 0, 1, 0, 1][..], text].concat();
    ip(from, to, protocol, request, 2, 64)
}

/// ICMPv6 as neighbours speak it, with the hop limit that no router passes on.
pub fn icmpv6(from: &str, to: &str, message: &[u8]) -> Vec<u8> {
    let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
    ip(from, to, 58, message.to_vec(), 2, 255)
}

/// The same behind an extension header, which some filters do not look behind.
pub fn icmpv6_behind(header: u8, fields: [u8; 7], packet: &[u8]) -> Vec<u8> {
    let (ip, payload) = packet.split_at(40);
    let length = u16::try_from(payload.len() + 8).unwrap();
    let extension = [&[ip[6]], &fields[..]].concat();
    [
        &ip[..4],
        &length.to_be_bytes(),
        &[header],
        &ip[7..],
        &extension,
        payload,
    ]
    .concat()
}

/// A packet whose payload has its checksum at `at`, over a pseudo header unless it is ICMP.
pub fn ip(
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    mut payload: Vec<u8>,
    at: usize,
    hops: u8,
) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let addresses = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (IpAddr::V6(from), IpAddr::V6(to)) => [from.octets(), to.octets()].concat(),
        _ => panic!("two families"),
    };
    let pseudo = if protocol == 1 {
        Vec::new()
    } else {
        [&addresses[..], &[0, protocol], &length.to_be_bytes()].concat()
    };
    let sum = checksum(&[pseudo, payload.clone()].concat());
    payload[at..at + 2].copy_from_slice(&sum);
    if from.is_ipv4() {
        let mut header = [
            &[0x45, 0],
            &(length + 20).to_be_bytes()[..],
            &[0, 1, 0, 0, hops, protocol, 0, 0],
        ]
        .concat();
        header.extend(&addresses);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum);
        [header, payload].concat()
    } else {
        [
            &[0x60, 0, 0, 0],
            &length.to_be_bytes()[..],
            &[protocol, hops],
            &addresses,
            &payload,
        ]
        .concat()
    }
}

pub const REQUEST: u8 = 1;
pub const REPLY: u8 = 2;

/// An ARP frame to everybody: "`mac` has `from`", and for a request "who has `to`?"
pub fn arp(card: [u8; 6], operation: u8, mac: [u8; 6], from: &str, to: &str) -> Vec<u8> {
    let (from, to): (Ipv4Addr, Ipv4Addr) = (from.parse().unwrap(), to.parse().unwrap());
    [
        &[0xff; 6][..],
        &card,
        &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation],
        &mac,
        &from.octets(),
        &[0; 6],
        &to.octets(),
    ]
    .concat()
}

/// A router advertisement's message: a router for half an hour, and a prefix for everybody.
pub fn router_advertisement(prefix: &str) -> Vec<u8> {
    let prefix: Ipv6Addr = prefix.parse().unwrap();
    let hour = 3600u32.to_be_bytes();
    [
        &[134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0][..],
        // Prefix information: /64, on link and for addresses.
        &[3, 4, 64, 0xc0],
        &hour,
        &hour,
        &[0; 4],
        &prefix.octets(),
    ]
    .concat()
}

/// "`mac` has `target`, whatever you knew before", from a router.
pub fn neighbour_advertisement(target: &str, mac: [u8; 6]) -> Vec<u8> {
    let target: Ipv6Addr = target.parse().unwrap();
    let head = [136, 0, 0, 0, 0xa0, 0, 0, 0];
    [&head[..], &target.octets(), &[2, 1], &mac].concat()
}

/// "Who has `target`? `mac` asks."
pub fn neighbour_solicitation(target: &str, mac: [u8; 6]) -> Vec<u8> {
    let target: Ipv6Addr = target.parse().unwrap();
    let head = [135, 0, 0, 0, 0, 0, 0, 0];
    [&head[..], &target.octets(), &[1, 1], &mac].concat()
}

/// "For `destination` go to `target`."
pub fn redirect(target: &str, destination: &str) -> Vec<u8> {
    let (target, destination): (Ipv6Addr, Ipv6Addr) =
        (target.parse().unwrap(), destination.parse().unwrap());
    let head = [137, 0, 0, 0, 0, 0, 0, 0];
    [&head[..], &target.octets(), &destination.octets()].concat()
}
