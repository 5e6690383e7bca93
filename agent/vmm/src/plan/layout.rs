//! Where everything is in the guest's address spaces.
//!
//! ```text
//! 0x0000_0500  GDT, then PVH or Linux boot structures, page tables, command line   (free again after boot)
//! 0x0009_fc00  end of conventional memory
//! 0x000e_0000  ACPI tables, RSDP first; the generation identifier; the reset code      (reserved)
//! 0x0010_0000  RAM: kernel from its own address, initramfs at the top of low RAM
//! 0xc000_0000  end of low RAM at most; the gap: virtio-mmio or PCI windows and ECAM, IOAPIC, LAPIC, KVM's pages
//! 0x1_0000_0000  high RAM
//! ```

use crate::pci::DEVICES;
use crate::virtio::pci::{MAX_VECTORS, WINDOW_SIZE};

/// One mebibyte.
pub const MIB: u64 = 1 << 20;

/// Where the gap for devices begins: low RAM ends here at the latest.
pub const GAP_START: u64 = 0xc000_0000;
/// Where high RAM begins.
pub const GAP_END: u64 = 0x1_0000_0000;
/// First page of the first virtio-mmio device.
pub const VIRTIO_MMIO_BASE: u64 = 0xd000_0000;
/// Each virtio-mmio device has one page.
pub const VIRTIO_MMIO_SIZE: u64 = 0x1000;
/// Where PCI functions' windows are and may be moved to.
pub const PCI_WINDOW_START: u64 = 0xd800_0000;
/// First address after them.
pub const PCI_WINDOW_END: u64 = 0xe000_0000;
/// PCI configuration registers in memory, of one bus.
pub const PCI_ECAM: u64 = 0xe000_0000;
/// 4 KiB for each of 256 functions.
pub const PCI_ECAM_SIZE: u64 = 0x10_0000;
/// The IOAPIC, where KVM's in-kernel one is.
pub const IOAPIC_BASE: u32 = 0xfec0_0000;
/// The local APICs.
pub const LAPIC_BASE: u32 = 0xfee0_0000;
/// One page for the identity map Intel's VMX needs for real mode; three pages for the task segment follow.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages for VMX's task segment.
pub const KVM_TSS: u64 = 0xfffb_d000;

/// The GDT's place.
pub const GDT: u64 = 0x500;
/// `hvm_start_info` (PVH).
pub const PVH_START_INFO: u64 = 0x6000;
/// The module list (PVH): one entry, the initramfs.
pub const PVH_MODULES: u64 = 0x6040;
/// The memory map (PVH).
pub const PVH_MEMORY_MAP: u64 = 0x7000;
/// `boot_params` (64-bit boot protocol).
pub const ZERO_PAGE: u64 = 0x8000;
/// Page tables: PML4, PDPT, then four page directories for 4 GiB of 2 MiB pages.
pub const PAGE_TABLES: u64 = 0x9000;
/// Top of the stack the kernel is entered with.
pub const BOOT_STACK: u64 = 0x1_8000;
/// The command line.
pub const CMDLINE: u64 = 0x2_0000;
/// Longest command line without its NUL: x86 Linux's COMMAND_LINE_SIZE is 2048.
pub const CMDLINE_MAX: usize = 2047;
/// End of conventional memory; the extended BIOS data area would begin here.
pub const CONVENTIONAL_END: u64 = 0x9_fc00;
/// The ACPI tables, within the range where an RSDP is searched.
pub const ACPI_TABLES: u64 = 0xe_0000;
/// Room for them.
pub const ACPI_TABLES_SIZE: u64 = 0x1_f000;
/// The generation identifier, sixteen bytes on a page of their own: reserved up to 1 MiB, like the tables.
pub const VMGENID: u64 = ACPI_TABLES + ACPI_TABLES_SIZE;
/// Where a processor would begin after a reset, in real mode: the end of the first mebibyte.
pub const RESET_VECTOR: u64 = HIGH_MEMORY - 0x10;
/// Where RAM above the first mebibyte begins.
pub const HIGH_MEMORY: u64 = 0x10_0000;

