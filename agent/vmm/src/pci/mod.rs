//! One PCI bus with a host bridge: configuration space, message-signalled interrupts, hot plug.
//!
//! [`config`] is a function's configuration registers, [`msix`] its interrupts, [`bus`] decodes addresses and ports to
//! functions, [`hotplug`] tells the guest through ACPI which slots have changed. What a function does behind its
//! registers is not known here: see [`crate::virtio::pci`].

pub mod bus;
pub mod config;
pub mod hotplug;
pub mod msix;

use std::fmt::Debug;
use std::io;

use vmm_sys_util::eventfd::EventFd;

pub use bus::PciBus;
pub use config::{ConfigRegisters, Identity};
pub use msix::{Message, Msix, Vectors};

/// Device numbers on a bus (PCI Local Bus 3.0, section 3.2.2.3.2). Each device here has one function.
pub const DEVICES: usize = 32;

/// What functions ask of the machine, KVM's part of them.
pub trait Wiring: Debug + Send + Sync {
    /// Makes an interrupt a message to the local APICs.
    ///
    /// # Errors
    /// The machine's; the interrupt keeps its former message.
    fn route(&self, gsi: u32, message: Message) -> io::Result<()>;

    /// Lets a counter raise an interrupt.
    ///
    /// # Errors
    /// The machine's.
    fn connect_line(&self, line: &EventFd, gsi: u32) -> io::Result<()>;

    /// Takes both back. A line that is not connected is no error.
    fn disconnect_line(&self, line: &EventFd, gsi: u32);

    /// Lets the guest's writes to an address count a doorbell up without leaving the kernel.
    ///
    /// # Errors
    /// The machine's; the writes reach the bus then.
    fn connect_doorbell(&self, doorbell: &EventFd, address: u64) -> io::Result<()>;

    /// Takes it back. A doorbell that is not connected is no error.
    fn disconnect_doorbell(&self, doorbell: &EventFd, address: u64);
}
