//! The host among its neighbours: router advertisements, routed prefixes, and others that use its firewall.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::{Duration, Instant};

use rustix::net::{SendFlags, sendto, sockopt};

use super::lab::*;
use super::packet::*;
use crate::net::{Limits, Net, Pools};

/// Waits until it is so.
fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "not yet: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn advertise(router: &Host) {
    let socket = router.icmpv6();
    sockopt::set_ipv6_multicast_hops(&socket, 255).unwrap();
    let index = router.ip("-o link show peer");
    let index = index.split(':').next().unwrap().trim().parse().unwrap();
    let everybody: Ipv6Addr = "ff02::1".parse().unwrap();
    let to = SocketAddrV6::new(everybody, 0, 0, index);
    let message = router_advertisement("2001:db8:0:1::");
    // Its link-local address may still be probed for.
    until("the router can speak", || {
        sendto(&socket, &message, SendFlags::empty(), &to).is_ok()
    });
}

/// R13: hosts that have their IPv6 from router advertisements lost it with the first machine.
#[tokio::test]
async fn a_host_that_lives_on_router_advertisements_goes_on_doing_so() {
    in_a_namespace!("a_host_that_lives_on_router_advertisements_goes_on_doing_so");
    let router = outside();
    router.set("net.ipv6.conf.peer.forwarding", "1");
    run("sysctl -q net.ipv6.conf.eth0.accept_ra=1");
    let default = || run("ip -6 route show default");
    until("the host is ready", || {
        !run("ip -6 addr show dev eth0").contains("tentative")
    });
    until("the default route is learnt", || {
        advertise(&router);
        default().contains("proto ra")
    });
    let _net = Net::open(None, pools(), Limits::default()).await.unwrap();
    assert!(default().contains("proto ra"), "kept: {}", default());
    run("ip -6 route flush default");
    assert_eq!(default(), "");
    until("it is learnt again while forwarding", || {
        advertise(&router);
        default().contains("proto ra")
    });
    assert_eq!(run("sysctl -n net.ipv6.conf.all.forwarding").trim(), "1");
}

#[tokio::test]
async fn a_prefix_routed_to_the_host_reaches_its_guests_and_ends_with_them() {
    in_a_namespace!("a_prefix_routed_to_the_host_reaches_its_guests_and_ends_with_them");
    let router = outside();
    // A host behind the router, in another network.
    let far = Host::new();
    run(&format!(
        "nsenter -t {} -n ip link add far type veth peer name eth0 netns {}",
        router.id(),
        far.id()
    ));
    for words in ["addr add 2001:db8:9::1/64 dev far nodad", "link set far up"] {
        router.ip(words);
    }
    for words in [
        "addr add 2001:db8:9::2/64 dev eth0 nodad",
        "link set eth0 up",
        "route add default via 2001:db8:9::1",
    ] {
        far.ip(words);
    }
    router.set("net.ipv6.conf.all.forwarding", "1");
    router.ip("route add 2001:db8:7:7::/64 via 2001:db8:0:1::15");
    run("ip route add default via 2001:db8:0:1::2");

    let pools = Pools::parse("172.16.0.0/12", "2001:db8:7:7::/64").unwrap();
    let net = open(pools, Limits::default()).await;
    // An agent that starts again finds its route there.
    let again = open(pools, Limits::default()).await;
    drop(again);
    let (mut a, _b) = two_guests(&net).await;
    let there = far.udp("[2001:db8:9::2]:9000");
    let guest = a.plan.ipv6;
    there.send_to(b"from afar", (guest, 80)).unwrap();
    assert!(a.hears(b"from afar", PATIENCE).is_some());
    a.say(&format!("[{guest}]:80"), "[2001:db8:9::2]:9000", b"answer");
    assert_eq!(hear(&there, PATIENCE).unwrap().1.ip(), guest);

    // Nobody's address: the host says so instead of sending it back where it came from.
    let ear = router.ear();
    let nobody: Ipv6Addr = "2001:db8:7:7:3:ffff:ffff:fff1".parse().unwrap();
    there.send_to(b"to nobody", (nobody, 80)).unwrap();
    std::thread::sleep(SILENCE);
    let frames = ear.heard();
    let unreachable = |frame: &Vec<u8>| frame.len() > 62 && frame[20] == 58 && frame[54] == 1;
    assert!(frames.iter().any(unreachable), "the host tells");
    let forwarded = frames
        .iter()
        .filter(|frame| says(frame, b"to nobody") && frame[20] == 17);
    // In from afar and out to the host, not in again.
    assert_eq!(forwarded.count(), 2);
}

/// R12: a reload of the operator's own rules took the node's away until somebody noticed.
#[tokio::test]
async fn a_foreign_change_of_the_rules_is_noticed_and_an_own_one_is_not() {
    in_a_namespace!("a_foreign_change_of_the_rules_is_noticed_and_an_own_one_is_not");
    let _outside = outside();
    let net = open(pools(), Limits::default()).await;
    let (a, b) = two_guests(&net).await;
    let noticed = async |limit| tokio::time::timeout(limit, net.disturbed()).await.is_ok();
    net.apply(&guests(&a, &b)).await.unwrap();
    run("nft add table ip others");
    run("nft delete table ip others");
    assert!(!noticed(SILENCE).await, "nothing of ours was changed");
    for change in [
        "nft flush ruleset",
        "nft delete table inet crn",
        "nft delete table arp crn",
        "nft delete table inet crn-limits",
        "nft flush chain inet crn forward",
        "nft flush set inet crn senders4",
        "nft insert rule inet crn to-host accept",
    ] {
        let before = run("nft list ruleset");
        run(change);
        assert!(noticed(PATIENCE).await, "{change} was not noticed");
        net.apply(&guests(&a, &b)).await.unwrap();
        assert!(
            !noticed(SILENCE).await,
            "the repair of {change} is not foreign"
        );
        let lines = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(lines(&before), lines(&run("nft list ruleset")));
    }
}
