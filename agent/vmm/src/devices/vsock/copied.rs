//! A driver that goes on from another machine's snapshot forgets that one's connections.

use super::Vsock;
use crate::devices::Context;
use crate::virtio::{Buffers, DeviceFault};

/// struct virtio_vsock_event: VIRTIO_VSOCK_EVENT_TRANSPORT_RESET.
const EVENT_TRANSPORT_RESET: u32 = 0;

/// What the driver of a machine that goes on from another's snapshot knows of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// All, or there is nothing to know.
    Settled,
    /// Nothing: it has to be told.
    Untold,
    /// It has been told, when it had made so many buffers for events available, and may be about to forget every connection
    /// it has: new ones wait until it has.
    Told { available: u16 },
}

impl Vsock {
    /// The guest's connections were the other machine's: it is told to forget them and to ask for its identifier
    /// again (virtio 1.3, section 5.10.6.7). It has when it gives the event's buffer back.
    pub(super) fn forget_connections(
        &mut self,
        context: &mut Context<'_>,
    ) -> Result<(), DeviceFault> {
        let live = self.live.as_mut();
        let events = live.and_then(|live| live.events.as_mut());
        match (self.copied, events) {
            (Copied::Settled, _) => return Ok(()),
            (Copied::Untold, Some(events)) => {
                let available = events.available(context.ram)?;
                if let Some(chain) = events.pop(context.ram)? {
                    self.copied = Copied::Told { available };
                    let head = chain.head_index();
                    let mut room = Buffers::of(chain, context.ram).unwrap_or_default().writable;
                    let written = room.write(&EVENT_TRANSPORT_RESET.to_le_bytes());
                    events.ring_after(context.ram, available)?;
                    events.push_used(context.ram, head, written as u32)?;
                    events.signal(context.ram)?;
                }
                return Ok(());
            }
            (Copied::Told { available }, Some(events))
                if events.available(context.ram)? == available =>
            {
                return Ok(());
            }
            // A driver without that queue cannot be told.
            (Copied::Untold, None) | (Copied::Told { .. }, _) => self.copied = Copied::Settled,
        }
        self.accept(context);
        self.receive(context)
    }
}
