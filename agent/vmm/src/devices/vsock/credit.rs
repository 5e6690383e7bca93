//! Credit in both directions (virtio 1.3, section 5.10.6.3): counters of bytes modulo 2³², and the room they leave.

/// The receive buffer the guest is told of, bytes.
pub const BUFFER: u32 = 128 * 1024;

/// Guest → host: what was received and what the stream has taken.
#[derive(Debug, Default)]
pub struct Received {
    received: u32,
    forwarded: u32,
    /// The value of `forwarded` the guest was told last.
    told: u32,
    asked: bool,
}

impl Received {
    /// Bytes the guest may still send.
    #[must_use]
    pub const fn room(&self) -> u32 {
        BUFFER.saturating_sub(self.waiting())
    }

    /// Bytes received that the stream has not taken.
    #[must_use]
    pub const fn waiting(&self) -> u32 {
        self.received.wrapping_sub(self.forwarded)
    }

    /// Bytes have come.
    pub const fn receive(&mut self, count: u32) {
        self.received = self.received.wrapping_add(count);
    }

    /// All but so many bytes are with the stream now.
    pub const fn all_but(&mut self, waiting: u32) {
        self.forwarded = self.received.wrapping_sub(waiting);
    }

    /// The guest wants to know.
    pub const fn ask(&mut self) {
        self.asked = true;
    }

    /// Whether the guest should be told even when there is nothing else to say: it asked, or much has changed.
    #[must_use]
    pub const fn owes_update(&self) -> bool {
        self.asked || self.forwarded.wrapping_sub(self.told) >= BUFFER / 4
    }

    /// The counter that goes into every header.
    pub const fn tell(&mut self) -> u32 {
        self.asked = false;
        self.told = self.forwarded;
        self.forwarded
    }
}

/// Host → guest: what was sent, and the guest's room as it told it.
#[derive(Debug, Default)]
pub struct Sent {
    sent: u32,
    buffer: u32,
    forwarded: u32,
    /// The guest has been asked for its room and has not answered.
    asked: bool,
}

impl Sent {
    /// Bytes the guest has room for; a guest that claims to have taken more than was sent gets nothing.
    #[must_use]
    pub const fn room(&self) -> u32 {
        self.buffer
            .saturating_sub(self.sent.wrapping_sub(self.forwarded))
    }

    /// Buffer size and bytes taken, from the header of any packet of the guest's.
    pub const fn hear(&mut self, buffer: u32, forwarded: u32) {
        self.buffer = buffer;
        self.forwarded = forwarded;
        self.asked = false;
    }

    /// Bytes go out.
    pub const fn send(&mut self, count: u32) {
        self.sent = self.sent.wrapping_add(count);
    }

    /// Whether the guest is still to be asked for room.
    #[must_use]
    pub const fn may_ask(&self) -> bool {
        !self.asked
    }

    /// The guest is asked.
    pub const fn ask(&mut self) {
        self.asked = true;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// From any starting point of the counters, across their wrap.
        #[test]
        fn what_was_promised_is_never_exceeded(start in any::<u32>(), steps in prop::collection::vec((any::<bool>(), 0u32..200_000), 0..200)) {
            let mut credit = Received { received: start, forwarded: start, told: start, asked: false };
            let mut waiting = 0u32;
            for (comes, count) in steps {
                if comes {
                    let count = count.min(credit.room());
                    credit.receive(count);
                    waiting += count;
                } else {
                    waiting -= count.min(waiting);
                    credit.all_but(waiting);
                }
                prop_assert_eq!(credit.waiting(), waiting);
                prop_assert!(waiting <= BUFFER);
                prop_assert_eq!(credit.room(), BUFFER - waiting);
            }
            credit.tell();
            prop_assert!(!credit.owes_update());
        }

        #[test]
        fn a_guest_is_never_sent_more_than_it_has_room_for(buffer in any::<u32>(), forwarded in any::<u32>(), sent in any::<u32>()) {
            let mut credit = Sent { sent, ..Sent::default() };
            credit.hear(buffer, forwarded);
            let room = credit.room();
            prop_assert!(room <= buffer);
            credit.send(room);
            if room > 0 {
                prop_assert_eq!(credit.room(), 0);
            }
        }
    }
}