/// COM1's first I/O port, of eight.
pub const SERIAL_PORT: u16 = 0x3f8;
/// COM1's interrupt.
pub const SERIAL_GSI: u32 = 4;
/// ACPI sleep control register, one byte.
pub const SLEEP_CONTROL_PORT: u16 = 0x600;
/// ACPI sleep status register, one byte.
pub const SLEEP_STATUS_PORT: u16 = 0x601;
/// ACPI reset register, one byte.
pub const RESET_PORT: u16 = 0x602;
/// What the reset register takes.
pub const RESET_VALUE: u8 = 0x52;
/// Events that the generic event device is to tell, one byte; cleared by reading.
pub const EVENTS_PORT: u16 = 0x603;
/// PCI devices that have come, 32 bits; cleared by reading.
pub const HOTPLUG_ADDED_PORT: u16 = 0x604;
/// PCI devices that are asked to leave, 32 bits; cleared by reading.
pub const HOTPLUG_REMOVED_PORT: u16 = 0x608;
/// PCI devices that the guest lets go, 32 bits, written.
pub const HOTPLUG_EJECT_PORT: u16 = 0x60c;
/// Which PCI configuration register the data port stands for, 32 bits.
pub const PCI_CONFIG_ADDRESS_PORT: u16 = 0xcf8;
/// The data port, of four bytes.
pub const PCI_CONFIG_DATA_PORT: u16 = 0xcfc;
/// Interrupt of the generic event device.
pub const EVENTS_GSI: u32 = 5;
/// First interrupt of the virtio devices.
pub const VIRTIO_FIRST_GSI: u32 = 6;
/// The IOAPIC's pins, 0 to 23.
pub const IOAPIC_PINS: u32 = 24;
/// virtio devices a machine can have: each has a pin of its own.
pub const MAX_MMIO_DEVICES: usize = (IOAPIC_PINS - VIRTIO_FIRST_GSI) as usize;
/// virtio devices a machine can have on its PCI bus: all numbers but the host bridge's.
pub const MAX_PCI_DEVICES: usize = DEVICES - 1;
/// First interrupt that is a message.
pub const PCI_FIRST_GSI: u32 = IOAPIC_PINS;
/// Interrupts KVM routes (KVM_MAX_IRQ_ROUTES).
const MAX_GSIS: usize = 4096;

const _: () = assert!(PAGE_TABLES + 6 * 0x1000 <= BOOT_STACK);
const _: () = assert!(CMDLINE + (CMDLINE_MAX as u64) < CONVENTIONAL_END);
const _: () = assert!(VMGENID + 0x1000 == HIGH_MEMORY);
const _: () = assert!(VMGENID + 16 <= RESET_VECTOR);
const _: () = assert!(VIRTIO_MMIO_BASE >= GAP_START);
const _: () =
    assert!(VIRTIO_MMIO_BASE + MAX_MMIO_DEVICES as u64 * VIRTIO_MMIO_SIZE <= IOAPIC_BASE as u64);
const _: () = assert!(
    VIRTIO_MMIO_BASE + MAX_MMIO_DEVICES as u64 * VIRTIO_MMIO_SIZE <= PCI_WINDOW_START
        && PCI_WINDOW_START + DEVICES as u64 * WINDOW_SIZE <= PCI_WINDOW_END
        && PCI_WINDOW_END <= PCI_ECAM
        && PCI_ECAM + PCI_ECAM_SIZE <= IOAPIC_BASE as u64
);
const _: () = assert!(PCI_FIRST_GSI as usize + DEVICES * MAX_VECTORS <= MAX_GSIS);
const _: () = assert!(KVM_IDENTITY_MAP + 0x1000 == KVM_TSS && KVM_TSS + 0x3000 <= GAP_END);

/// A range of guest-physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub length: u64,
}

impl Range {
    /// First address after the range.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start + self.length
    }
}

/// How much RAM is below the gap and how much above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RamLayout {
    low: u64,
    high: u64,
}

impl RamLayout {
    /// Splits `mib` MiB around the gap.
    #[must_use]
    pub const fn new(mib: u32) -> Self {
        let total = mib as u64 * MIB;
        if total <= GAP_START {
            Self {
                low: total,
                high: 0,
            }
        } else {
            Self {
                low: GAP_START,
                high: total - GAP_START,
            }
        }
    }

