//! Static addresses by rtnetlink(7): a plan of requests, then one socket that sends them one by one.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crn_protocol::guest::Network;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::error::{Context, Error, Result};

/// The only NIC a guest has.
const INTERFACE: &str = "eth0";

/// One request, and what it is for.
#[derive(Debug)]
pub struct Step {
    what: String,
    message: RouteNetlinkMessage,
    flags: u16,
}

/// Brings up the loopback interface and, with a network, eth0 with its addresses and default routes.
///
/// # Errors
/// A missing interface, or the kernel's answer to a request.
pub fn configure(network: Option<&Network>) -> Result<()> {
    let mut steps = vec![link_up("lo", index_of("lo")?, None)];
    if let Some(network) = network {
        quiet_ipv6();
        steps.extend(plan(index_of(INTERFACE)?, network)?);
    }
    let mut socket = Socket::open().context(|| "open a netlink socket".to_owned())?;
    steps.into_iter().try_for_each(|step| socket.request(step))
}

/// Gives eth0 another network than it has.
///
/// # Errors
/// As [`configure`].
pub fn replace(old: Option<&Network>, new: Option<&Network>) -> Result<()> {
    let mut steps = Vec::new();
    if let Some(old) = old {
        steps = forget(index_of(INTERFACE)?, old);
    }
    if let Some(new) = new {
        quiet_ipv6();
        steps.extend(plan(index_of(INTERFACE)?, new)?);
    }
    let mut socket = Socket::open().context(|| "open a netlink socket".to_owned())?;
    steps.into_iter().try_for_each(|step| socket.request(step))
}

/// What undoes a plan: an interface that is down has no routes, no neighbours, and of its addresses only those of IPv4.
fn forget(index: u32, network: &Network) -> Vec<Step> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.change_mask = LinkFlags::Up;
    let mut steps = vec![Step {
        what: format!("take down {INTERFACE}"),
        message: RouteNetlinkMessage::SetLink(message),
        flags: 0,
    }];
    steps.extend(network.ipv4.map(|(address, prefix, _)| Step {
        what: format!("remove the address {address}/{prefix}"),
        message: RouteNetlinkMessage::DelAddress(address_message(index, address.into(), prefix)),
        flags: 0,
    }));
    steps
}

/// What eth0 needs, in order.
///
/// # Errors
/// [`Error::Refused`] for a prefix longer than an address.
pub fn plan(index: u32, network: &Network) -> Result<Vec<Step>> {
    let mut steps = vec![link_up(INTERFACE, index, Some(network.mtu.into()))];
    if let Some((address, prefix, gateway)) = network.ipv4 {
        steps.extend(family(index, address.into(), prefix, gateway.into())?);
    }
    if let Some((address, prefix, gateway)) = network.ipv6 {
        steps.extend(family(index, address.into(), prefix, gateway.into())?);
    }
    Ok(steps)
}

/// An address and the default route through its gateway.
fn family(index: u32, address: IpAddr, prefix: u8, gateway: IpAddr) -> Result<[Step; 2]> {
    if prefix > if address.is_ipv4() { 32 } else { 128 } {
        return Err(Error::Refused(format!(
            "the prefix of {address}/{prefix} is longer than the address"
        )));
    }
    Ok([
        add_address(index, address, prefix),
        add_default_route(index, gateway, contains(address, prefix, gateway)),
    ])
}

fn link_up(name: &str, index: u32, mtu: Option<u32>) -> Step {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    Step {
        what: format!("bring up {name}"),
        message: RouteNetlinkMessage::SetLink(message),
        flags: 0,
    }
}

