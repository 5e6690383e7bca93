//! What a guest may try against everybody else, one frame each (spec crn-api §9.3 S2, §4.2, §4.4: the existing node
//! stops none of it). Each is tried twice: with the rules, where nothing may come of it, and without them, where the
//! test must be able to see it; what the kernel refuses by itself is said so.

mod list;

use std::net::UdpSocket;
use std::time::Duration;

use self::list::*;
use super::lab::*;
use super::packet::*;
use crate::net::Limits;

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
