//! The receive queue: what connections have for the guest, in turns, a packet each.

use std::time::Instant;

use super::connection::Outgoing;
use super::credit::BUFFER;
use super::packet::{HEADER, HOST_CID, Header, Operation, TYPE_STREAM};
use super::{CLOSING, Vsock};
use crate::devices::Context;
use crate::virtio::queue::BUDGET;
use crate::virtio::{Buffers, DeviceFault, LiveQueue, Segments};

impl Vsock {
    /// Sends the guest what waits for it, as far as it has provided buffers.
    pub(super) fn receive(&mut self, context: &mut Context<'_>) -> Result<(), DeviceFault> {
        let Some(mut live) = self.live.take() else {
            return Ok(());
        };
        let result = self.fill(&mut live.rx, context);
        self.live = Some(live);
        result
    }

    fn fill(&mut self, rx: &mut LiveQueue, context: &mut Context<'_>) -> Result<(), DeviceFault> {
        if self.resets.is_empty() && self.ready.is_empty() {
            return Ok(());
        }
        rx.mute(context.ram)?;
        let mut budget = BUDGET;
        while !(self.resets.is_empty() && self.ready.is_empty()) {
            if budget == 0 {
                rx.ring_again();
                break;
            }
            budget -= 1;
            let Some(chain) = rx.pop(context.ram)? else {
                // The guest rings when it provides buffers; those provided until now are seen here.
                if rx.unmute(context.ram)? {
                    rx.mute(context.ram)?;
                    continue;
                }
                break;
            };
            let head = chain.head_index();
            let mut space = match Buffers::of(chain, context.ram) {
                Ok(buffers) if buffers.writable.len() >= HEADER => buffers.writable,
                // Useless to everyone; it goes back empty.
                _ => {
                    rx.push_used(context.ram, head, 0)?;
                    continue;
                }
            };
            let mut place = space.take(HEADER);
            match self.next_packet(space) {
                Some(header) => {
                    place.write(&header.to_bytes());
                    rx.push_used(context.ram, head, HEADER as u32 + header.length)?;
                }
                None => rx.rewind(1),
            }
        }
        rx.signal(context.ram)
    }

    /// The next packet for the guest, in turns; `None` when it turns out that there is none after all.
    fn next_packet(&mut self, space: Segments<'_>) -> Option<Header> {
        if let Some((guest_port, host_port)) = self.resets.pop_front() {
            let reset = Outgoing {
                operation: Operation::Reset,
                length: 0,
                flags: 0,
            };
            return Some(self.header(guest_port, host_port, reset, 0));
        }
        let id = self.ready.pop_front()?;
        let connection = self.connections.get_mut(&id)?;
        connection.queued = false;
        let outgoing = connection.next(space)?;
        self.counters.rx_bytes += u64::from(outgoing.length);
        let forwarded = connection.tell_forwarded();
        let (guest_port, host_port) = (connection.guest_port, connection.host_port);
        if connection.is_closing() && connection.deadline.is_none() {
            connection.deadline = Some(Instant::now() + CLOSING);
            self.schedule_sweep();
        }
        self.mark_ready(id);
        Some(self.header(guest_port, host_port, outgoing, forwarded))
    }

    const fn header(
        &self,
        guest_port: u32,
        host_port: u32,
        outgoing: Outgoing,
        forwarded: u32,
    ) -> Header {
        Header {
            source_cid: HOST_CID,
            destination_cid: self.cid,
            source_port: host_port,
            destination_port: guest_port,
            length: outgoing.length,
            kind: TYPE_STREAM,
            operation: Some(outgoing.operation),
            flags: outgoing.flags,
            buffer: BUFFER,
            forwarded,
        }
    }
}
