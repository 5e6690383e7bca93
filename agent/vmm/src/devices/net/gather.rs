//! Guest buffers taken from the ring before the packet is known that they are for: the kernel then copies the packet
//! straight to where the guest wants it. Worth its while when packets are large and many.

use vm_memory::VolatileSlice;

use super::{HEADER, MAX_PACKET, NUM_BUFFERS};
use crate::memory::Ram;
use crate::virtio::buffers::patch;
use crate::virtio::{Buffers, DeviceFault, LiveQueue};

/// Buffers one packet may be spread over.
pub const MAX_MERGED: usize = 64;

/// One chain's share.
#[derive(Debug, Clone, Copy)]
struct Part {
    head: u16,
    slices: usize,
    bytes: usize,
}

/// Room for one packet of any length, in the ring's order.
#[derive(Debug, Default)]
pub struct Gathered<'m> {
    parts: Vec<Part>,
    slices: Vec<VolatileSlice<'m>>,
    bytes: usize,
}

impl<'m> Gathered<'m> {
    /// Takes buffers until the longest packet fits; false when the driver has too few, or ones that need a closer look.
    ///
    /// # Errors
    /// [`DeviceFault::Queue`] when the ring is broken.
    pub fn fill(
        &mut self,
        queue: &mut LiveQueue,
        ram: &'m Ram,
        mergeable: bool,
    ) -> Result<bool, DeviceFault> {
        let most = if mergeable { MAX_MERGED } else { 1 };
        while self.bytes < MAX_PACKET && self.parts.len() < most {
            let Some(chain) = queue.pop(ram)? else {
                break;
            };
            let head = chain.head_index();
            let writable = match Buffers::of(chain, ram) {
                Ok(buffers) if !buffers.writable.is_empty() => buffers.writable,
                _ => {
                    queue.rewind(1);
                    break;
                }
            };
            self.parts.push(Part {
                head,
                slices: writable.slices().len(),
                bytes: writable.len(),
            });
            self.bytes += writable.len();
            self.slices.extend_from_slice(writable.slices());
        }
        // The header's last field is filled in afterwards, and has to be in one piece.
        let begins = self
            .slices
            .first()
            .is_some_and(|slice| slice.len() >= HEADER);
        Ok(begins && self.bytes >= MAX_PACKET)
    }

    /// Where a packet goes.
    #[must_use]
    pub fn slices(&self) -> &[VolatileSlice<'m>] {
        &self.slices
    }

    /// A packet of so many bytes is there: its buffers go to the driver, the others stay for the next one.
    ///
    /// # Errors
    /// [`DeviceFault::Queue`].
    pub fn used(
        &mut self,
        queue: &mut LiveQueue,
        ram: &Ram,
        packet: usize,
    ) -> Result<(), DeviceFault> {
        let (mut left, mut count, mut slices) = (packet.min(self.bytes), 0, 0);
        let mut written = [0; MAX_MERGED];
        for (part, written) in self.parts.iter().zip(&mut written) {
            if left == 0 {
                break;
            }
            *written = left.min(part.bytes);
            left -= *written;
            slices += part.slices;
            count += 1;
        }
        if let Some(first) = self.slices.first() {
            patch(first, NUM_BUFFERS, &(count as u16).to_le_bytes());
        }
        self.slices.drain(..slices);
        for (part, written) in self.parts.drain(..count).zip(written) {
            self.bytes -= part.bytes;
            queue.push_used(ram, part.head, written as u32)?;
        }
        Ok(())
    }

    /// Copies a packet out again that may not go to the guest yet.
    pub fn copy_out(&self, packet: &mut [u8]) {
        let mut at = 0;
        for slice in &self.slices {
            if at == packet.len() {
                break;
            }
            let end = packet.len().min(at + slice.len());
            at += slice.copy_to(&mut packet[at..end]);
        }
    }

    /// Puts back what has not been used.
    pub fn give_back(&mut self, queue: &mut LiveQueue) {
        queue.rewind(self.parts.len() as u16);
        self.parts.clear();
        self.slices.clear();
        self.bytes = 0;
    }
}
