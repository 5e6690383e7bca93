//! Every cheat that is tried, as the frame a guest sends.

use super::super::lab::Wire;
use super::super::packet::*;

const A4: &str = "172.16.4.2";
const B4: &str = "172.16.5.2";
pub const A6: &str = "2001:db8:0:1:3:dead:beef:ca01";
pub const B6: &str = "2001:db8:0:1:1:123:4567:89a1";
const OUT4: &str = "10.0.2.2";
pub const OUT6: &str = "2001:db8:0:1::2";
const EVERY_NODE: &str = "ff02::1";

/// What is tried, and whether the rules alone are in its way.
pub struct Cheat {
    pub what: &'static str,
    pub frame: Vec<u8>,
    pub only_rules: bool,
}

/// A datagram that cheats: what it is, whether the rules alone are in its way, the card's address, source, destination,
/// and both ports.
type Datagram = (
    &'static str,
    bool,
    [u8; 6],
    &'static str,
    &'static str,
    u16,
    u16,
);

pub fn mark(number: usize) -> Vec<u8> {
    format!("<cheat {number}>").into_bytes()
}

fn to_gateway(a: &Wire, card: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let kind = if packet[0] >> 4 == 4 {
        [0x08, 0x00]
    } else {
        [0x86, 0xdd]
    };
    [&a.gateway_mac[..], &card, &kind, packet].concat()
}

