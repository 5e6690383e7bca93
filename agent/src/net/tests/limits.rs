//! What one guest may use up (spec crn-api §9.3 S11: the existing node has no rate limits).

use super::lab::*;
use super::packet::udp;
use crate::net::Limits;

/// What a bucket of a megabit a second holds: a second's bytes and 256 KiB.
const BUCKET: u64 = 125_000 + 256 * 1024;

fn texts(frames: &[Vec<u8>], text: &[u8]) -> usize {
    frames.iter().filter(|frame| says(frame, text)).count()
}

#[tokio::test]
async fn a_guest_has_only_its_connections_and_a_change_elsewhere_gives_it_no_more() {
    in_a_namespace!("a_guest_has_only_its_connections_and_a_change_elsewhere_gives_it_no_more");
    let outside = outside();
    let limits = Limits {
        connections: Some(5),
        megabits: None,
    };
    let net = open(pools(), limits).await;
    let (mut a, mut b) = two_guests(&net).await;
    // Somebody is there: otherwise the outside's complaint would repeat what it did not want.
    let _there = outside.udp("10.0.2.2:9000");
    let ear = outside.ear();
    let mut open = |from: std::ops::Range<u16>, text: &[u8]| {
        for port in from {
            a.say(&format!("172.16.4.2:{port}"), "10.0.2.2:9000", text);
        }
        std::thread::sleep(SILENCE);
        texts(&ear.heard(), text)
    };
    assert_eq!(open(5000..5020, b"first"), 5);
    // The ones it has go on.
    assert_eq!(open(5000..5005, b"again"), 5);
    // What a new machine, or a stranger's new port, brings about.
    let plans = [a_plan(&net, 4, VM_A), a_plan(&net, 5, VM_B)];
    net.apply(&plans).await.unwrap();
    assert_eq!(open(6000..6020, b"after"), 0);
    // Another guest has its own.
    b.say("172.16.5.2:5000", "10.0.2.2:9000", b"neighbour");
    std::thread::sleep(SILENCE);
    assert_eq!(texts(&ear.heard(), b"neighbour"), 1);
}

fn a_plan(net: &crate::net::Net, slot: u16, vm: &str) -> crate::net::Guest {
    let kind = if slot == 4 {
        crate::net::Kind::Instance
    } else {
        crate::net::Kind::Program
    };
    crate::net::Guest {
        plan: net.pools().plan(slot, vm, kind).unwrap(),
        forwards: vec![],
        secluded: false,
    }
}

#[tokio::test]
async fn others_cannot_use_up_all_of_a_guests_connections_of_its_own() {
    in_a_namespace!("others_cannot_use_up_all_of_a_guests_connections_of_its_own");
    let outside = outside();
    let limits = Limits {
        connections: Some(3),
        megabits: None,
    };
    let net = open(pools(), limits).await;
    let (mut a, _b) = two_guests(&net).await;
    let sockets: Vec<_> = (0..8).map(|_| outside.udp("10.0.2.2:0")).collect();
    for socket in &sockets {
        socket.send_to(b"flood", "10.0.2.15:24000").unwrap();
    }
    std::thread::sleep(SILENCE);
    assert_eq!(texts(&a.heard(), b"flood"), 3);
    let v4 = outside.udp("10.0.2.2:9000");
    a.say("172.16.4.2:5000", "10.0.2.2:9000", b"own");
    assert!(hear(&v4, PATIENCE).is_some());
}

#[tokio::test]
async fn a_guest_sends_and_receives_no_faster_than_it_may() {
    in_a_namespace!("a_guest_sends_and_receives_no_faster_than_it_may");
    let outside = outside();
    let limits = Limits {
        connections: None,
        megabits: Some(1),
    };
    let net = open(pools(), limits).await;
    let (mut a, mut b) = two_guests(&net).await;
    let begin = std::time::Instant::now();
    let _there = outside.udp("10.0.2.2:9000");
    let ear = outside.ear();
    let text = [&b"bulk"[..], &[b'.'; 1000]].concat();
    let packet = udp("172.16.4.2:5000", "10.0.2.2:9000", &text);
    let mut arrived = 0;
    for _ in 0..40 {
        for _ in 0..50 {
            a.send(a.plan.mac, &packet);
        }
        arrived += texts(&ear.heard(), b"bulk");
    }
    std::thread::sleep(SILENCE);
    arrived += texts(&ear.heard(), b"bulk");
    // Of two megabytes: a bucket full, and 125 kB for each second this took.
    let most = (BUCKET + 125_000 * (begin.elapsed().as_secs() + 1)) / 1000;
    assert!(arrived > 100, "{arrived} packets arrived");
    assert!(
        u64::try_from(arrived).unwrap() <= most,
        "{arrived} packets arrived, {most} expected at most"
    );
    // Its neighbour's is its own.
    b.say("172.16.5.2:5000", "10.0.2.2:9000", b"neighbour");
    std::thread::sleep(SILENCE);
    assert_eq!(texts(&ear.heard(), b"neighbour"), 1);

    let begin = std::time::Instant::now();
    let v4 = outside.udp("10.0.2.2:9001");
    let mut received = 0;
    for _ in 0..40 {
        for _ in 0..50 {
            v4.send_to(&text, "10.0.2.15:24000").unwrap();
        }
        received += texts(&a.heard(), b"bulk");
    }
    std::thread::sleep(SILENCE);
    received += texts(&a.heard(), b"bulk");
    let most = (BUCKET + 125_000 * (begin.elapsed().as_secs() + 1)) / 1000;
    assert!(received > 100, "{received} packets were received");
    assert!(
        u64::try_from(received).unwrap() <= most,
        "{received} > {most}"
    );
}
