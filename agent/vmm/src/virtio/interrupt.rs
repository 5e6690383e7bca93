//! A device's way to its driver: the interrupt line and the status bits read with it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

#[derive(Debug)]
struct Shared {
    status: AtomicU32,
    needs_reset: AtomicBool,
    line: EventFd,
}

/// Shared by a device (event loop) and its transport (vCPU threads).
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<Shared>);

impl Interrupt {
    /// A line at rest.
    ///
    /// # Errors
    /// eventfd(2)'s.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            status: AtomicU32::new(0),
            needs_reset: AtomicBool::new(false),
            line: EventFd::new(EFD_NONBLOCK)?,
        })))
    }

    /// The event counter that is the line (an irqfd).
    #[must_use]
    pub fn line(&self) -> &EventFd {
        &self.0.line
    }

    /// Tells the driver that buffers were used.
    pub fn used_buffers(&self) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    /// Tells the driver that the configuration space has changed.
    pub fn config_changed(&self) {
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    /// Tells the driver that the device has stopped and wants to be reset.
    pub fn needs_reset(&self) {
        self.0.needs_reset.store(true, Ordering::Release);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    /// Whether the device has stopped.
    #[must_use]
    pub fn is_reset_needed(&self) -> bool {
        self.0.needs_reset.load(Ordering::Acquire)
    }

    /// The interrupt status register.
    #[must_use]
    pub fn status(&self) -> u32 {
        self.0.status.load(Ordering::Acquire)
    }

    /// The driver has taken note of these causes.
    pub fn acknowledge(&self, causes: u32) {
        self.0.status.fetch_and(!causes, Ordering::AcqRel);
    }

    /// Back to rest.
    pub fn reset(&self) {
        self.0.status.store(0, Ordering::Release);
        self.0.needs_reset.store(false, Ordering::Release);
    }

    fn raise(&self, cause: u32) {
        self.0.status.fetch_or(cause, Ordering::AcqRel);
        // The counter can only refuse when it is full, and then the line is up anyway.
        let _ = self.0.line.write(1);
    }
}
