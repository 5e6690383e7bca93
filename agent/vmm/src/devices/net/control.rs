//! The control queue (virtio 1.3, section 5.1.6.5): which commands there are, and which are refused.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, VIRTIO_NET_CTRL_MQ,
    VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_MQ,
};

use super::offload;
use crate::virtio::Segments;
use crate::virtio::buffers::read_array;

/// What a driver asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Use so many queue pairs.
    Pairs(u16),
    /// Leave undone, in what the guest receives, these of the agreed offloads.
    Offloads(u64),
}

/// Parses a command; `None` for what is unknown, was not agreed or is out of bounds: the answer is an error.
#[must_use]
pub fn parse(command: &mut Segments<'_>, agreed: u64, pairs: u16) -> Option<Command> {
    let [class, code] = read_array(command)?;
    match (u32::from(class), u32::from(code)) {
        (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET)
            if agreed & 1 << VIRTIO_NET_F_MQ != 0 =>
        {
            let count = u16::from_le_bytes(read_array(command)?);
            (1..=pairs)
                .contains(&count)
                .then_some(Command::Pairs(count))
        }
        (VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET)
            if agreed & 1 << VIRTIO_NET_F_CTRL_GUEST_OFFLOADS != 0 =>
        {
            let offloads = u64::from_le_bytes(read_array(command)?);
            (offloads & !(agreed & offload::GUEST) == 0).then_some(Command::Offloads(offloads))
        }
        _ => None,
    }
}
