//! virtio 1.x, modern devices only.
//!
//! [`negotiate`] is the one state machine between reset and a live device; the bus front-ends ([`mmio`], [`pci`])
//! decode addresses and widths into its registers and nothing else. [`queue`] is what a device holds once it is live:
//! a queue whose addresses cannot change any more. [`buffers`] are a request's pieces of guest memory, [`config`] is what
//! device and driver tell each other outside of queues.

pub mod buffers;
pub mod config;
pub mod interrupt;
pub mod mmio;
pub mod negotiate;
pub mod pci;
pub mod queue;

pub use buffers::{Buffers, Segments};
pub use config::ConfigSpace;
pub use interrupt::Interrupt;
pub use negotiate::{Change, Negotiator, Offer};
pub use queue::{Chain, LiveQueue, Progress, Queues};

/// The guest's driver broke the rules of a queue in a way that leaves nothing to go on with: the device stops and
/// asks for a reset. The process and its other devices go on.
#[derive(Debug, thiserror::Error)]
pub enum DeviceFault {
    /// The rings are inconsistent or outside guest memory.
    #[error("the driver's rings are broken: {0}")]
    Queue(virtio_queue::Error),
    /// The driver did not set up a queue the device cannot do without.
    #[error("the driver left out queue {0}")]
    QueueMissing(usize),
    /// The driver offered a chain whose head the device still works on.
    #[error("the driver offered descriptor {0} again before it came back")]
    HeadInFlight(u16),
    /// The host side of the device failed.
    #[error("the device's host side failed")]
    Host(#[from] std::io::Error),
}
