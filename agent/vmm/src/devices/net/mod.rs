//! virtio-net over the queues of a TAP device, one for each queue pair.
//!
//! Packets carry the 12-byte virtio header on both sides, so checksums and segmentation that the guest and the host
//! agreed to leave undone ([`offload`]) stay undone. [`receive`] and [`send`] are the two halves of a pair,
//! [`control`] is what the driver may change while the device runs.

mod control;
mod gather;
mod offload;
pub mod receive;
pub mod send;
#[allow(unsafe_code, reason = "TAP ioctls")]
mod tap;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use crn_protocol::devices::{DeviceCounters, NewLimits, NicCounters, NicLimits};
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_ERR, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_OK,
};

pub use tap::{Tap, TapError};

use self::control::Command;
use self::receive::Receiver;
use self::send::Sender;
use super::limiter::{Limiter, Wait};
use super::{COMMON_FEATURES, Context, Device, progress_of};
use crate::memory::Ram;
use crate::poller::Readiness;
use crate::virtio::{Buffers, DeviceFault, LiveQueue, Offer, Progress, Queues};

/// struct virtio_net_hdr_v1.
const HEADER: usize = 12;
/// Offset of `num_buffers` in it.
const NUM_BUFFERS: usize = 10;
/// The longest packet: a segmentation unit of 64 KiB with its Ethernet header.
const MAX_PACKET: usize = HEADER + 14 + 65_536;
const QUEUE_SIZE: u16 = 256;
const CONTROL_QUEUE_SIZE: u16 = 64;

/// A TAP queue with its queues to the guest.
#[derive(Debug)]
struct Pair {
    tap: Tap,
    receiver: Receiver,
    sender: Sender,
}

/// The device.
#[derive(Debug)]
pub struct Net {
    pairs: Vec<Pair>,
    control: Option<LiveQueue>,
    /// The control queue's place: behind all pairs, or behind the first when the driver wants no more.
    control_index: usize,
    agreed: u64,
    /// What the driver has asked for last.
    offloads: u64,
    pairs_in_use: usize,
    /// What the driver had asked for of which this one is a copy, until the activation.
    before: Option<(u64, usize)>,
    receive_limiter: Limiter,
    send_limiter: Limiter,
    counters: NicCounters,
}

impl Net {
    /// A NIC over the queues of a TAP, and what it offers.
    ///
    /// # Errors
    /// [`TapError`] when a descriptor is no TAP's with a virtio header.
    pub fn new(
        taps: Vec<OwnedFd>,
        mac: [u8; 6],
        mtu: u16,
        limits: &NicLimits,
    ) -> Result<(Self, Offer), TapError> {
        let several = taps.len() > 1;
        let taps = taps
            .into_iter()
            .map(|tap| Tap::new(tap, several))
            .collect::<Result<Vec<_>, _>>()?;
        let offloads = taps.first().map_or(0, Tap::offloads);
        let mut features = [
            VIRTIO_NET_F_MAC,
            VIRTIO_NET_F_MTU,
            VIRTIO_NET_F_MRG_RXBUF,
            VIRTIO_NET_F_CTRL_VQ,
            VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
        ]
        .iter()
        .fold(COMMON_FEATURES, |features, bit| features | 1 << bit)
            | offload::features(offloads);
        if several {
            features |= 1 << VIRTIO_NET_F_MQ;
        }
        let mut queue_sizes = vec![QUEUE_SIZE; 2 * taps.len()];
        queue_sizes.push(CONTROL_QUEUE_SIZE);
        let offer = Offer {
            device_id: VIRTIO_ID_NET,
            features,
            queue_sizes,
            config: config(mac, taps.len() as u16, mtu).into(),
        };
        let now = Instant::now();
        let pair = |tap| Pair {
            tap,
            receiver: Receiver::default(),
            sender: Sender::default(),
        };
        let mut net = Self {
            pairs: taps.into_iter().map(pair).collect(),
            control: None,
            control_index: 0,
            agreed: 0,
            offloads: 0,
            pairs_in_use: 1,
            before: None,
            receive_limiter: Limiter::new(&limits.receive, now),
            send_limiter: Limiter::new(&limits.send, now),
            counters: NicCounters::default(),
        };
        net.use_pairs(1);
        Ok((net, offer))
    }

    /// Takes the TAP queues of unused pairs out of the host's choice.
    fn use_pairs(&mut self, count: usize) {
        self.pairs_in_use = count;
        if self.pairs.len() > 1 {
            for (index, pair) in self.pairs.iter().enumerate() {
                pair.tap.attach(index < count);
            }
        }
    }

    fn receive(&mut self, index: usize, ram: &Ram, now: Instant) -> Result<(), DeviceFault> {
        let Some(pair) = self.pairs.get_mut(index) else {
            return Ok(());
        };
        let (limiter, counters) = (&mut self.receive_limiter, &mut self.counters);
        pair.receiver
            .receive(&pair.tap, ram, limiter, counters, now)
    }

    fn send(&mut self, index: usize, ram: &Ram, now: Instant) -> Result<(), DeviceFault> {
        let Some(pair) = self.pairs.get_mut(index) else {
            return Ok(());
        };
        let (limiter, counters) = (&mut self.send_limiter, &mut self.counters);
        pair.sender.send(&pair.tap, ram, limiter, counters, now)
    }

    fn all(&mut self, ram: &Ram, now: Instant) -> Result<(), DeviceFault> {
        for index in 0..self.pairs.len() {
            self.send(index, ram, now)?;
            self.receive(index, ram, now)?;
        }
        Ok(())
    }

