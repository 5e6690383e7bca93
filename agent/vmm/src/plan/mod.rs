//! What a machine will be: every address, interrupt and table, decided without touching anything.

pub mod acpi;
pub mod layout;

use layout::{RamLayout, VIRTIO_FIRST_GSI, VIRTIO_MMIO_BASE, VIRTIO_MMIO_SIZE};

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

/// A machine on paper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How many vCPUs; APIC ids are 0 and up.
    pub vcpus: u8,
    /// Where RAM is.
    pub ram: RamLayout,
    /// The virtio devices' places, in the guest's order of discovery.
    pub virtio: Vec<VirtioSlot>,
    /// The ACPI tables, to be placed at [`layout::ACPI_TABLES`]; the RSDP is at the start.
    pub acpi: Vec<u8>,
}

impl Plan {
    /// Plans a machine. `devices` is at most [`layout::MAX_VIRTIO_DEVICES`].
    #[must_use]
    pub fn new(vcpus: u8, memory_mib: u32, devices: u8) -> Self {
        let virtio: Vec<VirtioSlot> = (0..devices).map(VirtioSlot::at).collect();
        let acpi = acpi::tables(vcpus, &virtio);
        Self {
            vcpus,
            ram: RamLayout::new(memory_mib),
            virtio,
            acpi,
        }
    }
}
