//! Notices when somebody else changes this node's rules: the kernel tells every change of nftables, and which process
//! made it, over netlink (`linux/netfilter/nf_tables.h`). A thread of its own waits for that.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with, sockopt,
};
use tokio::sync::Notify;

use super::firewall::TABLES;
use super::nft::Nft;

/// The bit of `NFNLGRP_NFTABLES` (7) in an address.
const GROUP: u32 = 1 << 6;
/// `NFNL_SUBSYS_NFTABLES`, in a message type's upper byte.
const NFTABLES: u16 = 10 << 8;
/// `NFT_MSG_NEWGEN`: a transaction is done.
const NEW_GENERATION: u16 = NFTABLES | 15;
/// `NFTA_GEN_PROC_PID`.
const PROCESS: u16 = 2;
/// `NFTA_TABLE_NAME`, and by the same number the name of its table in a chain, a rule, a set, its elements, an object.
const TABLE: u16 = 1;
/// `NLA_TYPE_MASK`.
const ATTRIBUTE: u16 = 0x3fff;
/// Lengths of `struct nlmsghdr`, with `struct nfgenmsg` behind it, and of `struct nlattr`.
const HEADER: usize = 16;
const GENERIC: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;
/// Bytes the kernel may keep for us: a transaction of its own for thousands of machines.
const RECEIVE_BUFFER: usize = 4 << 20;
/// A message is at most this long: `NLMSG_GOODSIZE`, and the kernel's own bound for one that is not.
const DATAGRAM: usize = 64 * 1024;
/// Before a socket that failed is opened again.
const REOPEN: Duration = Duration::from_secs(1);

/// The kernel's notifications.
pub struct Monitor {
    socket: OwnedFd,
    /// The transaction that is being told has touched this node's tables.
    touched: bool,
}

/// What one notification says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notice {
    /// Something in this node's tables was made, changed or removed.
    Touched,
    /// A transaction is done, made by this process.
    Done(u32),
}

impl Monitor {
    /// Listens from now on.
    ///
    /// # Errors
    /// What the socket says.
    pub fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(NETFILTER),
        )?;
        sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUP))?;
        Ok(Self {
            socket,
            touched: false,
        })
    }

    /// Starts the thread that tells `disturbed` of every change of this node's tables that is not `own`, for as long
    /// as somebody else holds it.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn watch(self, own: Arc<Nft>, disturbed: &Arc<Notify>) -> io::Result<()> {
        let disturbed = Arc::downgrade(disturbed);
        let thread = std::thread::Builder::new().name("nft-monitor".to_owned());
        thread.spawn(move || self.tell(&own, &disturbed)).map(drop)
    }

    fn tell(mut self, own: &Nft, disturbed: &Weak<Notify>) {
        loop {
            if let Err(error) = self.next(own) {
                tracing::warn!("nobody watches over the firewall: {error}");
                self = loop {
                    std::thread::sleep(REOPEN);
                    match Self::open() {
                        Ok(monitor) => break monitor,
                        Err(error) => tracing::debug!("no netlink socket: {error}"),
                    }
                };
                // What happened in between is not known.
            }
            let Some(disturbed) = disturbed.upgrade() else {
                return;
            };
            disturbed.notify_one();
        }
    }

    /// Returns when a transaction that is not `own` has touched this node's tables, or one may have.
    fn next(&mut self, own: &Nft) -> io::Result<()> {
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let length = match recv(&self.socket, &mut buffer, RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(Errno::INTR) => continue,
                // Somebody was faster than we read.
                Err(Errno::NOBUFS) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let mut foreign = false;
            for notice in read(&buffer[..length]) {
                match notice {
                    Notice::Touched => self.touched = true,
                    Notice::Done(process) => {
                        foreign |= std::mem::take(&mut self.touched) && !own.is_own(process);
                    }
                }
            }
            if foreign {
                return Ok(());
            }
        }
    }
}

/// The notifications in a datagram. What is cut short ends it.
fn read(mut datagram: &[u8]) -> Vec<Notice> {
    let mut notices = Vec::new();
    while let Some((kind, message, rest)) = message(datagram) {
        if kind & 0xff00 == NFTABLES {
            let attributes = message.get(HEADER + GENERIC..).unwrap_or_default();
            if kind == NEW_GENERATION {
                let process = attribute(attributes, PROCESS)
                    .and_then(|value| Some(u32::from_be_bytes(value.try_into().ok()?)));
                // One that does not tell who made it is taken for a stranger's: 0 is nobody's process.
                notices.push(Notice::Done(process.unwrap_or(0)));
            } else if attribute(attributes, TABLE).is_some_and(is_ours) {
                notices.push(Notice::Touched);
            }
        }
        datagram = rest;
    }
    notices
}

fn is_ours(name: &[u8]) -> bool {
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    TABLES.iter().any(|table| table.as_bytes() == name)
}

/// The first message's type, the message, and what comes after it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let length = usize::try_from(length).ok().filter(|l| *l >= HEADER)?;
    let message = bytes.get(..length)?;
    Some((kind, message, after(bytes, length)))
}

fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let length = usize::from(length);
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        if kind & ATTRIBUTE == wanted {
            return Some(value);
        }
        bytes = after(bytes, length);
    }
}

/// Everything is padded to four bytes, but for the last.
fn after(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(length.next_multiple_of(4)..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute_bytes(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + ATTRIBUTE_HEADER).unwrap();
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message_bytes(kind: u16, attributes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + GENERIC + attributes.len()).unwrap();
        [
            &length.to_ne_bytes()[..],
            &kind.to_ne_bytes(),
            &[0; 10],
            &[1, 0, 0, 0],
            attributes,
        ]
        .concat()
    }

    #[test]
    fn a_change_of_our_tables_and_who_made_it_are_read() {
        let bytes = [
            message_bytes(NFTABLES | 2, &attribute_bytes(TABLE, b"filter\0")),
            message_bytes(NFTABLES | 2, &attribute_bytes(TABLE, b"crn\0")),
            message_bytes(NFTABLES | 7, &attribute_bytes(TABLE, b"crn-limits\0")),
            message_bytes(1, &attribute_bytes(TABLE, b"crn\0")),
            message_bytes(
                NEW_GENERATION,
                &[
                    attribute_bytes(1, &7u32.to_be_bytes()),
                    attribute_bytes(PROCESS, &4321u32.to_be_bytes()),
                ]
                .concat(),
            ),
        ]
        .concat();
        assert_eq!(
            read(&bytes),
            [Notice::Touched, Notice::Touched, Notice::Done(4321)]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            prop_assert!(read(&bytes).len() <= bytes.len() / HEADER);
        }

        #[test]
        fn a_datagram_cut_short_tells_no_more_than_the_whole(cut in 0usize..80) {
            let whole = message_bytes(NFTABLES | 2, &attribute_bytes(TABLE, b"crn\0")).repeat(2);
            let cut = cut.min(whole.len());
            prop_assert!(read(&whole).starts_with(&read(&whole[..cut])));
        }
    }
}
