//! virtio-net over one queue of a TAP device.
//!
//! Packets carry the 12-byte virtio header on both sides, so checksums and segmentation that the guest and the host
//! agreed to leave undone stay undone. A received packet waits in the device until the guest has buffers for it;
//! the TAP's own queue holds the ones behind it.

#[allow(unsafe_code, reason = "TAP ioctls")]
mod tap;

use std::io;
use std::os::fd::OwnedFd;

use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_MTU,
};
use vm_memory::VolatileSlice;

pub use tap::{Tap, TapError};

use super::{COMMON_FEATURES, Context, Device, SharedCounters};
use crate::memory::Ram;
use crate::poller::Readiness;
use crate::virtio::buffers::patch;
use crate::virtio::queue::BUDGET;
use crate::virtio::{Buffers, DeviceFault, LiveQueue, Offer, Queues};

/// struct virtio_net_hdr_v1.
const HEADER: usize = 12;
/// Offset of `num_buffers` in it.
const NUM_BUFFERS: usize = 10;
/// The longest packet: a segmentation unit of 64 KiB with its Ethernet header.
const MAX_PACKET: usize = HEADER + 14 + 65_536;
/// Buffers one packet may be spread over.
const MAX_MERGED: usize = 64;

const RX: usize = 0;
const TX: usize = 1;

#[derive(Debug)]
struct Live {
    rx: LiveQueue,
    tx: LiveQueue,
    mergeable: bool,
}

/// The device.
#[derive(Debug)]
pub struct Net {
    tap: Tap,
    counters: SharedCounters,
    live: Option<Live>,
    /// Whether the TAP may have packets: set by the poller, cleared by EAGAIN.
    readable: bool,
    packet: Box<[u8; MAX_PACKET]>,
    /// Length of the packet that waits for buffers; 0 for none.
    waiting: usize,
}

impl Net {
    /// A NIC over a TAP queue, and what it offers.
    ///
    /// # Errors
    /// [`TapError`] when the descriptor is no TAP with a virtio header.
    pub fn new(
        tap: OwnedFd,
        mac: [u8; 6],
        mtu: u16,
        counters: SharedCounters,
    ) -> Result<(Self, Offer), TapError> {
        let tap = Tap::new(tap)?;
        let features = [
            VIRTIO_NET_F_CSUM,
            VIRTIO_NET_F_GUEST_CSUM,
            VIRTIO_NET_F_GUEST_TSO4,
            VIRTIO_NET_F_GUEST_TSO6,
            VIRTIO_NET_F_HOST_TSO4,
            VIRTIO_NET_F_HOST_TSO6,
            VIRTIO_NET_F_MAC,
            VIRTIO_NET_F_MTU,
            VIRTIO_NET_F_MRG_RXBUF,
        ]
        .iter()
        .fold(COMMON_FEATURES, |features, bit| features | 1 << bit);
        let offer = Offer {
            device_id: VIRTIO_ID_NET,
            features,
            queue_sizes: vec![256, 256],
            config: config(mac, mtu).into(),
        };
        let net = Self {
            tap,
            counters,
            live: None,
            readable: false,
            packet: Box::new([0; MAX_PACKET]),
            waiting: 0,
        };
        Ok((net, offer))
    }

    /// Moves packets from the TAP to the guest until one of them has no more.
    fn receive(&mut self, ram: &Ram) -> Result<(), DeviceFault> {
        let Some(live) = &mut self.live else {
            return Ok(());
        };
        live.rx.mute(ram)?;
        for _ in 0..BUDGET {
            if self.waiting == 0 {
                if !self.readable {
                    break;
                }
                match self.tap.read(&mut self.packet[..]) {
                    Ok(length) if length >= HEADER => self.waiting = length,
                    Ok(_) => continue,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.readable = false;
                        break;
                    }
                    // The interface is down or gone: nothing more comes until the poller says so.
                    Err(error) => {
                        tracing::debug!(%error, "the TAP does not read");
                        self.readable = false;
                        break;
                    }
                }
            }
            match deliver(
                &mut live.rx,
                ram,
                &mut self.packet[..self.waiting],
                live.mergeable,
            )? {
                Delivery::Done => {
                    self.counters
                        .net_received
                        .add((self.waiting - HEADER) as u64);
                    self.waiting = 0;
                }
                Delivery::Dropped => self.waiting = 0,
                Delivery::NoBuffers => {
                    // The driver rings when it adds some; those added until now are seen here.
                    if !live.rx.unmute(ram)? {
                        break;
                    }
                    live.rx.mute(ram)?;
                }
            }
        }
        if self.waiting > 0 || self.readable {
            // Either the guest has to ring, or the budget is used up and the rest comes after the others' turn.
            if live.rx.unmute(ram)? {
                live.rx.ring_again();
            }
        }
        live.rx.signal(ram)
    }

    fn transmit(&mut self, ram: &Ram) -> Result<(), DeviceFault> {
        let Some(live) = &mut self.live else {
            return Ok(());
        };
        let (tap, counters) = (&self.tap, &self.counters);
        live.tx.drain(ram, |chain| {
            if let Ok(packet) = Buffers::of(chain, ram)
                && (HEADER..=MAX_PACKET).contains(&packet.readable.len())
                && tap.write(packet.readable.slices()).is_ok()
            {
                counters
                    .net_sent
                    .add((packet.readable.len() - HEADER) as u64);
            }
            Ok(0)
        })
    }
}

