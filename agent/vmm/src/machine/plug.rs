//! Puts devices on the machine's bus: doorbells, interrupts and registers, at launch and later.

use std::sync::Arc;

use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::vm;
use super::wiring::KvmWiring;
use crate::devices::{Context, Device, GuestConnects};
use crate::error::os;
use crate::fd::of_event;
use crate::memory::Ram;
use crate::pci::{Msix, Vectors, Wiring};
use crate::plan::{VirtioSlot, pci_gsi, pci_window};
use crate::poller::{Poller, Token};
use crate::virtio::mmio::MmioTransport;
use crate::virtio::pci::{MAX_VECTORS, VirtioFunction};
use crate::virtio::{Interrupt, Negotiator, Offer};
use crate::{Error, Result};

/// A device and what it offers, not on a bus yet.
pub struct Loose {
    /// The device.
    pub device: Box<dyn Device>,
    /// What it offers.
    pub offer: Offer,
    /// A disk's identity, by which it can be detached.
    pub serial: Option<String>,
}

impl Loose {
    /// A device that is no disk.
    pub fn new(device: impl Device + 'static, offer: Offer) -> Self {
        Self {
            device: Box::new(device),
            offer,
            serial: None,
        }
    }

    /// A disk of this identity.
    pub fn disk(device: impl Device + 'static, offer: Offer, serial: String) -> Self {
        Self {
            serial: Some(serial),
            ..Self::new(device, offer)
        }
    }
}

/// A device with queues and what belongs to it.
pub struct Slot {
    /// The device.
    pub device: Box<dyn Device>,
    /// Its way to the driver.
    pub interrupt: Interrupt,
    /// One for each queue.
    pub doorbells: Vec<Arc<EventFd>>,
    /// It broke down and is not called until it is reset.
    pub faulted: bool,
    /// A disk's identity, by which it can be detached.
    pub serial: Option<String>,
}

/// What devices are connected to.
pub struct Socket {
    vm: Arc<VmFd>,
    wiring: Arc<KvmWiring>,
    ram: Arc<Ram>,
}

impl Socket {
    /// Of this machine.
    #[must_use]
    pub fn new(vm: Arc<VmFd>, ram: Arc<Ram>) -> Self {
        Self {
            wiring: Arc::new(KvmWiring::new(Arc::clone(&vm))),
            vm,
            ram,
        }
    }

    /// A device on a page of registers at its planned place.
    ///
    /// # Errors
    /// [`Error::Os`], [`Error::Kvm`].
    pub fn mmio(
        &self,
        index: u8,
        place: VirtioSlot,
        loose: Loose,
        poller: &Poller,
        guest_connects: &mut GuestConnects,
    ) -> Result<(Slot, MmioTransport)> {
        let interrupt = Interrupt::new().map_err(os("create an event descriptor"))?;
        if let Some(line) = interrupt.line() {
            vm::connect_interrupt(&self.vm, line, place.gsi)?;
        }
        let doorbells = doorbells(index, loose.offer.queue_sizes.len(), poller)?;
        for (queue, doorbell) in (0..).zip(&doorbells) {
            vm::connect_doorbell(&self.vm, doorbell, place, queue)?;
        }
        let negotiator = Negotiator::new(
            loose.offer,
            interrupt.clone(),
            doorbells.clone(),
            Arc::clone(&self.ram),
        );
        let parts = (loose.device, interrupt, doorbells, loose.serial);
        let slot = self.start(index, parts, poller, guest_connects)?;
        Ok((slot, MmioTransport::new(negotiator)))
    }

    /// A device as a PCI function; its device number is one more than its index.
    ///
    /// # Errors
    /// [`Error::Os`], or [`Error::Spec`] for a device with more queues than a function has vectors.
    pub fn pci(
        &self,
        index: u8,
        loose: Loose,
        poller: &Poller,
        guest_connects: &mut GuestConnects,
    ) -> Result<(Slot, VirtioFunction)> {
        let number = index + 1;
        let queues = loose.offer.queue_sizes.len();
        if queues >= MAX_VECTORS {
            return Err(Error::spec(
                "queues",
                format!("make {queues} of one device, fewer than {MAX_VECTORS} are possible"),
            ));
        }
        // One for each queue and one for the configuration.
        let vectors = Vectors::new(queues as u16 + 1).map_err(os("create an event descriptor"))?;
        let wiring: Arc<dyn Wiring> = Arc::<KvmWiring>::clone(&self.wiring);
        let interrupt = Interrupt::messages(Arc::clone(&vectors), queues);
        let doorbells = doorbells(index, queues, poller)?;
        let negotiator = Negotiator::new(
            loose.offer,
            interrupt.clone(),
            doorbells.clone(),
            Arc::clone(&self.ram),
        );
        let function = VirtioFunction::new(
            negotiator,
            doorbells.clone(),
            Msix::new(vectors, Arc::clone(&wiring), pci_gsi(number)),
            wiring,
            pci_window(number),
        );
        let parts = (loose.device, interrupt, doorbells, loose.serial);
        let slot = self.start(index, parts, poller, guest_connects)?;
        Ok((slot, function))
    }

    fn start(
        &self,
        index: u8,
        (device, interrupt, doorbells, serial): Parts,
        poller: &Poller,
        guest_connects: &mut GuestConnects,
    ) -> Result<Slot> {
        let mut slot = Slot {
            device,
            interrupt,
            doorbells,
            faulted: false,
            serial,
        };
        let mut context = Context {
            ram: &self.ram,
            poller,
            interrupt: &slot.interrupt,
            index,
            guest_connects,
        };
        slot.device
            .start(&mut context)
            .map_err(os("watch a device's descriptor"))?;
        Ok(slot)
    }
}

type Parts = (
    Box<dyn Device>,
    Interrupt,
    Vec<Arc<EventFd>>,
    Option<String>,
);

fn doorbells(device: u8, count: usize, poller: &Poller) -> Result<Vec<Arc<EventFd>>> {
    (0..count)
        .map(|queue| {
            let doorbell = EventFd::new(EFD_NONBLOCK).map_err(os("create an event descriptor"))?;
            let token = Token::Queue {
                device,
                queue: queue as u8,
            };
            poller
                .add_readable(of_event(&doorbell), token)
                .map_err(os("watch a doorbell"))?;
            Ok(Arc::new(doorbell))
        })
        .collect()
}
