//! A virtio device as a PCI function (virtio 1.3, section 4.1), modern interface only: decodes the window's registers
//! and the capabilities into a [`Negotiator`], nothing more.
//!
//! The one window is a page for each structure, so that nothing but doorbells shares a page with doorbells.

mod capabilities;
mod common;

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use self::capabilities::Capabilities;
use super::negotiate::Register;
use super::{Change, Negotiator};
use crate::pci::config::CONFIG_SIZE;
use crate::pci::{ConfigRegisters, Identity, Msix, Wiring};
use crate::plan::layout::{PCI_WINDOW_END, PCI_WINDOW_START};

/// The window: a power of two that holds all structures.
pub const WINDOW_SIZE: u64 = 0x8000;
const COMMON: u64 = 0x0000;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const MSIX_TABLE: u64 = 0x4000;
const MSIX_PENDING: u64 = 0x5000;
const PAGE: u64 = 0x1000;
/// Each queue's doorbell has a word of its own, so that the address alone says which it is.
const NOTIFY_MULTIPLIER: u32 = 4;

/// Vectors a function can have: queues and one for the configuration. Its table fits a page, and 32 functions fit
/// what KVM routes ([`crate::plan::layout::PCI_FIRST_GSI`]).
pub const MAX_VECTORS: usize = 126;
const _: () = assert!(MAX_VECTORS * crate::pci::msix::ENTRY_SIZE <= PAGE as usize);
const _: () = assert!(MAX_VECTORS * NOTIFY_MULTIPLIER as usize <= PAGE as usize);

/// Red Hat's vendor number, under which virtio devices are numbered (section 4.1.2).
const VENDOR: u16 = 0x1af4;
/// Device number 0 of the modern range.
const FIRST_DEVICE: u16 = 0x1040;
/// What is no driver's concern; 0x40 and up says that it is no transitional device.
const SUBSYSTEM: u16 = 0x1100;

/// What the bus is to do after a guest's access.
#[derive(Debug, Default)]
pub struct Effect {
    /// What the device behind is to be told.
    pub change: Option<Change>,
    /// The window has gone elsewhere: [`VirtioFunction::window`].
    pub moved: bool,
}

/// What a guest has made of a function's registers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SavedFunction {
    /// All configuration registers.
    pub config: Vec<u8>,
    /// The table of messages.
    pub table: Vec<u8>,
    /// Messages that wait for their entry to be unmasked, one byte each, 0 or 1.
    pub pending: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct VirtioFunction {
    config: ConfigRegisters,
    capabilities: Capabilities,
    negotiator: Negotiator,
    doorbells: Vec<Arc<EventFd>>,
    msix: Msix,
    wiring: Arc<dyn Wiring>,
    /// Where the window answers now.
    window: Option<u64>,
}

impl VirtioFunction {
    /// A function at rest; its window will be at `base` when the guest enables it. `doorbells` has one for each queue.
    #[must_use]
    pub fn new(
        negotiator: Negotiator,
        doorbells: Vec<Arc<EventFd>>,
        msix: Msix,
        wiring: Arc<dyn Wiring>,
        base: u64,
    ) -> Self {
        let kind = negotiator.read(Register::DeviceId) as u16;
        let identity = Identity {
            vendor: VENDOR,
            device: FIRST_DEVICE + kind,
            revision: 1,
            class: class(kind),
            subsystem: (VENDOR, SUBSYSTEM),
        };
        let mut config = ConfigRegisters::new(identity).with_window(base, WINDOW_SIZE);
        let capabilities = Capabilities::add_to(&mut config, msix.control());
        Self {
            config,
            capabilities,
            negotiator,
            doorbells,
            msix,
            wiring,
            window: None,
        }
    }

    /// Its registers and interrupts as they are now, for [`VirtioFunction::restore`].
    #[must_use]
    pub fn save(&self) -> SavedFunction {
        let mut config = vec![0; CONFIG_SIZE];
        self.config.read(0, &mut config);
        let (table, pending) = self.msix.save();
        SavedFunction {
            config,
            table,
            pending,
        }
    }

    /// Writes registers and interrupts as a guest would, in a function at rest.
    pub fn restore(&mut self, saved: &SavedFunction) {
        self.config.write(0, &saved.config);
        self.msix.write_table(0, &saved.table);
        self.msix
            .set_control(self.capabilities.msix_control(&self.config));
        self.msix.set_pending(&saved.pending);
        self.follow_window();
    }

    /// The device's negotiation, to save it.
    #[must_use]
    pub const fn negotiator(&self) -> &Negotiator {
        &self.negotiator
    }

    /// The same, to take one up.
    pub const fn negotiator_mut(&mut self) -> &mut Negotiator {
        &mut self.negotiator
    }