fn add_address(index: u32, address: IpAddr, prefix: u8) -> Step {
    Step {
        what: format!("add the address {address}/{prefix}"),
        message: RouteNetlinkMessage::NewAddress(address_message(index, address, prefix)),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(address);
    message.header.prefix_len = prefix;
    message.header.index = index;
    // The host gave out the address: nobody else has it, so there is no second to wait for duplicates.
    message.header.flags = AddressHeaderFlags::Nodad;
    message.attributes.extend([
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
    ]);
    message
}

fn add_default_route(index: u32, gateway: IpAddr, gateway_on_link: bool) -> Step {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(gateway);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    if !gateway_on_link {
        // A gateway outside the prefix (a /128, say) is on the link all the same.
        message.header.flags = RouteFlags::Onlink;
    }
    message.attributes.extend([
        RouteAttribute::Gateway(match gateway {
            IpAddr::V4(gateway) => RouteAddress::Inet(gateway),
            IpAddr::V6(gateway) => RouteAddress::Inet6(gateway),
        }),
        RouteAttribute::Oif(index),
    ]);
    Step {
        what: format!("add the default route through {gateway}"),
        message: RouteNetlinkMessage::NewRoute(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

const fn family_of(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// Whether `other` lies in `address/prefix`; a prefix of 0 holds every address of the family.
fn contains(address: IpAddr, prefix: u8, other: IpAddr) -> bool {
    match (address, other) {
        (IpAddr::V4(address), IpAddr::V4(other)) => {
            let mask = u32::MAX
                .checked_shl(Ipv4Addr::BITS - u32::from(prefix))
                .unwrap_or(0);
            (address.to_bits() ^ other.to_bits()) & mask == 0
        }
        (IpAddr::V6(address), IpAddr::V6(other)) => {
            let mask = u128::MAX
                .checked_shl(Ipv6Addr::BITS - u32::from(prefix))
                .unwrap_or(0);
            (address.to_bits() ^ other.to_bits()) & mask == 0
        }
        _ => false,
    }
}

fn index_of(interface: &str) -> Result<u32> {
    let path = format!("/sys/class/net/{interface}/ifindex");
    let text = fs::read_to_string(&path).context(|| format!("find the interface {interface}"))?;
    text.trim()
        .parse()
        .map_err(|_| Error::Refused(format!("{path} is not a number: {text:?}")))
}

/// All addresses are static: no router advertisement is to change them, and no duplicate is to be looked for on the
/// link-local address either. A kernel without IPv6 has none of the two files.
fn quiet_ipv6() {
    for (setting, value) in [("accept_ra", "0"), ("accept_dad", "0")] {
        let _ = fs::write(
            format!("/proc/sys/net/ipv6/conf/{INTERFACE}/{setting}"),
            value,
        );
    }
}

/// A rtnetlink socket that waits for each request's acknowledgement.
struct Socket {
    descriptor: std::os::fd::OwnedFd,
    sequence: u32,
}

impl Socket {
    fn open() -> io::Result<Self> {
        let descriptor = rustix::net::socket_with(
            rustix::net::AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is protocol 0.
            None,
        )?;
        rustix::net::bind(&descriptor, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self {
            descriptor,
            sequence: 0,
        })
    }

    fn request(&mut self, step: Step) -> Result<()> {
        self.sequence += 1;
        let request = encode(step.message, step.flags, self.sequence);
        self.exchange(&request).context(|| step.what)
    }

    fn exchange(&self, request: &[u8]) -> io::Result<()> {
        rustix::net::sendto(
            &self.descriptor,
            request,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        let mut answer = [0; 8192];
        loop {
            let (got, _) = rustix::net::recv(&self.descriptor, &mut answer, RecvFlags::empty())?;
            if let Some(result) = acknowledgement(&answer[..got], self.sequence) {
                return result;
            }
        }
    }
}

fn encode(message: RouteNetlinkMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// The result of the request with this sequence number, when the packet holds it: a `struct nlmsghdr` of type
/// NLMSG_ERROR followed by 0 or a negated errno (linux/netlink.h).
fn acknowledgement(packet: &[u8], sequence: u32) -> Option<io::Result<()>> {
    const NLMSG_ERROR: u16 = 2;
    let field = |at: usize| {
        packet
            .get(at..at + 4)?
            .try_into()
            .ok()
            .map(u32::from_ne_bytes)
    };
    let kind = packet.get(4..6)?.try_into().ok().map(u16::from_ne_bytes)?;
    if kind != NLMSG_ERROR || field(8)? != sequence {
        return None;
    }
    let code = field(16)?.cast_signed();
    Some(if code == 0 {
        Ok(())
    } else {
        Err(Errno::from_raw_os_error(code.wrapping_neg()).into())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network() -> Network {
        Network {
            ipv4: Some((
                "172.16.5.2".parse().unwrap(),
                24,
                "172.16.5.1".parse().unwrap(),
            )),
            ipv6: Some((
                "fec0::5:2".parse().unwrap(),
                128,
                "fec0::5:1".parse().unwrap(),
            )),
            dns: vec![],
            mtu: 1400,
        }
    }

    #[test]
    fn a_network_becomes_link_addresses_and_routes_in_order() {
        let what: Vec<String> = plan(2, &network())
            .unwrap()
            .into_iter()
            .map(|step| step.what)
            .collect();
        assert_eq!(
            what,
            [
                "bring up eth0",
                "add the address 172.16.5.2/24",
                "add the default route through 172.16.5.1",
                "add the address fec0::5:2/128",
                "add the default route through fec0::5:1",
            ]
        );
    }

    #[test]
    fn a_network_is_forgotten_with_its_link_and_its_ipv4_address() {
        let steps = forget(2, &network());
        assert_eq!(steps[1].what, "remove the address 172.16.5.2/24");
        let requests: Vec<_> = steps
            .into_iter()
            .map(|step| encode(step.message, step.flags, 1))
            .collect();
        // RTM_SETLINK, then struct ifinfomsg: index 2, no flag of mask IFF_UP.
        assert_eq!(requests[0][4..6], 19u16.to_ne_bytes());
        assert_eq!(
            requests[0][16..],
            [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
        );
        // RTM_DELADDR, then struct ifaddrmsg: AF_INET, /24, IFA_F_NODAD, universe, index 2.
        assert_eq!(requests[1][4..6], 21u16.to_ne_bytes());
        assert_eq!(requests[1][16..24], [2, 24, 2, 0, 2, 0, 0, 0]);
        assert_eq!(requests.len(), 2);
    }

    #[test]
    fn a_link_request_has_the_kernels_bytes() {
        let bytes = encode(link_up("eth0", 2, Some(1400)).message, 0, 7);
        #[rustfmt::skip]
        let expected: &[u8] = &[
            40, 0, 0, 0, 19, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0, // RTM_SETLINK, REQUEST | ACK, sequence 7
            0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0,   // index 2, IFF_UP of mask IFF_UP
            8, 0, 4, 0, 0x78, 0x05, 0, 0,                     // IFLA_MTU 1400
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn an_address_request_asks_for_no_duplicate_detection() {
        let bytes = encode(
            add_address(2, "172.16.5.2".parse().unwrap(), 24).message,
            NLM_F_CREATE,
            1,
        );
        assert_eq!(bytes[4..6], 20u16.to_ne_bytes());
        // struct ifaddrmsg: AF_INET, /24, IFA_F_NODAD, universe, index 2.
        assert_eq!(bytes[16..24], [2, 24, 2, 0, 2, 0, 0, 0]);
    }

    #[test]
    fn a_gateway_outside_the_prefix_is_declared_on_link() {
        let steps = plan(2, &network()).unwrap();
        let flags: Vec<RouteFlags> = steps
            .iter()
            .filter_map(|step| match &step.message {
                RouteNetlinkMessage::NewRoute(route) => Some(route.header.flags),
                _ => None,
            })
            .collect();
        assert_eq!(flags, [RouteFlags::empty(), RouteFlags::Onlink]);
    }

    #[test]
    fn an_impossible_prefix_is_refused() {
        let mut network = network();
        network.ipv4 = Some((Ipv4Addr::LOCALHOST, 33, Ipv4Addr::LOCALHOST));
        assert!(plan(2, &network).is_err());
    }

    #[test]
    fn an_error_answer_is_the_kernels_errno() {
        let mut packet = vec![36, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
        packet.extend((-17i32).to_ne_bytes());
        let error = acknowledgement(&packet, 9).unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(acknowledgement(&packet, 8).is_none());
    }

    proptest! {
        #[test]
        fn any_packet_is_survived(packet in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = acknowledgement(&packet, 1);
        }

        #[test]
        fn an_address_lies_in_its_own_prefix(address in any::<u32>(), prefix in 0u8..=32) {
            let address = IpAddr::V4(Ipv4Addr::from_bits(address));
            prop_assert!(contains(address, prefix, address));
        }
    }
}
