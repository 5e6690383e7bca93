//! Devices that come and go while the machine runs, on PCI only: the guest is told through ACPI.

use std::sync::Arc;

use super::Machine;
use super::plug::Loose;
use crate::control::Disk;
use crate::devices::GuestConnects;
use crate::error::os;
use crate::pci::PciBus;
use crate::plan::acpi::Cause;
use crate::plan::layout::MAX_PCI_DEVICES;
use crate::poller::Poller;
use crate::{Error, Result};

impl Machine {
    /// Attaches a disk and tells the guest.
    ///
    /// # Errors
    /// [`Error::Attach`] when there is no place for it, [`Error::Disk`], [`Error::Os`].
    pub fn attach_disk(
        &mut self,
        disk: Disk,
        poller: &Poller,
        guest_connects: &mut GuestConnects,
    ) -> Result<()> {
        let bus = self.bus()?;
        if self.index_of(&disk.serial).is_some() {
            return Err(Error::Attach("a disk with this serial is attached already"));
        }
        let is_free = |index: &usize| {
            self.lost & 1 << index == 0 && self.slots.get(*index).is_none_or(Option::is_none)
        };
        let index = (0..MAX_PCI_DEVICES)
            .find(is_free)
            .ok_or(Error::Attach("the bus is full"))?;
        let loose = Loose::disk(index, disk, self.vcpus())?;
        self.plugged = true;
        let (index, number) = (index as u8, index as u8 + 1);
        let (slot, function) = self.socket.pci(index, loose, poller, guest_connects)?;
        bus.insert(number, function);
        if self.slots.len() <= usize::from(index) {
            self.slots.resize_with(usize::from(index) + 1, || None);
        }
        self.slots[usize::from(index)] = Some(slot);
        bus.hotplug().announce(number);
        self.events
            .raise(Cause::Devices)
            .map_err(os("tell the guest of a device"))
    }

    /// Asks the guest to let a disk go; the disk's index. It is gone when the guest says so.
    ///
    /// # Errors
    /// [`Error::Attach`] when there is no such disk, [`Error::Os`].
    pub fn detach_disk(&self, serial: &str) -> Result<usize> {
        let bus = self.bus()?;
        let index = self
            .index_of(serial)
            .ok_or(Error::Attach("no disk has this serial"))?;
        bus.hotplug().request(index as u8 + 1);
        self.events
            .raise(Cause::Devices)
            .map_err(os("ask the guest for a device"))?;
        Ok(index)
    }

    /// Takes a device off the bus that the guest has not let go, and tells the guest; whether there was one. `None`
    /// when it cannot be done at this moment. A late answer of the guest would mean whatever stands there then, so
    /// nothing ever will.
    pub fn withdraw(&mut self, index: usize) -> Option<bool> {
        let present = self.pci.as_ref()?.withdraw(index as u8 + 1)?;
        if present {
            self.lost |= 1 << index;
            if let Err(error) = self.events.raise(Cause::Devices) {
                tracing::debug!(%error, "the guest is not told that a device has gone");
            }
        }
        Some(present)
    }

    fn bus(&self) -> Result<Arc<PciBus>> {
        self.pci
            .clone()
            .ok_or(Error::Attach("devices come and go on PCI only"))
    }

    fn index_of(&self, serial: &str) -> Option<usize> {
        self.slots.iter().position(|slot| {
            slot.as_ref()
                .is_some_and(|slot| slot.is_disk && slot.name == serial)
        })
    }
}