    /// Where the window answers now.
    #[must_use]
    pub const fn window(&self) -> Option<u64> {
        self.window
    }

    /// A read of configuration registers.
    pub fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        self.config.read(offset, data);
        if let Some((at, length)) = self.capabilities.access(&self.config, offset) {
            let mut value = [0; 4];
            self.window_read(at, &mut value[..length]);
            for (byte, value) in data.iter_mut().zip(value) {
                *byte = value;
            }
        }
    }

    /// A write of configuration registers.
    pub fn config_write(&mut self, offset: u16, data: &[u8]) -> Effect {
        let mut effect = Effect::default();
        if let Some((at, length)) = self.capabilities.access(&self.config, offset) {
            if let Some(data) = data.get(..length) {
                effect.change = self.window_write(at, data);
            }
            return effect;
        }
        let master = self.config.is_bus_master();
        self.config.write(offset, data);
        self.msix
            .set_control(self.capabilities.msix_control(&self.config));
        if master && !self.config.is_bus_master() {
            effect.change = self.negotiator.revoke();
        }
        effect.moved = self.follow_window();
        effect
    }

    /// Brings doorbells to where the registers say that the window is; whether it has moved.
    fn follow_window(&mut self) -> bool {
        // The host bridge forwards its own range only. A guest that looks for a window's size may leave it anywhere.
        let window = self.config.window().filter(|base| {
            *base >= PCI_WINDOW_START
                && base
                    .checked_add(WINDOW_SIZE)
                    .is_some_and(|end| end <= PCI_WINDOW_END)
        });
        if window == self.window {
            return false;
        }
        self.disconnect_doorbells();
        self.window = window;
        if let Some(base) = window {
            for (index, doorbell) in self.doorbells.iter().enumerate() {
                let address = doorbell_address(base, index);
                if let Err(error) = self.wiring.connect_doorbell(doorbell, address) {
                    // Two windows at one place; the writes come to the bus instead.
                    tracing::debug!(%error, address, "a doorbell is not connected");
                }
            }
        }
        true
    }

    fn disconnect_doorbells(&self) {
        if let Some(base) = self.window {
            for (index, doorbell) in self.doorbells.iter().enumerate() {
                self.wiring
                    .disconnect_doorbell(doorbell, doorbell_address(base, index));
            }
        }
    }

    /// A read of the window; what is not a register of this width is zero.
    pub fn window_read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let within = offset % PAGE;
        match offset - within {
            COMMON => common::read(&self.negotiator, within, data),
            ISR if within == 0 => {
                if let Some(byte) = data.first_mut() {
                    *byte = self.negotiator.interrupt().take_status() as u8;
                }
            }
            DEVICE => self.negotiator.config().read(within as usize, data),
            MSIX_TABLE => self.msix.read_table(within, data),
            MSIX_PENDING => self.msix.read_pending(within, data),
            _ => {}
        }
    }

    /// A write to the window; what is not a register of this width is ignored.
    #[must_use = "the device has to be told"]
    pub fn window_write(&mut self, offset: u64, data: &[u8]) -> Option<Change> {
        let within = offset % PAGE;
        match offset - within {
            COMMON => return common::write(&mut self.negotiator, within, data),
            DEVICE => self.negotiator.config().write(within as usize, data),
            NOTIFY => {
                // Only what the kernel did not take: a doorbell that is not connected, or rung through the registers.
                let queue = within as usize / NOTIFY_MULTIPLIER as usize;
                if let Some(doorbell) = self.doorbells.get(queue) {
                    // The counter can only refuse when it is full, and then the loop is awake anyway.
                    let _ = doorbell.write(1);
                }
            }
            MSIX_TABLE => self.msix.write_table(within, data),
            _ => {}
        }
        None
    }
}

impl Drop for VirtioFunction {
    fn drop(&mut self) {
        self.disconnect_doorbells();
    }
}

const fn doorbell_address(base: u64, queue: usize) -> u64 {
    base + NOTIFY + queue as u64 * NOTIFY_MULTIPLIER as u64
}

/// Class, subclass and interface (PCI Code and ID Assignment 1.11, chapter 1) of a device type (virtio 1.3, section 5).
const fn class(kind: u16) -> [u8; 3] {
    match kind {
        // Ethernet controller.
        1 => [0x02, 0x00, 0x00],
        // Mass storage controller of no particular kind.
        2 => [0x01, 0x80, 0x00],
        // Communication device of no particular kind: console and vsock.
        3 | 19 => [0x07, 0x80, 0x00],
        // Fits no class.
        _ => [0xff, 0x00, 0x00],
    }
}

#[cfg(test)]
pub(crate) mod tests;