    fn commands(&mut self, ram: &Ram) -> Result<(), DeviceFault> {
        let Some(mut queue) = self.control.take() else {
            return Ok(());
        };
        let result = queue.drain(ram, |chain| {
            let Ok(mut buffers) = Buffers::of(chain, ram) else {
                return Ok(0);
            };
            let pairs = self.pairs.len() as u16;
            let command = control::parse(&mut buffers.readable, self.agreed, pairs);
            let done = match command {
                Some(Command::Pairs(count)) => {
                    self.use_pairs(usize::from(count));
                    true
                }
                Some(Command::Offloads(offloads)) => self.set_offloads(offloads).is_ok(),
                None => false,
            };
            let answer = if done { VIRTIO_NET_OK } else { VIRTIO_NET_ERR };
            Ok(buffers.writable.write(&[answer as u8]) as u32)
        });
        self.control = Some(queue);
        result
    }

    fn set_offloads(&mut self, agreed: u64) -> io::Result<()> {
        self.offloads = agreed;
        match self.pairs.first() {
            Some(pair) => pair.tap.set_offloads(offload::flags(agreed)),
            None => Ok(()),
        }
    }
}

/// struct virtio_net_config (virtio 1.3, section 5.1.4) up to mtu.
fn config(mac: [u8; 6], pairs: u16, mtu: u16) -> Vec<u8> {
    let mut config = vec![0; 12];
    config[..6].copy_from_slice(&mac);
    config[8..10].copy_from_slice(&pairs.to_le_bytes());
    config[10..].copy_from_slice(&mtu.to_le_bytes());
    config
}

impl Device for Net {
    fn start(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        for (index, pair) in self.pairs.iter().enumerate() {
            context.poller.add(&pair.tap, context.token(index as u32))?;
        }
        Ok(())
    }

    fn activate(
        &mut self,
        features: u64,
        mut queues: Queues,
        context: &mut Context<'_>,
    ) -> Result<(), DeviceFault> {
        let agreed = |bit: u32| features & 1 << bit != 0;
        self.agreed = features;
        match self.before.take() {
            None => self.set_offloads(features)?,
            Some((offloads, pairs)) => {
                self.set_offloads(offloads & features)?;
                self.use_pairs(pairs.clamp(1, self.pairs.len()));
            }
        }
        let mergeable = agreed(VIRTIO_NET_F_MRG_RXBUF);
        let pairs = if agreed(VIRTIO_NET_F_MQ) {
            self.pairs.len()
        } else {
            1
        };
        self.control_index = 2 * pairs;
        self.control = queues.take(self.control_index);
        for (index, pair) in self.pairs.iter_mut().enumerate().take(pairs) {
            let (rx, tx) = if index == 0 {
                (Some(queues.require(0)?), Some(queues.require(1)?))
            } else {
                (queues.take(2 * index), queues.take(2 * index + 1))
            };
            pair.receiver.set_queue(rx, mergeable);
            pair.sender.set_queue(tx);
        }
        self.commands(context.ram)?;
        self.all(context.ram, Instant::now())
    }

    fn reset(&mut self) {
        self.control = None;
        for pair in &mut self.pairs {
            pair.receiver.set_queue(None, false);
            pair.sender.set_queue(None);
        }
        self.use_pairs(1);
    }

    fn queue_ready(&mut self, queue: usize, context: &mut Context<'_>) -> Result<(), DeviceFault> {
        if queue == self.control_index {
            self.commands(context.ram)
        } else if queue.is_multiple_of(2) {
            self.receive(queue / 2, context.ram, Instant::now())
        } else {
            self.send(queue / 2, context.ram, Instant::now())
        }
    }

    fn io_ready(
        &mut self,
        id: u32,
        ready: Readiness,
        context: &mut Context<'_>,
    ) -> Result<(), DeviceFault> {
        if ready.readable
            && let Some(pair) = self.pairs.get_mut(id as usize)
        {
            pair.receiver.readable();
            return self.receive(id as usize, context.ram, Instant::now());
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        self.pairs
            .iter()
            .flat_map(|pair| [pair.receiver.wait, pair.sender.wait])
            .filter_map(Wait::until)
            .min()
    }

    fn deadline_passed(
        &mut self,
        now: Instant,
        context: &mut Context<'_>,
    ) -> Result<(), DeviceFault> {
        self.all(context.ram, now)
    }

    fn progress(&self) -> Vec<(u16, Progress)> {
        let pairs = self.pairs.iter().enumerate().flat_map(|(index, pair)| {
            [
                (2 * index, pair.receiver.queue()),
                (2 * index + 1, pair.sender.queue()),
            ]
        });
        progress_of(pairs.chain([(self.control_index, self.control.as_ref())]))
    }

    /// What the driver has asked for last: offloads, pairs.
    fn save(&self) -> Vec<u64> {
        vec![self.offloads, self.pairs_in_use as u64]
    }

    fn restore(&mut self, saved: &[u64]) {
        if let [offloads, pairs] = saved {
            self.before = Some((*offloads, *pairs as usize));
        }
    }

    fn counters(&self) -> DeviceCounters {
        DeviceCounters::Nic(self.counters)
    }

    fn set_limits(
        &mut self,
        limits: &NewLimits,
        context: &mut Context<'_>,
    ) -> Result<bool, DeviceFault> {
        let NewLimits::Nic(limits) = limits else {
            return Ok(false);
        };
        let now = Instant::now();
        self.receive_limiter = Limiter::new(&limits.receive, now);
        self.send_limiter = Limiter::new(&limits.send, now);
        // What waits asks the new limits.
        for pair in &mut self.pairs {
            pair.receiver.wait.hurry(now);
            pair.sender.wait.hurry(now);
        }
        self.all(context.ram, now)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
