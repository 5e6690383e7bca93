//! Hosts that are network namespaces, and guests that are the queues of their TAPs.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};

use super::super::*;

const HERE: &str = "CRN_TEST_NAMESPACE";
pub const VM_A: &str = "deadbeefca0f0000000000000000000000000000000000000000000000000001";
pub const VM_B: &str = "0123456789ab0000000000000000000000000000000000000000000000000002";
pub const VM_C: &str = "cafebabe00010000000000000000000000000000000000000000000000000003";
/// What arrives is here long before; what does not is waited for this long.
pub const SILENCE: Duration = Duration::from_millis(400);
/// Neighbour discovery by proxy answers after a random part of 0.8 s.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// `ETH_P_ALL` of `linux/if_ether.h`, in network order.
const EVERYTHING: u32 = 0x0300;

/// Runs the test again in a namespace of its own and returns, unless this is there already.
macro_rules! in_a_namespace {
    ($test:literal) => {
        if !crate::net::tests::lab::inside(module_path!(), $test) {
            return;
        }
    };
}
pub(super) use in_a_namespace;

pub fn inside(module: &str, test: &str) -> bool {
    if std::env::var_os(HERE).is_some() {
        return true;
    }
    let (_crate, module) = module.split_once("::").unwrap();
    let output = unshare()
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", &format!("{module}::{test}")])
        .env(HERE, "1")
        .output()
        .unwrap();
    // Through the harness, which shows it when the test fails or `--nocapture` asks for it.
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{test} failed in its namespace");
    false
}

/// `unshare` with a network namespace; whoever is not root is root in a user namespace of its own.
pub fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--net", "--"]);
    command
}

