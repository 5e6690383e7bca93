//! The host's network for real: each test runs again as root of a network namespace of its own, with an uplink whose other
//! end is in a second one, and speaks for guests by writing frames into their TAPs' queues.

mod cheats;
mod host;
pub(super) mod lab;
mod limits;
mod packet;

use std::net::UdpSocket;

use self::lab::*;
use super::*;

#[tokio::test]
async fn a_guest_reaches_the_outside_with_the_hosts_ipv4_and_its_own_ipv6() {
    in_a_namespace!("a_guest_reaches_the_outside_with_the_hosts_ipv4_and_its_own_ipv6");
    let outside = outside();
    let net = Net::open(None, pools(), Limits::default()).await.unwrap();
    assert_eq!((net.uplink(), net.mtu()), ("eth0", 1500));
    assert_eq!(
        net.host_ipv4().await.unwrap().unwrap().to_string(),
        "10.0.2.15"
    );
    let (mut a, _b) = two_guests(&net).await;

    let v4 = outside.udp("10.0.2.2:9000");
    a.say("172.16.4.2:5000", "10.0.2.2:9000", b"hello");
    let (text, from) = hear(&v4, PATIENCE).unwrap();
    assert_eq!(
        (text.as_slice(), from.ip().to_string().as_str()),
        (&b"hello"[..], "10.0.2.15")
    );
    v4.send_to(b"answer", from).unwrap();
    assert!(a.hears(b"answer", PATIENCE).is_some());

    let v6 = outside.udp("[2001:db8:0:1::2]:9000");
    a.say(
        "[2001:db8:0:1:3:dead:beef:ca01]:5000",
        "[2001:db8:0:1::2]:9000",
        b"hello",
    );
    let (_, from) = hear(&v6, PATIENCE).unwrap();
    assert_eq!(from.to_string(), "[2001:db8:0:1:3:dead:beef:ca01]:5000");
}

/// R18: whether a message asked for the internet made no difference to an instance.
#[tokio::test]
async fn a_secluded_guest_answers_over_both_families_and_begins_nothing() {
    in_a_namespace!("a_secluded_guest_answers_over_both_families_and_begins_nothing");
    let outside = outside();
    let net = open(pools(), Limits::default()).await;
    let (mut a, b) = two_guests(&net).await;
    let mut guests = guests(&a, &b);
    guests[0].secluded = true;
    net.apply(&guests).await.unwrap();
    let own6 = "[2001:db8:0:1:3:dead:beef:ca01]:22";
    let (v4, v6) = (
        outside.udp("10.0.2.2:9000"),
        outside.udp("[2001:db8:0:1::2]:9000"),
    );
    // What others begin goes on, both ways.
    v4.send_to(b"visit", "10.0.2.15:24000").unwrap();
    assert!(a.hears(b"visit", PATIENCE).is_some());
    a.say("172.16.4.2:22", "10.0.2.2:9000", b"welcome");
    assert_eq!(hear(&v4, PATIENCE).unwrap().0, b"welcome");
    v6.send_to(b"visit", own6).unwrap();
    assert!(a.hears(b"visit", PATIENCE).is_some());
    a.say(own6, "[2001:db8:0:1::2]:9000", b"welcome");
    assert_eq!(hear(&v6, PATIENCE).unwrap().0, b"welcome");
    let ear = outside.ear();
    // Also from the port at which it is visited.
    for port in [5000, 22] {
        a.say(
            &format!("172.16.4.2:{port}"),
            "10.0.2.2:9001",
            b"let me out",
        );
        a.say(
            &format!("[2001:db8:0:1:3:dead:beef:ca01]:{port}"),
            "[2001:db8:0:1::2]:9001",
            b"let me out",
        );
    }
    std::thread::sleep(SILENCE);
    assert!(!ear.heard().iter().any(|frame| says(frame, b"let me out")));
    // The same from one that asked for the internet arrives.
    guests[0].secluded = false;
    net.apply(&guests).await.unwrap();
    a.say("172.16.4.2:5001", "10.0.2.2:9000", b"out");
    assert_eq!(hear(&v4, PATIENCE).unwrap().0, b"out");
}

