//! Puts devices on the machine's bus: doorbells, interrupts and registers, at launch and later.

use std::sync::Arc;

use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::vm;
use super::wiring::KvmWiring;
use crate::control::Disk;
use crate::devices::block::Block;
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
    /// Its name to the controller.
    name: String,
    device: Box<dyn Device>,
    offer: Offer,
    is_disk: bool,
}

impl Loose {
    /// A device of this name that is no disk.
    pub fn new(name: impl Into<String>, device: impl Device + 'static, offer: Offer) -> Self {
        Self {
            name: name.into(),
            device: Box::new(device),
            offer,
            is_disk: false,
        }
    }

    /// A disk, named by its serial or else by its index.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub fn disk(index: usize, disk: Disk, vcpus: u8) -> Result<Self> {
        let (block, offer) = Block::new(
            disk.file,
            disk.read_only,
            &disk.serial,
            u16::from(vcpus),
            disk.engine,
            &disk.limits,
        )
        .map_err(|source| Error::Disk { index, source })?;
        let name = match disk.serial {
            serial if serial.is_empty() => format!("disk{index}"),
            serial => serial,
        };
        Ok(Self {
            is_disk: true,
            ..Self::new(name, block, offer)
        })
    }
}

/// A device with queues and what belongs to it.
pub struct Slot {
    /// Its name to the controller.
    pub name: String,
    /// The device.
    pub device: Box<dyn Device>,
    /// Its way to the driver.
    pub interrupt: Interrupt,
    /// One for each queue.
    pub doorbells: Vec<Arc<EventFd>>,
    /// It broke down and is not called until it is reset.
    pub faulted: bool,
    /// How often it has broken down.
    pub faults: u32,
    /// Whether it can be detached.
    pub is_disk: bool,
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

    /// The virtual machine.
    #[must_use]
    pub fn vm(&self) -> &VmFd {
        &self.vm
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
        let (slot, negotiator) =
            self.start(index, loose, interrupt, doorbells, poller, guest_connects)?;
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
        let (slot, negotiator) = self.start(
            index,
            loose,
            interrupt,
            doorbells.clone(),
            poller,
            guest_connects,
        )?;
        let function = VirtioFunction::new(
            negotiator,
            doorbells,
            Msix::new(vectors, Arc::clone(&wiring), pci_gsi(number)),
            wiring,
            pci_window(number),
        );
        Ok((slot, function))
    }

    fn start(
        &self,
        index: u8,
        loose: Loose,
        interrupt: Interrupt,
        doorbells: Vec<Arc<EventFd>>,
        poller: &Poller,
        guest_connects: &mut GuestConnects,
    ) -> Result<(Slot, Negotiator)> {
        let negotiator = Negotiator::new(
            loose.offer,
            interrupt.clone(),
            doorbells.clone(),
            Arc::clone(&self.ram),
        );
        let mut slot = Slot {
            name: loose.name,
            device: loose.device,
            interrupt,
            doorbells,
            faulted: false,
            faults: 0,
            is_disk: loose.is_disk,
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
        Ok((slot, negotiator))
    }
}

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
