//! A machine's snapshot, and devices that go on from one.

use std::fs::File;

use kvm_ioctls::VmFd;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::Machine;
use super::bus::Transports;
use super::plug::Slot;
use crate::Result;
use crate::devices::{Context, GuestConnects};
use crate::memory::Ram;
use crate::plan::layout::MIB;
use crate::poller::Poller;
use crate::snapshot::board::{Board, PciRegisters};
use crate::snapshot::device::{Device, Identity};
use crate::snapshot::identity::random;
use crate::snapshot::{Snapshot, SnapshotError, memory};
use crate::virtio::Negotiator;
use crate::virtio::negotiate::Live;

impl Machine {
    /// Writes the machine, which is paused, into two files: empty ones, or with `differences` an empty one and a copy of
    /// the memory file before.
    ///
    /// # Errors
    /// [`SnapshotError`], [`crate::Error::Kvm`]: the machine can go on as if nothing had been.
    pub fn snapshot(
        &mut self,
        state_file: &File,
        memory_file: &File,
        differences: bool,
    ) -> Result<()> {
        let former = match (differences, self.tie) {
            (false, _) => None,
            (true, Some(tie)) => Some(tie),
            (true, None) => return Err(SnapshotError::First.into()),
        };
        if self.plugged || self.slots.iter().any(Option::is_none) {
            return Err(SnapshotError::Plugged.into());
        }
        for slot in self.slots.iter_mut().flatten() {
            slot.device.flush().map_err(|source| SnapshotError::Flush {
                name: slot.name.clone(),
                source,
            })?;
        }
        let mut vcpus = self.shared.gate.ask();
        if vcpus.len() != usize::from(self.vcpus()) {
            return Err(SnapshotError::Vcpus.into());
        }
        vcpus.sort_by_key(|(index, _)| *index);
        let bus = &self.shared.bus;
        let pci = self.pci.as_ref().map(|bus| PciRegisters {
            address: bus.config_address(),
            hotplug: bus.hotplug().save(),
        });
        let vm: &VmFd = self.socket.vm();
        let (serial, causes) = (bus.serial_state(), self.events.peek());
        let memory_bytes: u64 = self.ram.iter().map(GuestMemoryRegion::len).sum();
        let tie = random().map_err(|error| SnapshotError::Write("state", error))?;
        let snapshot = Snapshot {
            host: self.host.clone(),
            memory_mib: (memory_bytes / MIB) as u32,
            tie,
            board: Board::save(vm, self.tsc_khz, serial, causes, pci)?,
            vcpus: vcpus
                .into_iter()
                .map(|(_, vcpu)| vcpu)
                .collect::<Result<_>>()?,
            devices: self
                .slots
                .iter()
                .flatten()
                .enumerate()
                .filter_map(|(index, slot)| bus.transports().save(index, slot))
                .collect(),
        };
        match former {
            None => memory::write(&self.ram, memory_file, tie)?,
            Some(former) => memory::update(&self.ram, memory_file, former, tie)?,
        }
        snapshot.write(state_file)?;
        self.tie = Some(tie);
        Ok(())
    }
}

/// What a device is, for comparison.
fn identity(name: &str, negotiator: &Negotiator) -> Identity {
    let offer = negotiator.offer();
    Identity {
        name: name.to_owned(),
        device_id: offer.device_id,
        features: offer.features,
        queue_sizes: offer.queue_sizes.clone(),
        config: offer.config.fixed(offer.config.bytes()),
    }
}

fn saved(slot: &Slot, negotiator: &Negotiator) -> Device {
    Device {
        identity: identity(&slot.name, negotiator),
        negotiation: negotiator.save(),
        progress: slot.device.progress(),
        own: slot.device.save(),
        function: None,
    }
}

impl Transports {
    /// A device and its registers.
    fn save(&self, index: usize, slot: &Slot) -> Option<Device> {
        match self {
            Self::Mmio(_) => {
                let transport = self.mmio(index)?;
                Some(saved(slot, transport.negotiator()))
            }
            Self::Pci(bus) => bus.with(index as u8 + 1, |function| Device {
                function: Some(function.save()),
                ..saved(slot, function.negotiator())
            }),
        }
    }

    /// Takes a device's registers up; what the device is to go on with, if it is to.
    fn restore(
        &self,
        index: usize,
        slot: &Slot,
        device: &Device,
    ) -> Result<Option<Live>, SnapshotError> {
        let take_up = |negotiator: &mut Negotiator| {
            device.identity.check(&identity(&slot.name, negotiator))?;
            negotiator
                .restore(&device.negotiation, &device.progress)
                .map_err(|what| device.refuse(what))
        };
        let missing = || Err(device.refuse("no place on the bus"));
        match self {
            Self::Mmio(_) => self
                .mmio(index)
                .map_or_else(missing, |mut transport| take_up(transport.negotiator_mut())),
            Self::Pci(bus) => {
                let Some(saved) = &device.function else {
                    return Err(device.refuse("no function"));
                };
                bus.with(index as u8 + 1, |function| {
                    function.restore(saved);
                    take_up(function.negotiator_mut())
                })
                .unwrap_or_else(missing)
            }
        }
    }
}

/// Has new devices go on where those of the snapshot were.
///
/// # Errors
/// [`SnapshotError`] with the first device that differs or cannot.
pub fn go_on(
    devices: &[Device],
    transports: &Transports,
    slots: &mut [Option<Slot>],
    ram: &Ram,
    poller: &Poller,
    guest_connects: &mut GuestConnects,
) -> Result<(), SnapshotError> {
    if devices.len() != slots.len() {
        return Err(SnapshotError::Configuration {
            what: "devices",
            made: devices.len().to_string(),
            here: slots.len().to_string(),
        });
    }
    for (index, (slot, device)) in slots.iter_mut().flatten().zip(devices).enumerate() {
        let live = transports.restore(index, slot, device)?;
        slot.faulted = device.negotiation.needs_reset;
        if let Some((features, queues)) = live {
            slot.device.restore(&device.own);
            let mut context = Context {
                ram,
                poller,
                interrupt: &slot.interrupt,
                index: index as u8,
                guest_connects,
            };
            slot.device
                .activate(features, queues, &mut context)
                .map_err(|source| SnapshotError::DeviceFault {
                    name: slot.name.clone(),
                    source,
                })?;
            // The host's part of it may be another one.
            slot.interrupt.config_changed();
        }
        slot.interrupt.repeat();
    }
    Ok(())
}

/// The registers of the PCI bus itself.
pub fn restore_bus(board: &Board, transports: &Transports) {
    if let (Some(registers), Transports::Pci(bus)) = (&board.pci, transports) {
        bus.set_config_address(registers.address);
        bus.hotplug().restore(registers.hotplug);
    }
}
