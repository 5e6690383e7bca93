//! A device's way to its driver: an interrupt line and the status bits read with it, or a message for each queue and
//! one for the configuration.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};

use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::pci::Vectors;

/// No vector: the event is not told (virtio 1.3, section 4.1.4.3).
pub const NO_VECTOR: u16 = 0xffff;

#[derive(Debug)]
enum Way {
    Line(EventFd),
    Messages {
        vectors: Arc<Vectors>,
        config: AtomicU16,
        queues: Box<[AtomicU16]>,
    },
}

#[derive(Debug)]
struct Shared {
    /// The causes the driver has not taken note of: the same bits in both buses' registers.
    status: AtomicU32,
    needs_reset: AtomicBool,
    way: Way,
}

/// Shared by a device (event loop) and its transport (vCPU threads).
#[derive(Debug, Clone)]
pub struct Interrupt {
    shared: Arc<Shared>,
    /// The queue this one speaks for.
    queue: u16,
}

impl Interrupt {
    /// A line at rest.
    ///
    /// # Errors
    /// eventfd(2)'s.
    pub fn new() -> io::Result<Self> {
        Ok(Self::over(Way::Line(EventFd::new(EFD_NONBLOCK)?)))
    }

    /// Messages, none assigned yet, for a device with this many queues.
    #[must_use]
    pub fn messages(vectors: Arc<Vectors>, queues: usize) -> Self {
        Self::over(Way::Messages {
            vectors,
            config: AtomicU16::new(NO_VECTOR),
            queues: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
        })
    }

    fn over(way: Way) -> Self {
        Self {
            shared: Arc::new(Shared {
                status: AtomicU32::new(0),
                needs_reset: AtomicBool::new(false),
                way,
            }),
            queue: 0,
        }
    }

