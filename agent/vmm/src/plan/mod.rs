//! What a machine will be: every address, interrupt and table, decided without touching anything.

pub mod acpi;
pub mod layout;

use crn_protocol::control::Transport;
use layout::{
    PCI_ECAM, PCI_ECAM_SIZE, PCI_FIRST_GSI, PCI_WINDOW_START, RamLayout, Range, VIRTIO_FIRST_GSI,
    VIRTIO_MMIO_BASE, VIRTIO_MMIO_SIZE,
};

use crate::virtio::pci::{MAX_VECTORS, WINDOW_SIZE};

/// A virtio device's place: its page of registers and its interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtioSlot {
    /// First address of its register page.
    pub address: u64,
    /// Its interrupt.
    pub gsi: u32,
}

impl VirtioSlot {
    /// The place of the device with this index.
    #[must_use]
    pub const fn at(index: u8) -> Self {
        Self {
            address: VIRTIO_MMIO_BASE + index as u64 * VIRTIO_MMIO_SIZE,
            gsi: VIRTIO_FIRST_GSI + index as u32,
        }
    }
}

/// The virtio devices' places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Places {
    /// In the guest's order of discovery.
    Mmio(Vec<VirtioSlot>),
    /// The numbers from 1 up on the one bus; see [`pci_window`].
    Pci,
}

/// Where the window of the PCI device with this number is at first.
#[must_use]
pub const fn pci_window(number: u8) -> u64 {
    PCI_WINDOW_START + number as u64 * WINDOW_SIZE
}

/// The first interrupt of the PCI device with this number.
#[must_use]
pub const fn pci_gsi(number: u8) -> u32 {
    PCI_FIRST_GSI + number as u32 * MAX_VECTORS as u32
}

/// A machine on paper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How many vCPUs; APIC ids are 0 and up.
    pub vcpus: u8,
    /// Where RAM is.
    pub ram: RamLayout,
    /// Where the virtio devices are.
    pub places: Places,
    /// The ACPI tables, to be placed at [`layout::ACPI_TABLES`]; the RSDP is at the start.
    pub acpi: Vec<u8>,
}

impl Plan {
    /// Plans a machine. `devices` is at most [`layout::MAX_MMIO_DEVICES`] or [`layout::MAX_PCI_DEVICES`].
    #[must_use]
    pub fn new(vcpus: u8, memory_mib: u32, transport: Transport, devices: u8) -> Self {
        let places = match transport {
            Transport::Mmio => Places::Mmio((0..devices).map(VirtioSlot::at).collect()),
            Transport::Pci => Places::Pci,
        };
        let acpi = acpi::tables(vcpus, &places);
        Self {
            vcpus,
            ram: RamLayout::new(memory_mib),
            places,
            acpi,
        }
    }

    /// The memory map the guest is given: ranges and whether they are usable RAM.
    pub fn memory_map(&self) -> impl Iterator<Item = (Range, bool)> {
        // Linux uses ECAM only where the memory map says that nobody else does.
        let ecam = matches!(self.places, Places::Pci).then_some((
            Range {
                start: PCI_ECAM,
                length: PCI_ECAM_SIZE,
            },
            false,
        ));
        let (low, high): (Vec<_>, Vec<_>) = self
            .ram
            .memory_map()
            .partition(|(range, _)| range.start < PCI_ECAM);
        low.into_iter().chain(ecam).chain(high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_with_pci_keeps_its_configuration_registers_free_of_ram() {
        for mib in [64, 3072, 8192] {
            let map: Vec<_> = Plan::new(1, mib, Transport::Pci, 0).memory_map().collect();
            assert!(map.is_sorted_by_key(|(range, _)| range.start));
            let ecam = map.iter().find(|(range, _)| range.start == PCI_ECAM);
            assert_eq!(
                ecam.map(|(range, usable)| (range.length, *usable)),
                Some((PCI_ECAM_SIZE, false))
            );
            let without = Plan::new(1, mib, Transport::Mmio, 0).memory_map().count();
            assert_eq!(map.len(), without + 1);
        }
    }

    #[test]
    fn every_pci_device_has_a_window_and_interrupts_of_its_own() {
        for number in 1..crate::pci::DEVICES as u8 {
            assert_eq!(pci_window(number) % WINDOW_SIZE, 0);
            assert!(pci_window(number) + WINDOW_SIZE <= layout::PCI_WINDOW_END);
            assert_eq!(pci_gsi(number) - pci_gsi(number - 1), MAX_VECTORS as u32);
        }
    }
}