#[tokio::test]
async fn the_outside_reaches_forwarded_ports_and_ipv6_and_nothing_else() {
    in_a_namespace!("the_outside_reaches_forwarded_ports_and_ipv6_and_nothing_else");
    let outside = outside();
    let net = open(pools(), Limits::default()).await;
    let (mut a, mut b) = two_guests(&net).await;

    let v4 = outside.udp("10.0.2.2:9000");
    v4.send_to(b"forwarded", "10.0.2.15:24000").unwrap();
    let packet = a.hears(b"forwarded", PATIENCE).unwrap();
    assert_eq!(packet[16..20], [172, 16, 4, 2]);
    assert_eq!(u16::from_be_bytes([packet[22], packet[23]]), 22);

    // Announced on the uplink: the outside finds it without a route.
    let v6 = outside.udp("[2001:db8:0:1::2]:9000");
    v6.send_to(b"direct", "[2001:db8:0:1:1:123:4567:89a1]:80")
        .unwrap();
    assert!(b.hears(b"direct", PATIENCE).is_some());

    outside.ip("route add 172.16.0.0/12 via 10.0.2.15");
    v4.send_to(b"unasked", "172.16.4.2:22").unwrap();
    // Not even as somebody the guest speaks to.
    outside.ip("addr add 172.16.5.2/32 dev peer");
    let neighbour = outside.udp("172.16.5.2:22");
    neighbour.send_to(b"unasked", "172.16.4.2:22").unwrap();
    assert!(a.hears(b"unasked", SILENCE).is_none());
}

#[tokio::test]
async fn a_forward_is_taken_away_and_moved_without_touching_the_others() {
    in_a_namespace!("a_forward_is_taken_away_and_moved_without_touching_the_others");
    let outside = outside();
    let net = open(pools(), Limits::default()).await;
    let (mut a, mut b) = two_guests(&net).await;
    let mut guests = guests(&a, &b);
    guests[0].forwards = vec![port(Transport::Udp, 24002, 22)];
    net.apply(&guests).await.unwrap();
    let v4 = outside.udp("10.0.2.2:9000");
    for (host, text) in [(24000, "old"), (24001, "other"), (24002, "new")] {
        v4.send_to(text.as_bytes(), ("10.0.2.15", host)).unwrap();
    }
    assert!(a.hears(b"new", PATIENCE).is_some());
    assert!(b.hears(b"other", PATIENCE).is_some());
    v4.send_to(b"old", "10.0.2.15:24000").unwrap();
    assert!(a.hears(b"old", SILENCE).is_none());
}

#[tokio::test]
async fn the_host_and_its_guests_answer_each_other() {
    in_a_namespace!("the_host_and_its_guests_answer_each_other");
    let _outside = outside();
    let net = open(pools(), Limits::default()).await;
    let (mut a, _b) = two_guests(&net).await;
    let host = UdpSocket::bind("0.0.0.0:7000").unwrap();
    host.send_to(b"from the host", "172.16.4.2:5000").unwrap();
    assert!(a.hears(b"from the host", PATIENCE).is_some());
    a.say("172.16.4.2:5000", "172.16.4.1:7000", b"answer");
    assert!(hear(&host, PATIENCE).is_some());

    for (from, to) in [
        ("172.16.4.2", "172.16.4.1"),
        (
            "2001:db8:0:1:3:dead:beef:ca01",
            "2001:db8:0:1:3:dead:beef:ca00",
        ),
    ] {
        a.send(a.plan.mac, &packet::ping(from, to, b"ping the gateway"));
        assert!(a.hears(b"ping the gateway", PATIENCE).is_some(), "{to}");
    }
}

