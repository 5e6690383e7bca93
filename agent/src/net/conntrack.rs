//! Forgets the connections of an address: what the kernel tracks outlives a machine by minutes, and its address goes to
//! the next one. Said over netlink (`linux/netfilter/nfnetlink_conntrack.h`).

use std::io;
use std::net::IpAddr;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

/// `NFNL_SUBSYS_CTNETLINK` in the upper byte, `IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = 1 << 8 | 2;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST: u16 = 1 | 4;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
/// `CTA_TUPLE_ORIG` and `CTA_TUPLE_REPLY`, and by the same numbers `CTA_FILTER_ORIG_FLAGS`, `CTA_FILTER_REPLY_FLAGS`.
const DIRECTIONS: [u16; 2] = [1, 2];
/// `CTA_TUPLE_IP`.
const TUPLE_IP: u16 = 1;
/// `CTA_IP_V4_SRC`, `CTA_IP_V6_SRC`.
const SOURCE: (u16, u16) = (1, 3);
/// `CTA_FILTER`.
const FILTER: u16 = 25;
/// `CTA_FILTER_F_CTA_IP_SRC` of `net/netfilter/nf_internals.h`: only the source is compared.
const BY_SOURCE: u32 = 1;
/// Length of `struct nlmsghdr`; the errno comes behind it.
const HEADER: usize = 16;

/// Drops every tracked connection that `address` began or answers. Blocks for as long as the kernel walks its table.
///
/// # Errors
/// What the socket or the kernel says.
pub fn forget(address: IpAddr) -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(NETFILTER),
    )?;
    // Who answers is the source of the replies: that holds when its address is hidden behind the host's, too.
    for direction in DIRECTIONS {
        let request = request(address, direction);
        sendto(
            &socket,
            &request,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        let mut answer = [0; 256];
        let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
        outcome(&answer[..length.min(answer.len())])?;
    }
    Ok(())
}

fn request(address: IpAddr, direction: u16) -> Vec<u8> {
    let (family, source) = match address {
        IpAddr::V4(v4) => (AddressFamily::INET, attribute(SOURCE.0, &v4.octets())),
        IpAddr::V6(v6) => (AddressFamily::INET6, attribute(SOURCE.1, &v6.octets())),
    };
    let tuple = attribute(direction | NESTED, &attribute(TUPLE_IP | NESTED, &source));
    let flags = attribute(direction, &BY_SOURCE.to_ne_bytes());
    let filter = attribute(FILTER | NESTED, &flags);
    let family = family.as_raw().to_le_bytes()[0];
    // `struct nfgenmsg`: family, version 0, resource 0.
    let body = [&[family, 0, 0, 0][..], &tuple, &filter].concat();
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    [
        &length.to_ne_bytes()[..],
        &DELETE.to_ne_bytes(),
        &REQUEST.to_ne_bytes(),
        // Sequence and port: there is one question at a time, and the kernel is asked.
        &[0; 8],
        &body,
    ]
    .concat()
}

/// One `struct nlattr`, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// What an acknowledgement says; that there was no such connection is no failure.
fn outcome(answer: &[u8]) -> io::Result<()> {
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let kind = answer.get(4..6).ok_or_else(cut)?;
    let code = answer.get(HEADER..HEADER + 4).ok_or_else(cut)?;
    if u16::from_ne_bytes([kind[0], kind[1]]) != ERROR {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
        0 => Ok(()),
        code if code.wrapping_neg() == Errno::NOENT.raw_os_error() => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_names_one_family_one_direction_and_one_source() {
        let request = request("172.16.4.2".parse().unwrap(), 2);
        let expected = [
            &[48, 0, 0, 0][..],
            &[2, 1, 5, 0],
            &[0; 8],
            &[2, 0, 0, 0],
            // The tuple, its addresses, the source.
            &[16, 0, 2, 128, 12, 0, 1, 128, 8, 0, 1, 0, 172, 16, 4, 2],
            // The filter, its flags.
            &[12, 0, 25, 128, 8, 0, 2, 0, 1, 0, 0, 0],
        ];
        assert_eq!(request, expected.concat());
    }

    proptest! {
        #[test]
        fn any_answer_is_read_to_an_end(answer in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = outcome(&answer);
        }

        #[test]
        fn an_error_is_the_kernels_own(code in 3i32..4000) {
            let answer = [&[20, 0, 0, 0, 2, 0][..], &[0; 10], &(-code).to_ne_bytes()].concat();
            prop_assert_eq!(outcome(&answer).unwrap_err().raw_os_error(), Some(code));
        }
    }
}
