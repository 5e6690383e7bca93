//! The machine's devices. Those with queues live in the event loop, which alone calls them ([`Device`]); the serial
//! port and the power registers are written by vCPU threads through the bus.

pub mod balloon;
pub mod block;
pub mod console;
pub mod limiter;
pub mod net;
pub mod pmem;
pub mod power;
pub mod rng;
pub mod vsock;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crn_protocol::devices::{DeviceCounters, NewLimits};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::memory::Ram;
use crate::poller::{Poller, Readiness, Token};
use crate::virtio::{DeviceFault, Interrupt, LiveQueue, Progress, Queues};

/// Features every device here offers.
pub const COMMON_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// What a device may use while it is called.
#[derive(Debug)]
pub struct Context<'a> {
    /// Guest memory.
    pub ram: &'a Ram,
    /// To watch descriptors of its own.
    pub poller: &'a Poller,
    /// Its way to the driver, to tell it of changes in the configuration.
    pub interrupt: &'a Interrupt,
    /// Its index, for its tokens.
    pub index: u8,
    /// Where streams the guest opened to the host are handed over.
    pub guest_connects: &'a mut GuestConnects,
}

impl Context<'_> {
    /// The token of a descriptor of this device's own.
    #[must_use]
    pub const fn token(&self, id: u32) -> Token {
        Token::Device {
            device: self.index,
            id,
        }
    }
}

/// Streams the guest opened, on their way to the controller.
#[derive(Debug, Default)]
pub struct GuestConnects {
    waiting: VecDeque<(u32, OwnedFd)>,
}

impl GuestConnects {
    /// How many wait while no controller takes them.
    pub const MAX: usize = 16;

    /// Whether one more can wait.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.waiting.len() < Self::MAX
    }

    /// Hands a stream over; it is closed when there is no room.
    pub fn push(&mut self, port: u32, stream: OwnedFd) {
        if self.has_room() {
            self.waiting.push_back((port, stream));
        }
    }

    /// The oldest one.
    pub fn pop(&mut self) -> Option<(u32, OwnedFd)> {
        self.waiting.pop_front()
    }

    /// Puts one back that could not be delivered.
    pub fn unpop(&mut self, port: u32, stream: OwnedFd) {
        self.waiting.push_front((port, stream));
    }
}

/// How far queues have come of which some are not in use.
pub fn progress_of<'q>(
    queues: impl IntoIterator<Item = (usize, Option<&'q LiveQueue>)>,
) -> Vec<(u16, Progress)> {
    queues
        .into_iter()
        .filter_map(|(index, queue)| Some((index as u16, queue?.progress())))
        .collect()
}

/// A device with queues, owned by the event loop.
pub trait Device {
    /// The driver is ready.
    ///
    /// # Errors
    /// A fault stops the device until it is reset.
    fn activate(
        &mut self,
        features: u64,
        queues: Queues,
        context: &mut Context<'_>,
    ) -> Result<(), DeviceFault>;

    /// Back to the state before activation. Nothing of the driver's is touched afterwards.
    fn reset(&mut self);

