//! From the guest to a TAP queue.

use std::io;
use std::time::Instant;

use crn_protocol::devices::NicCounters;
use vm_memory::VolatileSlice;

use super::{HEADER, MAX_PACKET};
use crate::devices::limiter::{Limiter, Wait};
use crate::memory::Ram;
use crate::virtio::queue::Served;
use crate::virtio::{Buffers, DeviceFault, LiveQueue};

/// Where packets go.
pub trait Sink {
    /// Hands one packet over, header included.
    ///
    /// # Errors
    /// The packet is lost.
    fn write(&self, packet: &[VolatileSlice<'_>]) -> io::Result<usize>;
}

/// The sending half of a queue pair.
#[derive(Debug, Default)]
pub struct Sender {
    queue: Option<LiveQueue>,
    /// Whether the next packet waits for its limits.
    pub wait: Wait,
}

impl Sender {
    /// The driver's queue, if there is one.
    pub const fn queue(&self) -> Option<&LiveQueue> {
        self.queue.as_ref()
    }

    /// A driver has come with its queue, or gone.
    pub fn set_queue(&mut self, queue: Option<LiveQueue>) {
        self.queue = queue;
        self.wait.end();
    }

    /// Sends what is there, as far as the limits allow.
    pub fn send(
        &mut self,
        sink: &impl Sink,
        ram: &Ram,
        limiter: &mut Limiter,
        counters: &mut NicCounters,
        now: Instant,
    ) -> Result<(), DeviceFault> {
        let Some(queue) = &mut self.queue else {
            return Ok(());
        };
        if self.wait.is_early(now) {
            return Ok(());
        }
        self.wait.end();
        let wait = &mut self.wait;
        queue.drain_while(ram, |chain| {
            let packet = match Buffers::of(chain, ram) {
                Ok(packet) if (HEADER + 1..=MAX_PACKET).contains(&packet.readable.len()) => {
                    packet.readable
                }
                _ => {
                    counters.tx_drops += 1;
                    return Ok(Served::Used(0));
                }
            };
            let bytes = (packet.len() - HEADER) as u64;
            if !wait.admits(limiter, bytes, now, &mut counters.tx_throttled) {
                return Ok(Served::Later);
            }
            match sink.write(packet.slices()) {
                Ok(_) => {
                    counters.tx_packets += 1;
                    counters.tx_bytes += bytes;
                }
                Err(_) => counters.tx_drops += 1,
            }
            Ok(Served::Used(0))
        })
    }
}