enum Delivery {
    Done,
    NoBuffers,
    /// The guest's buffers cannot hold the packet.
    Dropped,
}

/// Copies one packet into the guest's buffers.
fn deliver(
    rx: &mut LiveQueue,
    ram: &Ram,
    packet: &mut [u8],
    mergeable: bool,
) -> Result<Delivery, DeviceFault> {
    let mut used: Vec<(u16, u32)> = Vec::with_capacity(1);
    let mut first: Option<VolatileSlice<'_>> = None;
    let mut at = 0;
    packet[NUM_BUFFERS..HEADER].copy_from_slice(&1u16.to_le_bytes());
    while at < packet.len() {
        let Some(chain) = rx.pop(ram)? else {
            rx.rewind(used.len() as u16);
            return Ok(Delivery::NoBuffers);
        };
        let head = chain.head_index();
        let mut written = 0;
        if let Ok(mut buffers) = Buffers::of(chain, ram) {
            if used.is_empty() {
                first = buffers
                    .writable
                    .slices()
                    .first()
                    .filter(|slice| slice.len() >= HEADER)
                    .copied();
            }
            written = buffers.writable.write(&packet[at..]);
        }
        used.push((head, written as u32));
        at += written;
        let whole = at == packet.len();
        if !whole && (!mergeable || written == 0 || first.is_none() || used.len() == MAX_MERGED) {
            // Not enough room, and no way to go on in the next buffer: what was taken goes back empty.
            for (head, _) in used {
                rx.push_used(ram, head, 0)?;
            }
            return Ok(Delivery::Dropped);
        }
    }
    if used.len() > 1
        && let Some(first) = first
    {
        patch(&first, NUM_BUFFERS, &(used.len() as u16).to_le_bytes());
    }
    for (head, written) in used {
        rx.push_used(ram, head, written)?;
    }
    Ok(Delivery::Done)
}

/// struct virtio_net_config up to mtu.
fn config(mac: [u8; 6], mtu: u16) -> Vec<u8> {
    let mut config = vec![0; 12];
    config[..6].copy_from_slice(&mac);
    config[10..].copy_from_slice(&mtu.to_le_bytes());
    config
}

impl Device for Net {
    fn start(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        context.poller.add(&self.tap, context.token(0))
    }

    fn activate(
        &mut self,
        features: u64,
        mut queues: Queues,
        context: &mut Context<'_>,
    ) -> Result<(), DeviceFault> {
        let agreed = |bit: u32| features & 1 << bit != 0;
        self.tap.set_offloads(
            agreed(VIRTIO_NET_F_GUEST_CSUM),
            agreed(VIRTIO_NET_F_GUEST_TSO4),
            agreed(VIRTIO_NET_F_GUEST_TSO6),
        )?;
        self.live = Some(Live {
            rx: queues.require(RX)?,
            tx: queues.require(TX)?,
            mergeable: agreed(VIRTIO_NET_F_MRG_RXBUF),
        });
        self.transmit(context.ram)?;
        self.receive(context.ram)
    }

    fn reset(&mut self) {
        self.live = None;
        self.waiting = 0;
    }

    fn queue_ready(&mut self, queue: usize, context: &mut Context<'_>) -> Result<(), DeviceFault> {
        match queue {
            RX => self.receive(context.ram),
            TX => self.transmit(context.ram),
            _ => Ok(()),
        }
    }

    fn io_ready(
        &mut self,
        _id: u32,
        ready: Readiness,
        context: &mut Context<'_>,
    ) -> Result<(), DeviceFault> {
        self.readable |= ready.readable;
        self.receive(context.ram)
    }
}