    /// The same, to speak for another queue.
    #[must_use]
    pub fn of_queue(&self, queue: u16) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            queue,
        }
    }

    /// The event counter that is the line (an irqfd), if it is one.
    #[must_use]
    pub fn line(&self) -> Option<&EventFd> {
        match &self.shared.way {
            Way::Line(line) => Some(line),
            Way::Messages { .. } => None,
        }
    }

    /// Tells the driver that buffers of this queue were used.
    pub fn used_buffers(&self) {
        self.raise(VIRTIO_MMIO_INT_VRING, self.queue_vector(self.queue));
    }

    /// Tells the driver that the configuration space has changed.
    pub fn config_changed(&self) {
        self.raise(VIRTIO_MMIO_INT_CONFIG, self.config_vector());
    }

    /// Tells the driver that the device has stopped and wants to be reset.
    pub fn needs_reset(&self) {
        self.shared.needs_reset.store(true, Ordering::Release);
        self.config_changed();
    }

    /// Whether the device has stopped.
    #[must_use]
    pub fn is_reset_needed(&self) -> bool {
        self.shared.needs_reset.load(Ordering::Acquire)
    }

    /// The interrupt status register.
    #[must_use]
    pub fn status(&self) -> u32 {
        self.shared.status.load(Ordering::Acquire)
    }

    /// The driver has taken note of these causes.
    pub fn acknowledge(&self, causes: u32) {
        self.shared.status.fetch_and(!causes, Ordering::AcqRel);
    }

    /// The interrupt status register, all causes acknowledged by the read (PCI).
    #[must_use]
    pub fn take_status(&self) -> u32 {
        self.shared.status.swap(0, Ordering::AcqRel)
    }

    /// The vector told of configuration changes.
    #[must_use]
    pub fn config_vector(&self) -> u16 {
        match &self.shared.way {
            Way::Line(_) => NO_VECTOR,
            Way::Messages { config, .. } => config.load(Ordering::Acquire),
        }
    }

    /// Assigns it; one that is not there is none.
    pub fn set_config_vector(&self, vector: u16) {
        if let Way::Messages {
            vectors, config, ..
        } = &self.shared.way
        {
            config.store(existing(vectors, vector), Ordering::Release);
        }
    }

    /// The vector told of a queue's used buffers.
    #[must_use]
    pub fn queue_vector(&self, queue: u16) -> u16 {
        match &self.shared.way {
            Way::Line(_) => NO_VECTOR,
            Way::Messages { queues, .. } => queues
                .get(usize::from(queue))
                .map_or(NO_VECTOR, |vector| vector.load(Ordering::Acquire)),
        }
    }

    /// Assigns it; one that is not there is none.
    pub fn set_queue_vector(&self, queue: u16, vector: u16) {
        if let Way::Messages {
            vectors, queues, ..
        } = &self.shared.way
            && let Some(place) = queues.get(usize::from(queue))
        {
            place.store(existing(vectors, vector), Ordering::Release);
        }
    }

    /// Back to rest, no vector assigned.
    pub fn reset(&self) {
        self.shared.status.store(0, Ordering::Release);
        self.shared.needs_reset.store(false, Ordering::Release);
        if let Way::Messages { config, queues, .. } = &self.shared.way {
            for vector in queues.iter().chain([config]) {
                vector.store(NO_VECTOR, Ordering::Release);
            }
        }
    }

    /// The vectors of the configuration and of each queue; none for a line.
    #[must_use]
    pub fn assigned_vectors(&self) -> Vec<u16> {
        match &self.shared.way {
            Way::Line(_) => Vec::new(),
            Way::Messages { config, queues, .. } => std::iter::once(config)
                .chain(queues)
                .map(|vector| vector.load(Ordering::Acquire))
                .collect(),
        }
    }

    /// Brings back what [`Interrupt::status`], [`Interrupt::is_reset_needed`] and [`Interrupt::assigned_vectors`] said.
    pub fn restore(&self, causes: u32, needs_reset: bool, vectors: &[u16]) {
        self.shared.status.store(causes, Ordering::Release);
        self.shared
            .needs_reset
            .store(needs_reset, Ordering::Release);
        if let Some((config, queues)) = vectors.split_first() {
            self.set_config_vector(*config);
            for (queue, vector) in (0..).zip(queues) {
                self.set_queue_vector(queue, *vector);
            }
        }
    }

    /// Interrupts the driver once more for whatever it may not have heard of: an interrupt that was on its way is not
    /// part of a snapshot. A driver that finds nothing to do goes on.
    pub fn repeat(&self) {
        match &self.shared.way {
            Way::Line(line) => {
                if self.status() != 0 {
                    // The counter can only refuse when it is full, and then the line is up anyway.
                    let _ = line.write(1);
                }
            }
            Way::Messages {
                vectors, queues, ..
            } => {
                vectors.send(self.config_vector());
                for queue in queues {
                    vectors.send(queue.load(Ordering::Acquire));
                }
            }
        }
    }

    fn raise(&self, cause: u32, vector: u16) {
        self.shared.status.fetch_or(cause, Ordering::AcqRel);
        match &self.shared.way {
            Way::Line(line) => {
                // The counter can only refuse when it is full, and then the line is up anyway.
                let _ = line.write(1);
            }
            Way::Messages { vectors, .. } => vectors.send(vector),
        }
    }
}

fn existing(vectors: &Vectors, vector: u16) -> u16 {
    if usize::from(vector) < vectors.count() {
        vector
    } else {
        NO_VECTOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_that_is_not_there_cannot_be_assigned() {
        let interrupt = Interrupt::messages(Vectors::new(2).unwrap(), 2);
        interrupt.set_queue_vector(0, 1);
        interrupt.set_queue_vector(1, 2);
        interrupt.set_queue_vector(7, 0);
        interrupt.set_config_vector(0);
        assert_eq!(
            (interrupt.queue_vector(0), interrupt.queue_vector(1)),
            (1, NO_VECTOR)
        );
        assert_eq!(interrupt.config_vector(), 0);
        interrupt.reset();
        assert_eq!(
            (interrupt.queue_vector(0), interrupt.config_vector()),
            (NO_VECTOR, NO_VECTOR)
        );
    }

    #[test]
    fn reading_the_status_over_pci_acknowledges_it() {
        let interrupt = Interrupt::messages(Vectors::new(1).unwrap(), 1);
        interrupt.used_buffers();
        interrupt.config_changed();
        assert_eq!((interrupt.take_status(), interrupt.status()), (3, 0));
    }
}