    /// The driver rang the doorbell of a queue. May come late, when the device is not live any more.
    ///
    /// # Errors
    /// As [`Device::activate`].
    fn queue_ready(&mut self, queue: usize, context: &mut Context<'_>) -> Result<(), DeviceFault>;

    /// A descriptor watched by the device is ready.
    ///
    /// # Errors
    /// As [`Device::activate`].
    fn io_ready(
        &mut self,
        _id: u32,
        _ready: Readiness,
        _context: &mut Context<'_>,
    ) -> Result<(), DeviceFault> {
        Ok(())
    }

    /// Watches what the device has from the start.
    ///
    /// # Errors
    /// epoll_ctl(2)'s.
    fn start(&mut self, _context: &mut Context<'_>) -> io::Result<()> {
        Ok(())
    }

    /// When the device wants to be called without a reason.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The deadline has passed.
    ///
    /// # Errors
    /// As [`Device::activate`].
    fn deadline_passed(
        &mut self,
        _now: Instant,
        _context: &mut Context<'_>,
    ) -> Result<(), DeviceFault> {
        Ok(())
    }

    /// How far its queues have come, by index. Called when nothing is under way.
    fn progress(&self) -> Vec<(u16, Progress)>;

    /// What else a copy has to know to go on: numbers of its own, few.
    fn save(&self) -> Vec<u64> {
        Vec::new()
    }

    /// What the one has [`Device::save`]d of which this is a copy. Its activation comes next.
    fn restore(&mut self, _saved: &[u64]) {}

    /// What it has done so far.
    fn counters(&self) -> DeviceCounters;

    /// Brings up to date what `counters` tells, as far as the driver plays along.
    ///
    /// # Errors
    /// As [`Device::activate`].
    fn refresh(&mut self, _context: &mut Context<'_>) -> Result<(), DeviceFault> {
        Ok(())
    }

    /// Limits it anew; false when it has no such limits.
    ///
    /// # Errors
    /// As [`Device::activate`].
    fn set_limits(
        &mut self,
        _limits: &NewLimits,
        _context: &mut Context<'_>,
    ) -> Result<bool, DeviceFault> {
        Ok(false)
    }

    /// Asks the guest to give back so many MiB of memory; false when the device is no balloon.
    fn set_balloon(&mut self, _target_mib: u32, _context: &mut Context<'_>) -> bool {
        false
    }

    /// Makes durable what the guest has written.
    ///
    /// # Errors
    /// fdatasync(2)'s.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What vCPU threads count.
#[derive(Debug, Default)]
pub struct Counters {
    /// Guest exits handled in user space.
    pub exits: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The sum.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters shared by the vCPUs of a machine.
pub type SharedCounters = Arc<Counters>;

#[cfg(test)]
pub(crate) mod testing {
    //! A driver's side of queues, for the tests of the devices.

    use virtio_queue::desc::{RawDescriptor, split::Descriptor};
    use virtio_queue::mock::MockSplitQueue;
    use virtio_queue::{Queue, QueueT};
    use vm_memory::{Bytes, GuestAddress};
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::*;

    pub(crate) const READ: u16 = 0;
    pub(crate) const WRITE: u16 = 2;

    /// Guest memory with room for queues in its first MiB and for data above.
    pub(crate) fn ram() -> Ram {
        Ram::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap()
    }

    pub(crate) struct Driver<'m> {
        pub(crate) ram: &'m Ram,
        pub(crate) queue: MockSplitQueue<'m, Ram>,
        pub(crate) interrupt: Interrupt,
        /// The device rings it itself to come back later.
        pub(crate) doorbell: Arc<EventFd>,
        next: u16,
        size: u16,
    }

    impl<'m> Driver<'m> {
        pub(crate) fn new(ram: &'m Ram, base: u64) -> Self {
            let size = 64;
            Self {
                ram,
                queue: MockSplitQueue::create(ram, GuestAddress(base), size),
                interrupt: Interrupt::new().unwrap(),
                doorbell: Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()),
                next: 0,
                size,
            }
        }

        pub(crate) fn live(&self) -> LiveQueue {
            self.live_with(false)
        }

        /// As [`Driver::live`], with VIRTIO_RING_F_EVENT_IDX agreed or not.
        pub(crate) fn live_with(&self, event_idx: bool) -> LiveQueue {
            let mut queue: Queue = self.queue.create_queue().unwrap();
            queue.set_event_idx(event_idx);
            queue.try_set_used_ring_address(self.used_ring()).unwrap();
            LiveQueue::new(queue, self.interrupt.clone(), Arc::clone(&self.doorbell))
        }

        /// Whether the device has asked to be rung for the chain offered last (virtio 1.3, section 2.7.10).
        pub(crate) fn wants_ring(&self, event_idx: bool) -> bool {
            let used = self.used_ring().0;
            let flags: u16 = self.ram.read_obj(GuestAddress(used)).unwrap();
            if !event_idx {
                return flags & 1 == 0;
            }
            let event = GuestAddress(used + 4 + u64::from(self.size) * 8);
            let event: u16 = self.ram.read_obj(event).unwrap();
            let avail = GuestAddress(self.queue.avail_addr().0 + 2);
            let new: u16 = self.ram.read_obj(avail).unwrap();
            event == new.wrapping_sub(1)
        }

        /// The mock puts the used ring over the second half of the available ring; here it has a place of its own.
        fn used_ring(&self) -> GuestAddress {
            GuestAddress(self.queue.start().0 + 0x2000)
        }

        /// Makes one chain available: (address, length, flags).
        pub(crate) fn offer(&mut self, pieces: &[(u64, u32, u16)]) -> u16 {
            let head = self.next;
            for (index, (address, length, flags)) in pieces.iter().enumerate() {
                let last = index + 1 == pieces.len();
                let slot = (head as usize + index) as u16 % self.size;
                let next = (slot + 1) % self.size;
                let flags = if last { *flags } else { flags | 1 };
                self.raw(slot, *address, *length, flags, next);
            }
            self.next = (head + pieces.len() as u16) % self.size;
            self.make_available(head);
            head
        }

        pub(crate) fn raw(&self, slot: u16, address: u64, length: u32, flags: u16, next: u16) {
            let descriptor = RawDescriptor::from(Descriptor::new(address, length, flags, next));
            self.queue.desc_table().store(slot, descriptor).unwrap();
        }

        pub(crate) fn make_available(&self, head: u16) {
            let avail = self.queue.avail_addr();
            let index: u16 = self.ram.read_obj(GuestAddress(avail.0 + 2)).unwrap();
            self.ram
                .write_obj(
                    head,
                    GuestAddress(avail.0 + 4 + u64::from(index % self.size) * 2),
                )
                .unwrap();
            self.ram
                .write_obj(index.wrapping_add(1), GuestAddress(avail.0 + 2))
                .unwrap();
        }

        /// How many chains came back, and the last one's head and length.
        pub(crate) fn used(&self) -> (u16, u32, u32) {
            let used = self.used_ring();
            let index: u16 = self.ram.read_obj(GuestAddress(used.0 + 2)).unwrap();
            if index == 0 {
                return (0, 0, 0);
            }
            let entry = used.0 + 4 + u64::from((index - 1) % self.size) * 8;
            (
                index,
                self.ram.read_obj(GuestAddress(entry)).unwrap(),
                self.ram.read_obj(GuestAddress(entry + 4)).unwrap(),
            )
        }
    }

    /// A context's owned parts.
    pub(crate) struct Host {
        pub(crate) poller: Poller,
        pub(crate) interrupt: Interrupt,
        pub(crate) guest_connects: GuestConnects,
    }

    impl Host {
        pub(crate) fn new() -> Self {
            Self {
                poller: Poller::new().unwrap(),
                interrupt: Interrupt::new().unwrap(),
                guest_connects: GuestConnects::default(),
            }
        }

        pub(crate) fn context<'a>(&'a mut self, ram: &'a Ram) -> Context<'a> {
            Context {
                ram,
                poller: &self.poller,
                interrupt: &self.interrupt,
                index: 0,
                guest_connects: &mut self.guest_connects,
            }
        }
    }
}
