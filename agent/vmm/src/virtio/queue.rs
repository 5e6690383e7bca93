//! A queue in use. Made once by activation; there is nothing here with which its place could be changed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vmm_sys_util::eventfd::EventFd;

use super::{DeviceFault, Interrupt};
use crate::memory::Ram;

/// Chains handled in one go before other devices get their turn.
pub const BUDGET: usize = 256;

/// A descriptor chain in guest memory.
pub type Chain<'m> = DescriptorChain<&'m Ram>;

/// How far a queue has come, in chains, modulo 2¹⁶.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The next one the driver makes available.
    pub next_available: u16,
    /// The next one the device returns.
    pub next_used: u16,
}

/// A queue the driver has handed over.
#[derive(Debug)]
pub struct LiveQueue {
    queue: Queue,
    interrupt: Interrupt,
    doorbell: Arc<EventFd>,
}

/// The queues a driver has handed over at activation, each taken once by its index. A driver does not use every queue
/// it is offered: those of features it did not take and of processors it does not have are missing.
#[derive(Debug, Default)]
pub struct Queues(Vec<Option<LiveQueue>>);

impl Queues {
    /// By index; `None` for those that are missing.
    #[must_use]
    pub const fn new(queues: Vec<Option<LiveQueue>>) -> Self {
        Self(queues)
    }

    /// How many are there.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.iter().flatten().count()
    }

    /// Takes a queue, if it is there.
    pub fn take(&mut self, index: usize) -> Option<LiveQueue> {
        self.0.get_mut(index)?.take()
    }

    /// Has a queue, if it is there, go on where it had come to.
    pub fn proceed(&mut self, index: usize, progress: Progress) {
        if let Some(Some(queue)) = self.0.get_mut(index) {
            queue.queue.set_next_avail(progress.next_available);
            queue.queue.set_next_used(progress.next_used);
        }
    }

    /// Takes a queue the device cannot do without.
    ///
    /// # Errors
    /// [`DeviceFault::QueueMissing`].
    pub fn require(&mut self, index: usize) -> Result<LiveQueue, DeviceFault> {
        self.take(index).ok_or(DeviceFault::QueueMissing(index))
    }
}

impl From<Vec<LiveQueue>> for Queues {
    fn from(queues: Vec<LiveQueue>) -> Self {
        Self(queues.into_iter().map(Some).collect())
    }
}

impl LiveQueue {
    /// Takes over a queue whose addresses have been checked.
    #[must_use]
    pub fn new(queue: Queue, interrupt: Interrupt, doorbell: Arc<EventFd>) -> Self {
        Self {
            queue,
            interrupt,
            doorbell,
        }
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            next_available: self.queue.next_avail(),
            next_used: self.queue.next_used(),
        }
    }

    /// The next chain the driver made available.
    ///
    /// # Errors
    /// [`DeviceFault::Queue`] when the available ring is broken.
    pub fn pop<'m>(&mut self, ram: &'m Ram) -> Result<Option<Chain<'m>>, DeviceFault> {
        Ok(self.queue.iter(ram).map_err(DeviceFault::Queue)?.next())
    }

    /// Gives the last `count` popped chains back, unused.
    pub fn rewind(&mut self, count: u16) {
        let next = self.queue.next_avail().wrapping_sub(count);
        self.queue.set_next_avail(next);
    }

    /// Returns a chain to the driver with `written` bytes in it.
    ///
    /// # Errors
    /// [`DeviceFault::Queue`] when the head or the ring is out of bounds.
    pub fn push_used(&mut self, ram: &Ram, head: u16, written: u32) -> Result<(), DeviceFault> {
        self.queue
            .add_used(ram, head, written)
            .map_err(DeviceFault::Queue)
    }

    /// Asks the driver not to ring while the queue is worked on.
    ///
    /// # Errors
    /// [`DeviceFault::Queue`].
    pub fn mute(&mut self, ram: &Ram) -> Result<(), DeviceFault> {
        self.queue
            .disable_notification(ram)
            .map_err(DeviceFault::Queue)
    }

    /// Asks the driver to ring again; true when chains have come meanwhile, for which it will not.
    ///
    /// # Errors
    /// [`DeviceFault::Queue`].
    pub fn unmute(&mut self, ram: &Ram) -> Result<bool, DeviceFault> {
        self.queue
            .enable_notification(ram)
            .map_err(DeviceFault::Queue)
    }

    /// How many chains the driver has made available so far, modulo 65536.
    ///
    /// # Errors
    /// [`DeviceFault::Queue`].
    pub fn available(&self, ram: &Ram) -> Result<u16, DeviceFault> {
        let available = self.queue.avail_idx(ram, Ordering::Acquire);
        Ok(available.map_err(DeviceFault::Queue)?.0)
    }

    /// Asks the driver to ring when it makes available more than so many; what has not been taken stays.
    ///
    /// # Errors
    /// [`DeviceFault::Queue`].
    pub fn ring_after(&mut self, ram: &Ram, available: u16) -> Result<(), DeviceFault> {
        let next = self.queue.next_avail();
        self.queue.set_next_avail(available);
        let asked = self.queue.enable_notification(ram);
        self.queue.set_next_avail(next);
        asked.map(drop).map_err(DeviceFault::Queue)
    }

    /// Interrupts the driver if it wants to be.
    ///
    /// # Errors
    /// [`DeviceFault::Queue`].
    pub fn signal(&mut self, ram: &Ram) -> Result<(), DeviceFault> {
        if self
            .queue
            .needs_notification(ram)
            .map_err(DeviceFault::Queue)?
        {
            self.interrupt.used_buffers();
        }
        Ok(())
    }

    /// Comes back to this queue after the other devices have had their turn.
    pub fn ring_again(&self) {
        // The counter can only refuse when it is full, and then the doorbell rings anyway.
        let _ = self.doorbell.write(1);
    }

    /// Works through the available chains: `each` returns how many bytes it wrote into its chain.
    ///
    /// # Errors
    /// `each`'s, or [`DeviceFault::Queue`].
    pub fn drain<'m>(
        &mut self,
        ram: &'m Ram,
        mut each: impl FnMut(Chain<'m>) -> Result<u32, DeviceFault>,
    ) -> Result<(), DeviceFault> {
        self.drain_while(ram, |chain| each(chain).map(Served::Used))
    }

    /// Works through the available chains until `each` puts one off. The driver does not have to ring for that one.
    ///
    /// # Errors
    /// `each`'s, or [`DeviceFault::Queue`].
    pub fn drain_while<'m>(
        &mut self,
        ram: &'m Ram,
        mut each: impl FnMut(Chain<'m>) -> Result<Served, DeviceFault>,
    ) -> Result<(), DeviceFault> {
        let mut left = BUDGET;
        self.mute(ram)?;
        loop {
            if left == 0 {
                self.ring_again();
                break;
            }
            let Some(chain) = self.pop(ram)? else {
                if !self.unmute(ram)? {
                    break;
                }
                self.mute(ram)?;
                continue;
            };
            let head = chain.head_index();
            match each(chain)? {
                Served::Used(written) => self.push_used(ram, head, written)?,
                Served::Later => {
                    self.rewind(1);
                    break;
                }
            }
            left -= 1;
        }
        self.signal(ram)
    }
}

/// What became of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// It goes back with so many bytes written into it.
    Used(u32),
    /// It stays where it is.
    Later,
}