/// R16: what led to a machine that was gone led to the next one.
#[tokio::test]
async fn the_next_guest_of_an_address_hears_nothing_of_the_one_before() {
    in_a_namespace!("the_next_guest_of_an_address_hears_nothing_of_the_one_before");
    let outside = outside();
    let net = open(pools(), Limits::default()).await;
    let (mut a, _b) = two_guests(&net).await;
    let v4 = outside.udp("10.0.2.2:9000");
    // One that the guest began, and one that came in.
    a.say("172.16.4.2:5000", "10.0.2.2:9000", b"hello");
    let (_, began) = hear(&v4, PATIENCE).unwrap();
    v4.send_to(b"answer", began).unwrap();
    assert!(a.hears(b"answer", PATIENCE).is_some());
    let visitor = outside.udp("10.0.2.2:9001");
    visitor.send_to(b"visit", "10.0.2.15:24000").unwrap();
    assert!(a.hears(b"visit", PATIENCE).is_some());
    a.say("172.16.4.2:22", "10.0.2.2:9001", b"welcome");
    assert!(hear(&visitor, PATIENCE).is_some());

    let old = a.plan.clone();
    drop(a);
    net.detach(&old).await.unwrap();
    let plan = net.pools().plan(4, VM_C, Kind::Instance).unwrap();
    assert_eq!(plan.ipv4, old.ipv4);
    let mut next = Wire::new(&net, plan.clone()).await;
    let next_guest = Guest {
        plan,
        forwards: Vec::new(),
        secluded: false,
    };
    net.apply(&[next_guest]).await.unwrap();
    // It is reached itself, and by nothing that was its predecessor's.
    next.say("172.16.4.2:6000", "10.0.2.2:9000", b"hello again");
    let (_, again) = hear(&v4, PATIENCE).unwrap();
    v4.send_to(b"late", began).unwrap();
    visitor.send_to(b"late", "10.0.2.15:24000").unwrap();
    v4.send_to(b"in time", again).unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut frames = Vec::new();
    while !frames.iter().any(|frame: &Vec<u8>| says(frame, b"in time")) {
        assert!(std::time::Instant::now() < deadline);
        frames.extend(next.heard());
    }
    // Sent before it, on the same way.
    assert!(!frames.iter().any(|frame| says(frame, b"late")));
}

#[tokio::test]
async fn nothing_is_left_after_the_last_guest() {
    in_a_namespace!("nothing_is_left_after_the_last_guest");
    let _outside = outside();
    run("nft add table ip others");
    // Whether the uplink's own link-local address has been probed yet is not ours to say.
    let addresses = || run("ip addr").replace(" tentative", "");
    let before = [
        addresses(),
        run("ip neigh show proxy"),
        run("nft list ruleset"),
    ];
    let net = Net::open(None, pools(), Limits::default()).await.unwrap();
    let plan = pools().plan(4, VM_A, Kind::Instance).unwrap();
    // Twice: what an agent that was killed left behind does not stop the next one.
    for closed_first in [false, true] {
        let queue = net.attach(&plan).await.unwrap();
        net.apply(&[Guest {
            plan: plan.clone(),
            forwards: vec![port(Transport::Udp, 24000, 22)],
            secluded: false,
        }])
        .await
        .unwrap();
        assert!(run("ip addr show vmtap4").contains("2001:db8:0:1:3:dead:beef:ca00/124"));
        assert!(run("nft list table inet crn").contains(&format!("port 22 of {VM_A}")));
        assert!(run("ip neigh show proxy").contains("ca01"));
        if closed_first {
            drop(queue);
            net.detach(&plan).await.unwrap();
        } else {
            net.detach(&plan).await.unwrap();
            drop(queue);
        }
        net.detach(&plan).await.unwrap();
        net.apply(&[]).await.unwrap();
    }
    assert_eq!(
        before,
        [
            addresses(),
            run("ip neigh show proxy"),
            run("nft list ruleset")
        ]
    );
}