/// Every cheat whose success somebody hears.
pub fn heard_cheats(a: &Wire, b: &Wire) -> Vec<Cheat> {
    let (card, other) = (a.plan.mac, b.plan.mac);
    let host_link_local = "fe80::1";
    let list: Vec<Datagram> = vec![
        (
            "IPv4 of another guest as the source",
            false,
            card,
            B4,
            OUT4,
            1,
            9,
        ),
        (
            "IPv4 of the host as the source",
            false,
            card,
            "10.0.2.15",
            OUT4,
            1,
            9,
        ),
        (
            "IPv4 of its gateway as the source",
            false,
            card,
            "172.16.4.1",
            OUT4,
            1,
            9,
        ),
        (
            "IPv4 of a stranger as the source",
            false,
            card,
            "198.51.100.7",
            OUT4,
            1,
            9,
        ),
        (
            "IPv4 of its own network, not leased",
            true,
            card,
            "172.16.4.9",
            OUT4,
            1,
            9,
        ),
        (
            "IPv4 with another card's address",
            true,
            other,
            A4,
            OUT4,
            1,
            9,
        ),
        (
            "IPv4 with a made-up card's address",
            true,
            [2, 9, 9, 9, 9, 9],
            A4,
            OUT4,
            1,
            9,
        ),
        ("IPv4 to another guest", true, card, A4, B4, 1, 22),
        (
            "IPv4 to another guest, as its gateway",
            false,
            card,
            "172.16.5.1",
            B4,
            1,
            22,
        ),
        (
            "IPv4 to another guest's forwarded port on the host",
            false,
            card,
            A4,
            "10.0.2.15",
            1,
            24001,
        ),
        (
            "IPv4 to another guest's forwarded port on its gateway",
            false,
            card,
            A4,
            "172.16.4.1",
            1,
            24001,
        ),
        (
            "IPv4 to the host's services at its gateway",
            true,
            card,
            A4,
            "172.16.4.1",
            1,
            7000,
        ),
        (
            "IPv4 to the host's services at its own address",
            true,
            card,
            A4,
            "10.0.2.15",
            1,
            7000,
        ),
        (
            "IPv4 to the host's services at another's gateway",
            true,
            card,
            A4,
            "172.16.5.1",
            1,
            7000,
        ),
        (
            "IPv4 to the host's loopback",
            false,
            card,
            A4,
            "127.0.0.1",
            1,
            7000,
        ),
        (
            "IPv4 from the host's loopback",
            false,
            card,
            "127.0.0.1",
            "172.16.4.1",
            1,
            7000,
        ),
        (
            "IPv4 broadcast to the host's services",
            true,
            card,
            A4,
            "255.255.255.255",
            1,
            7000,
        ),
        (
            "IPv4 multicast to the host's services",
            false,
            card,
            A4,
            "224.0.0.1",
            1,
            7000,
        ),
        (
            "DHCP: asks the host",
            false,
            card,
            "0.0.0.0",
            "255.255.255.255",
            68,
            67,
        ),
        (
            "DHCP: plays the server for the host",
            true,
            card,
            A4,
            "255.255.255.255",
            67,
            68,
        ),
        (
            "DHCPv6: plays the server for the host",
            true,
            card,
            "fe80::ff:fe00:1",
            host_link_local,
            547,
            546,
        ),
        (
            "IPv6 of another guest as the source",
            true,
            card,
            B6,
            OUT6,
            1,
            9,
        ),
        (
            "IPv6 of the host as the source",
            false,
            card,
            "2001:db8:0:1::15",
            OUT6,
            1,
            9,
        ),
        (
            "IPv6 of a stranger as the source",
            true,
            card,
            "2001:db8:ffff::7",
            OUT6,
            1,
            9,
        ),
        (
            "IPv6 of its own network, not leased",
            true,
            card,
            "2001:db8:0:1:3:dead:beef:ca02",
            OUT6,
            1,
            9,
        ),
        (
            "IPv6 with another card's address",
            true,
            other,
            A6,
            OUT6,
            1,
            9,
        ),
        ("IPv6 to another guest", true, card, A6, B6, 1, 22),
        (
            "IPv6 to another guest, as the host",
            false,
            card,
            "2001:db8:0:1::15",
            B6,
            1,
            22,
        ),
        (
            "IPv6 to the host's services at its gateway",
            true,
            card,
            A6,
            "2001:db8:0:1:3:dead:beef:ca00",
            1,
            7001,
        ),
        (
            "IPv6 to the host's services at its own address",
            true,
            card,
            A6,
            "2001:db8:0:1::15",
            1,
            7001,
        ),
        (
            "IPv6 link-local to the host's services",
            true,
            card,
            "fe80::ff:fe00:1",
            host_link_local,
            1,
            7001,
        ),
        (
            "IPv6 multicast to the host's services",
            true,
            card,
            A6,
            EVERY_NODE,
            1,
            7001,
        ),
        (
            "IPv6 to the host's loopback",
            false,
            card,
            A6,
            "::1",
            1,
            7001,
        ),
    ];
    let mut cheats: Vec<_> = list
        .into_iter()
        .enumerate()
        .map(
            |(number, (what, only_rules, card, from, to, from_port, to_port))| {
                let socket = |address: &str, port| match address.contains(':') {
                    true => format!("[{address}]:{port}"),
                    false => format!("{address}:{port}"),
                };
                let packet = udp(
                    &socket(from, from_port),
                    &socket(to, to_port),
                    &mark(number),
                );
                Cheat {
                    what,
                    frame: to_gateway(a, card, &packet),
                    only_rules,
                }
            },
        )
        .collect();
    let mut more = |what, only_rules, make: &dyn Fn(&[u8]) -> Vec<u8>| {
        let frame = make(&mark(cheats.len()));
        cheats.push(Cheat {
            what,
            frame,
            only_rules,
        });
    };
    more("ping of another guest", true, &|text| {
        to_gateway(a, card, &ping(A4, B4, text))
    });
    more("ping of another's gateway", true, &|text| {
        to_gateway(a, card, &ping(A4, "172.16.5.1", text))
    });
    more("ping of the host's own address", true, &|text| {
        to_gateway(a, card, &ping(A6, "2001:db8:0:1::15", text))
    });
    more("in a VLAN", false, &|text| {
        let packet = udp("172.16.4.2:1", "10.0.2.2:9", text);
        [
            &a.gateway_mac[..],
            &card,
            &[0x81, 0, 0, 5, 0x08, 0],
            &packet,
        ]
        .concat()
    });
    more("another guest's card as the receiver", false, &|text| {
        let packet = udp("172.16.4.2:1", "172.16.5.2:22", text);
        [&other[..], &card, &[0x08, 0], &packet].concat()
    });
    more("a frame of the link layer itself (LLDP)", false, &|text| {
        [&[1, 0x80, 0xc2, 0, 0, 0x0e][..], &card, &[0x88, 0xcc], text].concat()
    });
    cheats
}

