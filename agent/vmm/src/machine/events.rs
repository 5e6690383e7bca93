//! What the guest is told through ACPI's generic event device: a register of causes behind one interrupt.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::plan::acpi::Cause;

/// See the module.
#[derive(Debug)]
pub struct Events {
    causes: AtomicU8,
    line: EventFd,
}

impl Events {
    /// Nothing to tell.
    ///
    /// # Errors
    /// eventfd(2)'s.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            causes: AtomicU8::new(0),
            line: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// The interrupt (an irqfd).
    #[must_use]
    pub const fn line(&self) -> &EventFd {
        &self.line
    }

    /// Tells the guest.
    ///
    /// # Errors
    /// write(2)'s.
    pub fn raise(&self, cause: Cause) -> io::Result<()> {
        self.causes.fetch_or(cause as u8, Ordering::AcqRel);
        self.line.write(1)
    }

    /// The register, as it is.
    #[must_use]
    pub fn peek(&self) -> u8 {
        self.causes.load(Ordering::Acquire)
    }

    /// Brings back what [`Events::peek`] said; nothing is told until the next [`Events::raise`].
    pub fn restore(&self, causes: u8) {
        self.causes.store(causes, Ordering::Release);
    }

    /// The guest's read of the register, which clears it.
    #[must_use]
    pub fn take(&self) -> u8 {
        self.causes.swap(0, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_together_and_once() {
        let events = Events::new().unwrap();
        events.raise(Cause::PowerButton).unwrap();
        events.raise(Cause::Devices).unwrap();
        assert_eq!(events.line().read().unwrap(), 2);
        assert_eq!((events.take(), events.take()), (5, 0));
    }
}