    /// First address after low RAM.
    #[must_use]
    pub const fn low_end(self) -> u64 {
        self.low
    }

    /// First address after all RAM.
    #[must_use]
    pub const fn end(self) -> u64 {
        if self.high == 0 {
            self.low
        } else {
            GAP_END + self.high
        }
    }

    /// All RAM, bytes.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.low + self.high
    }

    /// The mapped regions, in ascending order.
    pub fn regions(&self) -> impl Iterator<Item = Range> {
        [
            Range {
                start: 0,
                length: self.low,
            },
            Range {
                start: GAP_END,
                length: self.high,
            },
        ]
        .into_iter()
        .filter(|region| region.length > 0)
    }

    /// The memory map the guest is given: ranges and whether they are usable RAM.
    pub fn memory_map(&self) -> impl Iterator<Item = (Range, bool)> {
        [
            (
                Range {
                    start: 0,
                    length: CONVENTIONAL_END,
                },
                true,
            ),
            (
                Range {
                    start: CONVENTIONAL_END,
                    length: HIGH_MEMORY - CONVENTIONAL_END,
                },
                false,
            ),
            (
                Range {
                    start: HIGH_MEMORY,
                    length: self.low - HIGH_MEMORY,
                },
                true,
            ),
            (
                Range {
                    start: GAP_END,
                    length: self.high,
                },
                true,
            ),
        ]
        .into_iter()
        .filter(|(range, _)| range.length > 0)
    }
}

/// Where an initramfs of `length` bytes goes: as high as it can below `before`, page-aligned, and from `after` on;
/// `None` when there is no room.
#[must_use]
pub fn initramfs(length: u64, after: u64, before: u64) -> Option<u64> {
    let address = before.checked_sub(length)? & !0xfff;
    (address >= after.max(HIGH_MEMORY)).then_some(address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ram_is_whole_and_never_in_the_gap(mib in 32u32..=524_288) {
            let layout = RamLayout::new(mib);
            prop_assert_eq!(layout.total(), u64::from(mib) * MIB);
            prop_assert_eq!(layout.regions().map(|region| region.length).sum::<u64>(), layout.total());
            for region in layout.regions() {
                prop_assert!(region.end() <= GAP_START || region.start >= GAP_END);
            }
            let mut last = 0;
            for (range, _) in layout.memory_map() {
                prop_assert!(range.start >= last);
                last = range.end();
            }
            let usable: u64 = layout.memory_map().filter(|(_, usable)| *usable).map(|(range, _)| range.length).sum();
            prop_assert_eq!(usable, layout.total() - (HIGH_MEMORY - CONVENTIONAL_END));
        }

        #[test]
        fn the_initramfs_lies_between_the_kernel_and_the_end(mib in 32u32..8192, length in 1u64..(64 * MIB)) {
            let layout = RamLayout::new(mib);
            let kernel_end = 24 * MIB;
            if let Some(address) = initramfs(length, kernel_end, layout.low_end()) {
                prop_assert!(address % 4096 == 0 && address >= kernel_end && address + length <= layout.low_end());
            } else {
                prop_assert!(layout.low_end() < kernel_end + length + 4096);
            }
        }
    }

    #[test]
    fn half_a_tebibyte_ends_within_what_forty_bits_address() {
        let layout = RamLayout::new(512 * 1024);
        let map: Vec<_> = layout.memory_map().collect();
        assert_eq!(layout.end(), GAP_END + 509 * 1024 * MIB);
        assert!(layout.end() <= 1 << 40);
        let (last, usable) = map[map.len() - 1];
        assert_eq!(
            (last.start, last.end(), usable),
            (GAP_END, layout.end(), true)
        );
    }

    #[test]
    fn four_gib_leave_one_above_the_gap() {
        let layout = RamLayout::new(4096);
        let regions: Vec<_> = layout.regions().collect();
        assert_eq!(
            regions[0],
            Range {
                start: 0,
                length: 0xc000_0000
            }
        );
        assert_eq!(
            regions[1],
            Range {
                start: GAP_END,
                length: 0x4000_0000
            }
        );
    }
}
