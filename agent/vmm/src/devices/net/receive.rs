//! From a TAP queue to the guest.
//!
//! A packet that was read waits here until the guest has buffers for it and its limits allow it; the TAP's own queue
//! holds the ones behind it. Whenever the work stops, something will start it again: an edge from the TAP when it is
//! empty, the driver's ring when it has no buffers, the deadline when the limits are used up, the device's own ring
//! when its turn is over.

use std::io;
use std::time::Instant;

use crn_protocol::devices::NicCounters;
use vm_memory::VolatileSlice;

use super::gather::{Gathered, MAX_MERGED};
use super::{HEADER, MAX_PACKET, NUM_BUFFERS};
use crate::devices::limiter::{Limiter, Wait};
use crate::memory::Ram;
use crate::virtio::buffers::patch;
use crate::virtio::queue::BUDGET;
use crate::virtio::{Buffers, DeviceFault, LiveQueue};

/// A packet of more bytes comes from a stream, and more of its kind will follow.
const LARGE: usize = 4096;

/// Where packets come from.
pub trait Source {
    /// One packet, header included.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is none; an edge follows when there is one again.
    fn read(&self, packet: &mut [u8]) -> io::Result<usize>;

    /// The same, into scattered guest memory.
    ///
    /// # Errors
    /// As [`Source::read`].
    fn scatter(&self, packet: &[VolatileSlice<'_>]) -> io::Result<usize>;
}

/// The receiving half of a queue pair.
#[derive(Debug)]
pub struct Receiver {
    queue: Option<LiveQueue>,
    mergeable: bool,
    /// Whether the source may have packets: set by its edge, cleared when it has none.
    readable: bool,
    packet: Box<[u8; MAX_PACKET]>,
    /// Length of the packet that waits; 0 for none.
    waiting: usize,
    /// Whether the last packet was a large one: the next is then read straight into the guest's buffers.
    large: bool,
    /// Whether it is the limits it waits for.
    pub wait: Wait,
}

enum Delivery {
    Done,
    /// The guest's buffers do not suffice yet; so many have been taken from the ring, which is all there are.
    NoBuffers(u16),
    /// The guest's buffers cannot hold the packet.
    Dropped,
}

impl Default for Receiver {
    fn default() -> Self {
        Self {
            queue: None,
            mergeable: false,
            readable: false,
            packet: Box::new([0; MAX_PACKET]),
            waiting: 0,
            large: false,
            wait: Wait::default(),
        }
    }
}

impl Receiver {
    /// The driver's queue, if there is one.
    pub const fn queue(&self) -> Option<&LiveQueue> {
        self.queue.as_ref()
    }

    /// A driver has come with its queue, or gone.
    pub fn set_queue(&mut self, queue: Option<LiveQueue>, mergeable: bool) {
        self.queue = queue;
        self.mergeable = mergeable;
        self.waiting = 0;
        self.wait.end();
    }

    /// The source has had an edge.
    pub const fn readable(&mut self) {
        self.readable = true;
    }

    /// Moves packets until there are no more, no buffers, or no allowance.
    pub fn receive(
        &mut self,
        source: &impl Source,
        ram: &Ram,
        limiter: &mut Limiter,
        counters: &mut NicCounters,
        now: Instant,
    ) -> Result<(), DeviceFault> {
        let Some(mut queue) = self.queue.take() else {
            return Ok(());
        };
        let result = self.fill(&mut queue, source, ram, limiter, counters, now);
        self.queue = Some(queue);
        result
    }

    fn fill(
        &mut self,
        queue: &mut LiveQueue,
        source: &impl Source,
        ram: &Ram,
        limiter: &mut Limiter,
        counters: &mut NicCounters,
        now: Instant,
    ) -> Result<(), DeviceFault> {
        if self.wait.is_early(now) {
            return Ok(());
        }
        // A packet the limits held back is admitted below, and only there.
        let mut admitted = self.waiting > 0 && self.wait.until().is_none();
        self.wait.end();
        queue.mute(ram)?;
        let mut gathered = Gathered::default();
        let mut starved = false;
        for _ in 0..BUDGET {
            if self.waiting == 0
                && self.large
                && self.readable
                && gathered.fill(queue, ram, self.mergeable)?
            {
                match self.direct(&gathered, source) {
                    None => break,
                    Some(length) if length <= HEADER => {}
                    Some(length) => {
                        let bytes = (length - HEADER) as u64;
                        let throttled = &mut counters.rx_throttled;
                        if !self.wait.admits(limiter, bytes, now, throttled) {
                            gathered.copy_out(&mut self.packet[..length]);
                            self.waiting = length;
                            break;
                        }
                        gathered.used(queue, ram, length)?;
                        counters.rx_packets += 1;
                        counters.rx_bytes += bytes;
                    }
                }
                continue;
            }
            gathered.give_back(queue);
            if self.waiting == 0 {
                admitted = false;
                if !self.read(source) {
                    break;
                }
                if self.waiting == 0 {
                    continue;
                }
            }
            if !admitted {
                let bytes = (self.waiting - HEADER) as u64;
                let throttled = &mut counters.rx_throttled;
                if !self.wait.admits(limiter, bytes, now, throttled) {
                    break;
                }
                admitted = true;
            }
            match deliver(queue, ram, &mut self.packet[..self.waiting], self.mergeable)? {
                Delivery::Done => {
                    counters.rx_packets += 1;
                    counters.rx_bytes += (self.waiting - HEADER) as u64;
                    self.large = self.waiting > LARGE;
                    self.waiting = 0;
                }
                Delivery::Dropped => {
                    counters.rx_drops += 1;
                    self.waiting = 0;
                }
                Delivery::NoBuffers(taken) => {
                    // Behind the ones that are too few: the driver rings when it adds some, and those added until now
                    // are seen here.
                    let more = queue.unmute(ram)?;
                    queue.rewind(taken);
                    if !more {
                        starved = true;
                        break;
                    }
                    queue.mute(ram)?;
                }
            }
        }
        gathered.give_back(queue);
        if !starved && self.wait.until().is_none() && (self.waiting > 0 || self.readable) {
            // The budget is used up, and the rest comes after the others' turn; or there is nothing but to be rung for.
            if queue.unmute(ram)? {
                queue.ring_again();
            }
        }
        queue.signal(ram)
    }

    /// Reads the next packet into `packet`; false when there is none.
    fn read(&mut self, source: &impl Source) -> bool {
        if !self.readable {
            return false;
        }
        match source.read(&mut self.packet[..]) {
            Ok(length) if length > HEADER => self.waiting = length,
            Ok(_) => {}
            Err(error) => self.nothing(&error),
        }
        self.readable
    }

    /// Reads the next packet into the guest's buffers; its length, or `None` when there is none.
    fn direct(&mut self, gathered: &Gathered<'_>, source: &impl Source) -> Option<usize> {
        match source.scatter(gathered.slices()) {
            Ok(length) => {
                self.large = length > LARGE;
                Some(length)
            }
            Err(error) => {
                self.nothing(&error);
                None
            }
        }
    }

    /// Also when the interface is down or gone: nothing comes until the poller says so.
    fn nothing(&mut self, error: &io::Error) {
        if error.kind() != io::ErrorKind::WouldBlock {
            tracing::debug!(%error, "the TAP does not read");
        }
        self.readable = false;
    }
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
            return Ok(Delivery::NoBuffers(used.len() as u16));
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

#[cfg(test)]
mod tests;