/// Every cheat whose success is something the host then believes.
pub fn believed_cheats(a: &Wire, b: &Wire) -> Vec<Cheat> {
    let (card, other) = (a.plan.mac, b.plan.mac);
    let link_local = "fe80::bad";
    let icmp = |from, to, message: &[u8]| to_gateway(a, card, &icmpv6(from, to, message));
    let advertisement = icmpv6(
        link_local,
        EVERY_NODE,
        &router_advertisement("2001:db8:bad::"),
    );
    let list: Vec<(&'static str, bool, Vec<u8>)> = vec![
        (
            "RA: is everybody's router",
            false,
            to_gateway(a, card, &advertisement),
        ),
        ("RA behind hop-by-hop options", false, {
            to_gateway(
                a,
                card,
                &icmpv6_behind(0, [0, 1, 4, 0, 0, 0, 0], &advertisement),
            )
        }),
        ("RA behind a fragment header", false, {
            to_gateway(a, card, &icmpv6_behind(44, [0; 7], &advertisement))
        }),
        ("redirect of the host's traffic", false, {
            icmp(link_local, A6, &redirect(link_local, OUT6))
        }),
        (
            "NA: has another guest's IPv6",
            false,
            icmp(B6, EVERY_NODE, &neighbour_advertisement(B6, card)),
        ),
        ("NA: has its own IPv6 at another card", false, {
            icmp(A6, EVERY_NODE, &neighbour_advertisement(A6, other))
        }),
        ("NS from another guest's IPv6", true, {
            icmp(
                B6,
                "ff02::1:ffef:ca00",
                &neighbour_solicitation("2001:db8:0:1:3:dead:beef:ca00", card),
            )
        }),
        ("NS from a stranger's IPv6", true, {
            icmp(
                OUT6,
                "ff02::1:ffef:ca00",
                &neighbour_solicitation("2001:db8:0:1:3:dead:beef:ca00", card),
            )
        }),
        ("NS with another card's address around it", true, {
            let packet = icmpv6(
                "fe80::5",
                "ff02::1:ffef:ca00",
                &neighbour_solicitation("2001:db8:0:1:3:dead:beef:ca00", other),
            );
            to_gateway(a, other, &packet)
        }),
        (
            "ARP: another guest's IPv4 is here",
            false,
            arp(card, REPLY, card, B4, B4),
        ),
        (
            "ARP: its own IPv4 is at another card",
            false,
            arp(card, REPLY, other, A4, A4),
        ),
        (
            "ARP: the gateway's IPv4 is here",
            false,
            arp(card, REPLY, card, "172.16.4.1", "172.16.4.1"),
        ),
        (
            "ARP: asks as another guest",
            false,
            arp(card, REQUEST, card, B4, "172.16.4.1"),
        ),
        ("ARP: asks as one more of its network", true, {
            arp(card, REQUEST, card, "172.16.4.77", "172.16.4.1")
        }),
        ("ARP: asks with another card's address", true, {
            arp(other, REQUEST, other, "172.16.4.78", "172.16.4.1")
        }),
    ];
    let cheats = list.into_iter();
    cheats
        .map(|(what, only_rules, frame)| Cheat {
            what,
            frame,
            only_rules,
        })
        .collect()
}