pub fn run(line: &str) -> String {
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

/// Another host: a namespace that a sleeping process holds.
pub struct Host(Child);

impl Host {
    pub fn new() -> Self {
        let mut child = unshare()
            .args(["sh", "-c", "echo; exec sleep 120"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let host = Self(child);
        host.ip("link set lo up");
        host
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub fn ip(&self, words: &str) -> String {
        run(&format!("nsenter -t {} -n ip {words}", self.id()))
    }

    pub fn set(&self, name: &str, value: &str) {
        let command = format!("nsenter -t {} -n sysctl -q {name}={value}", self.id());
        run(&command);
    }

    /// What `work` makes there.
    fn there<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.id())).unwrap();
        std::thread::spawn(move || {
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind)).unwrap();
            work()
        })
        .join()
        .unwrap()
    }

    pub fn udp(&self, address: &str) -> UdpSocket {
        let address: SocketAddr = address.parse().unwrap();
        let socket = self.there(move || UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// Sends ICMPv6 from there.
    pub fn icmpv6(&self) -> OwnedFd {
        self.there(|| {
            socket_with(
                AddressFamily::INET6,
                SocketType::RAW,
                SocketFlags::CLOEXEC,
                Some(rustix::net::ipproto::ICMPV6),
            )
            .unwrap()
        })
    }

    /// Hears every frame that passes there from now on.
    pub fn ear(&self) -> Ear {
        self.there(Ear::here)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Hears every frame of a namespace.
pub struct Ear(OwnedFd);

impl Ear {
    pub fn here() -> Self {
        let protocol = Protocol::from_raw(EVERYTHING.try_into().unwrap());
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let kind = SocketType::RAW;
        Self(socket_with(AddressFamily::PACKET, kind, flags, Some(protocol)).unwrap())
    }

    /// Every frame that has come since.
    pub fn heard(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok((length, _)) = recv(&self.0, &mut buffer, RecvFlags::empty()) {
            frames.push(buffer[..length].to_vec());
        }
        frames
    }
}

/// The outside: the other end of `eth0`, and everybody's router.
pub fn outside() -> Host {
    let host = Host::new();
    for line in [
        "ip link set lo up",
        "ip link add eth0 type veth peer name peer",
        &format!("ip link set peer netns {}", host.id()),
        "ip addr add 10.0.2.15/24 dev eth0",
        "ip addr add 2001:db8:0:1::15/64 dev eth0 nodad",
        "ip link set eth0 up",
    ] {
        run(line);
    }
    for words in [
        "addr add 10.0.2.2/24 dev peer",
        "addr add 2001:db8:0:1::2/64 dev peer nodad",
        "link set peer up",
    ] {
        host.ip(words);
    }
    run("ip route add default via 10.0.2.2");
    host
}

/// A guest's side of its TAP.
pub struct Wire {
    queue: std::fs::File,
    pub plan: Plan,
    pub gateway_mac: [u8; 6],
}

impl Wire {
    pub async fn new(net: &Net, plan: Plan) -> Self {
        let queue = std::fs::File::from(net.attach(&plan).await.unwrap());
        // Not from /sys, which shows the devices of the namespace it was mounted in.
        let link = run(&format!("ip -o link show {}", plan.tap));
        let (_, address) = link.split_once("link/ether ").unwrap();
        let gateway_mac = hex::decode(address[..17].replace(':', "")).unwrap();
        Self {
            queue,
            plan,
            gateway_mac: gateway_mac.try_into().unwrap(),
        }
    }

    /// A frame as it is.
    pub fn send_frame(&mut self, frame: &[u8]) {
        // The header of virtio-net: ten zero bytes, no offloads.
        self.queue
            .write_all(&[&[0; 10][..], frame].concat())
            .unwrap();
    }

    /// A packet to the gateway, from this card address.
    pub fn send(&mut self, mac: [u8; 6], packet: &[u8]) {
        let kind: [u8; 2] = if packet[0] >> 4 == 4 {
            [0x08, 0x00]
        } else {
            [0x86, 0xdd]
        };
        let frame = [&self.gateway_mac[..], &mac, &kind, packet].concat();
        self.send_frame(&frame);
    }

    pub fn say(&mut self, from: &str, to: &str, text: &[u8]) {
        let packet = super::packet::udp(from, to, text);
        self.send(self.plan.mac, &packet);
    }

    /// Every frame that has come since.
    pub fn heard(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut frame = [0; 4096];
        loop {
            match self.queue.read(&mut frame) {
                Ok(length) => frames.push(frame[10..length].to_vec()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return frames,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Whether a frame that contains `text` arrives in time; its packet.
    pub fn hears(&mut self, text: &[u8], limit: Duration) -> Option<Vec<u8>> {
        let begin = Instant::now();
        loop {
            let late = begin.elapsed() >= limit;
            let found = self.heard().into_iter().find(|frame| says(frame, text));
            if found.is_some() || late {
                return found.map(|frame| frame[14..].to_vec());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

pub fn says(frame: &[u8], text: &[u8]) -> bool {
    frame.windows(text.len()).any(|window| window == text)
}

pub fn hear(socket: &UdpSocket, limit: Duration) -> Option<(Vec<u8>, SocketAddr)> {
    socket.set_read_timeout(Some(limit)).unwrap();
    let mut buffer = [0; 2048];
    match socket.recv_from(&mut buffer) {
        Ok((length, from)) => Some((buffer[..length].to_vec(), from)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

pub fn pools() -> Pools {
    Pools::parse("172.16.0.0/12", "2001:db8:0:1::/64").unwrap()
}

pub async fn open(pools: Pools, limits: Limits) -> Net {
    Net::open(Some("eth0"), pools, limits).await.unwrap()
}

pub const fn port(transport: Transport, host: u16, guest: u16) -> Forward {
    Forward {
        transport,
        host,
        guest,
    }
}

/// Two guests, the first with host port 24000 leading to its port 22.
pub async fn two_guests(net: &Net) -> (Wire, Wire) {
    let a = Wire::new(net, net.pools().plan(4, VM_A, Kind::Instance).unwrap()).await;
    let b = Wire::new(net, net.pools().plan(5, VM_B, Kind::Program).unwrap()).await;
    let guests = guests(&a, &b);
    net.apply(&guests).await.unwrap();
    // All of it again, as at every change.
    net.apply(&guests).await.unwrap();
    (a, b)
}

pub fn guests(a: &Wire, b: &Wire) -> [Guest; 2] {
    [
        Guest {
            plan: a.plan.clone(),
            forwards: vec![
                port(Transport::Udp, 24000, 22),
                port(Transport::Tcp, 24000, 22),
            ],
            secluded: false,
        },
        Guest {
            plan: b.plan.clone(),
            forwards: vec![port(Transport::Udp, 24001, 22)],
            secluded: false,
        },
    ]
}
