//! The host's network for real, as root: each test runs again in a network namespace of its own, with an uplink whose
//! other end is in a second one, and speaks for guests by writing frames into their TAPs' queues.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

const HERE: &str = "CRN_TEST_NAMESPACE";
const VM_A: &str = "deadbeefca0f0000000000000000000000000000000000000000000000000001";
const VM_B: &str = "0123456789ab0000000000000000000000000000000000000000000000000002";
/// What arrives is here long before; what does not is waited for this long.
const SILENCE: Duration = Duration::from_millis(400);
/// Neighbour discovery by proxy answers after a random part of 0.8 s.
const PATIENCE: Duration = Duration::from_secs(5);

/// `true` in the namespace; outside, runs the test there and passes on how it went.
fn inside(test: &str) -> bool {
    if std::env::var_os(HERE).is_some() {
        return true;
    }
    let status = Command::new("unshare")
        .args(["--net", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", &format!("net::tests::{test}")])
        .env(HERE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its namespace");
    false
}

fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The outside: a namespace that a sleeping process holds, reached over `eth0`.
struct Outside(Child);

impl Outside {
    fn new() -> Self {
        let mut child = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "echo; exec sleep 60"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let there = format!("nsenter -t {} -n ip", child.id());
        for line in [
            "ip link set lo up",
            "ip link add eth0 type veth peer name peer",
            &format!("ip link set peer netns {}", child.id()),
            "ip addr add 10.0.2.15/24 dev eth0",
            "ip addr add 2001:db8:0:1::15/64 dev eth0 nodad",
            "ip link set eth0 up",
            &format!("{there} addr add 10.0.2.2/24 dev peer"),
            &format!("{there} addr add 2001:db8:0:1::2/64 dev peer nodad"),
            &format!("{there} link set peer up"),
            "ip route add default via 10.0.2.2",
        ] {
            run(line);
        }
        Self(child)
    }

    /// A socket of the outside.
    fn udp(&self, address: &str) -> UdpSocket {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        let address: SocketAddr = address.parse().unwrap();
        let socket = std::thread::spawn(move || {
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&namespace),
                Some(kind),
            )
            .unwrap();
            UdpSocket::bind(address).unwrap()
        })
        .join()
        .unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A guest's side of its TAP.
struct Wire {
    queue: std::fs::File,
    plan: Plan,
    gateway_mac: Vec<u8>,
}

impl Wire {
    async fn new(net: &Net, plan: Plan) -> Self {
        let queue = std::fs::File::from(net.attach(&plan).await.unwrap());
        let link = run(&format!("ip -o link show {}", plan.tap));
        let gateway_mac = link
            .split_once("link/ether ")
            .unwrap()
            .1
            .split_once(' ')
            .unwrap()
            .0;
        let gateway_mac = hex::decode(gateway_mac.replace(':', "")).unwrap();
        for address in [plan.ipv4.to_string(), plan.ipv6.to_string()] {
            run(&format!(
                "ip neigh add {address} lladdr {} dev {}",
                plan.mac_text(),
                plan.tap
            ));
        }
        Self {
            queue,
            plan,
            gateway_mac,
        }
    }

    fn send(&mut self, mac: [u8; 6], packet: &[u8]) {
        let kind: [u8; 2] = if packet[0] >> 4 == 4 {
            [0x08, 0x00]
        } else {
            [0x86, 0xdd]
        };
        // The header of virtio-net: ten zero bytes, no offloads.
        let frame = [&[0; 10][..], &self.gateway_mac, &mac, &kind, packet].concat();
        self.queue.write_all(&frame).unwrap();
    }

    fn say(&mut self, from: &str, to: &str, text: &[u8]) {
        let packet = udp(from.parse().unwrap(), to.parse().unwrap(), text);
        self.send(self.plan.mac, &packet);
    }

    /// Whether a frame that contains `text` arrives in time; its packet.
    fn hears(&mut self, text: &[u8], limit: Duration) -> Option<Vec<u8>> {
        let begin = Instant::now();
        let mut frame = [0; 2048];
        while begin.elapsed() < limit {
            match self.queue.read(&mut frame) {
                Ok(length)
                    if frame[..length]
                        .windows(text.len())
                        .any(|window| window == text) =>
                {
                    return Some(frame[24..length].to_vec());
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(5))
                }
                Err(error) => panic!("{error}"),
            }
        }
        None
    }
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

fn udp(from: SocketAddr, to: SocketAddr, text: &[u8]) -> Vec<u8> {
    let length = u16::try_from(text.len() + 8).unwrap().to_be_bytes();
    let datagram = [
        &from.port().to_be_bytes()[..],
        &to.port().to_be_bytes(),
        &length,
        &[0, 0],
        text,
    ]
    .concat();
    ip(from.ip(), to.ip(), 17, datagram, 6)
}

/// A packet whose payload has its checksum at `at`, over a pseudo header unless it is ICMP.
fn ip(from: IpAddr, to: IpAddr, protocol: u8, mut payload: Vec<u8>, at: usize) -> Vec<u8> {
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
            &[0, 1, 0, 0, 64, protocol, 0, 0],
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
            &[protocol, 64],
            &addresses,
            &payload,
        ]
        .concat()
    }
}

fn hear(socket: &UdpSocket, limit: Duration) -> Option<(Vec<u8>, SocketAddr)> {
    socket.set_read_timeout(Some(limit)).unwrap();
    let mut buffer = [0; 2048];
    match socket.recv_from(&mut buffer) {
        Ok((length, from)) => Some((buffer[..length].to_vec(), from)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

fn pools() -> Pools {
    Pools::parse("172.16.0.0/12", "2001:db8:0:1::/64").unwrap()
}

fn udp_port(host: u16, guest: u16) -> Forward {
    Forward {
        transport: Transport::Udp,
        host,
        guest,
    }
}

/// Two guests, the first with host port 24000 leading to its port 22.
async fn two_guests(net: &Net) -> (Wire, Wire) {
    let a = Wire::new(net, pools().plan(4, VM_A, Kind::Instance).unwrap()).await;
    let b = Wire::new(net, pools().plan(5, VM_B, Kind::Program).unwrap()).await;
    let guests = [
        Guest {
            plan: a.plan.clone(),
            forwards: vec![
                udp_port(24000, 22),
                Forward {
                    transport: Transport::Tcp,
                    host: 24000,
                    guest: 22,
                },
            ],
        },
        Guest {
            plan: b.plan.clone(),
            forwards: vec![],
        },
    ];
    net.apply(&guests).await.unwrap();
    // The whole table again, as at every change.
    net.apply(&guests).await.unwrap();
    (a, b)
}

#[tokio::test]
async fn a_guest_reaches_the_outside_with_the_hosts_ipv4_and_its_own_ipv6() {
    if !inside("a_guest_reaches_the_outside_with_the_hosts_ipv4_and_its_own_ipv6") {
        return;
    }
    let outside = Outside::new();
    let net = Net::open(None, pools()).await.unwrap();
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

#[tokio::test]
async fn the_outside_reaches_forwarded_ports_and_ipv6_and_nothing_else() {
    if !inside("the_outside_reaches_forwarded_ports_and_ipv6_and_nothing_else") {
        return;
    }
    let outside = Outside::new();
    let net = Net::open(Some("eth0"), pools()).await.unwrap();
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

    run(&format!(
        "nsenter -t {} -n ip route add 172.16.0.0/12 via 10.0.2.15",
        outside.0.id()
    ));
    v4.send_to(b"unasked", "172.16.4.2:22").unwrap();
    assert!(a.hears(b"unasked", SILENCE).is_none());
}

#[tokio::test]
async fn a_guest_cannot_spoof_nor_reach_the_host_nor_another_guest() {
    if !inside("a_guest_cannot_spoof_nor_reach_the_host_nor_another_guest") {
        return;
    }
    let outside = Outside::new();
    let net = Net::open(Some("eth0"), pools()).await.unwrap();
    let (mut a, mut b) = two_guests(&net).await;

    let v4 = outside.udp("10.0.2.2:9000");
    let v6 = outside.udp("[2001:db8:0:1::2]:9000");
    a.say("172.16.5.2:5000", "10.0.2.2:9000", b"as the other");
    a.say(
        "[2001:db8:0:1:1:123:4567:89a1]:5000",
        "[2001:db8:0:1::2]:9000",
        b"as the other",
    );
    let honest = udp(
        "172.16.4.2:5000".parse().unwrap(),
        "10.0.2.2:9000".parse().unwrap(),
        b"other card",
    );
    a.send(b.plan.mac, &honest);
    assert!(hear(&v4, SILENCE).is_none());
    assert!(hear(&v6, SILENCE).is_none());

    let host = UdpSocket::bind("0.0.0.0:7000").unwrap();
    for address in ["172.16.4.1:7000", "10.0.2.15:7000"] {
        a.say("172.16.4.2:5000", address, b"to the host");
    }
    assert!(hear(&host, SILENCE).is_none());
    host.send_to(b"from the host", "172.16.4.2:5000").unwrap();
    assert!(a.hears(b"from the host", PATIENCE).is_some());
    a.say("172.16.4.2:5000", "172.16.4.1:7000", b"answer");
    assert!(hear(&host, PATIENCE).is_some());

    let ping = [&[8, 0, 0, 0, 0, 1, 0, 1][..], b"ping the gateway"].concat();
    let ping = ip(
        "172.16.4.2".parse().unwrap(),
        "172.16.4.1".parse().unwrap(),
        1,
        ping,
        2,
    );
    a.send(a.plan.mac, &ping);
    assert!(a.hears(b"ping the gateway", PATIENCE).is_some());

    a.say("172.16.4.2:5000", "172.16.5.2:22", b"neighbour");
    a.say(
        "[2001:db8:0:1:3:dead:beef:ca01]:5000",
        "[2001:db8:0:1:1:123:4567:89a1]:22",
        b"neighbour",
    );
    assert!(b.hears(b"neighbour", SILENCE).is_none());
}

#[tokio::test]
async fn nothing_is_left_after_the_last_guest() {
    if !inside("nothing_is_left_after_the_last_guest") {
        return;
    }
    let _outside = Outside::new();
    run("nft add table ip others");
    // Whether the uplink's own link-local address has been probed yet is not ours to say.
    let addresses = || run("ip addr").replace(" tentative", "");
    let before = [
        addresses(),
        run("ip neigh show proxy"),
        run("nft list ruleset"),
    ];
    let net = Net::open(None, pools()).await.unwrap();
    let plan = pools().plan(4, VM_A, Kind::Instance).unwrap();
    // Twice: what an agent that was killed left behind does not stop the next one.
    for closed_first in [false, true] {
        let queue = net.attach(&plan).await.unwrap();
        net.apply(&[Guest {
            plan: plan.clone(),
            forwards: vec![udp_port(24000, 22)],
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
