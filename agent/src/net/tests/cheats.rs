//! What a guest may try against everybody else, one frame each (spec crn-api §9.3 S2, §4.2, §4.4: the existing node
//! stops none of it). Each is tried twice: with the rules, where nothing may come of it, and without them, where the
//! test must be able to see it; what the kernel refuses by itself is said so.

use std::net::UdpSocket;
use std::time::Duration;

use super::lab::*;
use super::packet::*;
use crate::net::Limits;

const A4: &str = "172.16.4.2";
const B4: &str = "172.16.5.2";
const A6: &str = "2001:db8:0:1:3:dead:beef:ca01";
const B6: &str = "2001:db8:0:1:1:123:4567:89a1";
const OUT4: &str = "10.0.2.2";
const OUT6: &str = "2001:db8:0:1::2";
const EVERY_NODE: &str = "ff02::1";

/// What is tried, and whether the rules alone are in its way.
struct Cheat {
    what: &'static str,
    frame: Vec<u8>,
    only_rules: bool,
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

/// Where a cheat can come to light.
struct Observers {
    outside: Ear,
    sockets: Vec<UdpSocket>,
}

impl Observers {
    fn new(outside: &Host) -> Self {
        let bind = |address: &str| {
            let socket = UdpSocket::bind(address).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        Self {
            outside: outside.ear(),
            sockets: [
                "0.0.0.0:7000",
                "[::]:7001",
                "0.0.0.0:67",
                "0.0.0.0:68",
                "[::]:546",
            ]
            .map(bind)
            .into(),
        }
    }

    /// Everything that has been received anywhere since.
    fn heard(&self, a: &mut Wire, b: &mut Wire) -> Vec<Vec<u8>> {
        let mut all = self.outside.heard();
        all.extend(b.heard());
        // An answer to the cheat is a success too; what the host says by itself is not.
        all.extend(a.heard());
        let mut buffer = [0; 2048];
        for socket in &self.sockets {
            while let Ok((length, _)) = socket.recv_from(&mut buffer) {
                all.push(buffer[..length].to_vec());
            }
        }
        all
    }
}

/// What the host believes about its network.
fn beliefs() -> String {
    let neighbours = ["vmtap4", "vmtap5"].map(|tap| run(&format!("ip neigh show dev {tap}")));
    [
        neighbours.concat(),
        run("ip -6 route show"),
        run("ip -o addr show dev vmtap4").replace(" tentative", ""),
    ]
    .concat()
}

fn mark(number: usize) -> Vec<u8> {
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
fn heard_cheats(a: &Wire, b: &Wire) -> Vec<Cheat> {
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
fn believed_cheats(a: &Wire, b: &Wire) -> Vec<Cheat> {
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

/// Which of them had success, in their order.
fn try_heard(cheats: &[Cheat], see: &Observers, a: &mut Wire, b: &mut Wire) -> Vec<bool> {
    see.heard(a, b);
    for cheat in cheats {
        a.send_frame(&cheat.frame);
    }
    std::thread::sleep(SILENCE);
    let heard = see.heard(a, b);
    (0..cheats.len())
        .map(|number| heard.iter().any(|frame| says(frame, &mark(number))))
        .collect()
}

fn try_believed(cheats: &[Cheat], a: &mut Wire) -> Vec<bool> {
    let attempts = cheats.iter().map(|cheat| {
        let before = beliefs();
        a.send_frame(&cheat.frame);
        std::thread::sleep(Duration::from_millis(100));
        before != beliefs()
    });
    attempts.collect()
}

#[tokio::test]
async fn no_cheat_of_a_guest_has_success() {
    in_a_namespace!("no_cheat_of_a_guest_has_success");
    let outside = outside();
    let net = open(pools(), Limits::default()).await;
    let (mut a, mut b) = two_guests(&net).await;
    for tap in ["vmtap4", "vmtap5"] {
        run(&format!("ip addr add fe80::1/64 dev {tap} nodad"));
    }
    let see = Observers::new(&outside);
    let (heard, believed) = (heard_cheats(&a, &b), believed_cheats(&a, &b));
    let mut with = try_heard(&heard, &see, &mut a, &mut b);
    with.extend(try_believed(&believed, &mut a));

    // The rules are in the way of cheats, and of nothing else.
    a.say("172.16.4.2:5000", "10.0.2.2:9", b"honest IPv4");
    a.say(
        &format!("[{A6}]:5000"),
        &format!("[{OUT6}]:9"),
        b"honest IPv6",
    );
    std::thread::sleep(SILENCE);
    let frames = see.heard(&mut a, &mut b);
    for text in [b"honest IPv4", b"honest IPv6"] {
        assert!(frames.iter().any(|frame| says(frame, text)));
    }

    for table in ["inet crn", "inet crn-limits", "arp crn"] {
        run(&format!("nft delete table {table}"));
    }
    let mut without = try_heard(&heard, &see, &mut a, &mut b);
    without.extend(try_believed(&believed, &mut a));

    let verdict = |success| if success { "GETS THROUGH" } else { "stopped" };
    println!("{:<56} {:<13} without the rules", "what a guest tries", "");
    for ((cheat, with), without) in heard.iter().chain(&believed).zip(&with).zip(&without) {
        println!(
            "{:<56} {:<13} {}",
            cheat.what,
            verdict(*with),
            verdict(*without)
        );
    }
    for ((cheat, with), without) in heard.iter().chain(&believed).zip(with).zip(without) {
        assert!(!with, "{} gets through", cheat.what);
        // Otherwise the test would not see it if it did.
        assert!(without || !cheat.only_rules, "{} is not seen", cheat.what);
    }
}

/// A guest's neighbour discovery makes entries in a table of the host that is everybody's.
#[tokio::test]
async fn a_flood_of_neighbours_leaves_room_for_everybody_else() {
    in_a_namespace!("a_flood_of_neighbours_leaves_room_for_everybody_else");
    let _outside = outside();
    let net = open(pools(), Limits::default()).await;
    let (mut a, mut b) = two_guests(&net).await;
    let begin = std::time::Instant::now();
    for number in 1..=2000u32 {
        let from = format!("fe80::{:x}:{:x}", number >> 8, number & 0xff);
        let question = neighbour_solicitation("2001:db8:0:1:3:dead:beef:ca00", a.plan.mac);
        let packet = icmpv6(&from, "ff02::1:ffef:ca00", &question);
        a.send(a.plan.mac, &packet);
    }
    let entries = run("ip neigh show dev vmtap4").lines().count();
    // Two of its lease, a bucket full, and ten more for each second that this took.
    let most = 2 + 10 + 10 * usize::try_from(begin.elapsed().as_secs() + 1).unwrap();
    assert!(
        entries <= most,
        "{entries} entries, {most} expected at most"
    );
    let question = neighbour_solicitation("2001:db8:0:1:1:123:4567:89a0", b.plan.mac);
    b.send(b.plan.mac, &icmpv6(B6, "ff02::1:ff67:89a0", &question));
    let gateway = "2001:db8:0:1:1:123:4567:89a0".parse::<std::net::Ipv6Addr>();
    assert!(b.hears(&gateway.unwrap().octets(), PATIENCE).is_some());
}
