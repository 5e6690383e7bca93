//! ACPI tables of a hardware-reduced machine: no fixed hardware but the sleep and reset registers.
//!
//! Linux finds virtio-mmio devices (`LNRO0005`) or the PCI host bridge, the serial port, the power button and the
//! generation identifier here; nothing is probed for.

mod dsdt;
mod pci;

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;

use super::Places;
use super::layout::{
    ACPI_TABLES, ACPI_TABLES_SIZE, IOAPIC_BASE, LAPIC_BASE, PCI_ECAM, RESET_PORT, RESET_VALUE,
    SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT,
};

/// The sleep type that means power off: first element of `\_S5`, and what the guest writes to sleep control.
pub const S5_SLEEP_TYPE: u8 = 5;

/// A bit of the register behind the generic event device, read by its method `_EVT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// The power button was pressed.
    PowerButton = 1,
    /// The generation identifier has changed.
    Generation = 2,
    /// PCI devices have come or are asked to leave.
    Devices = 4,
}

/// IA-PC boot architecture flags (ACPI 6.5, table 5.10): VGA, MSI-less and CMOS clock. A set bit says "not there".
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_CLOCK: u16 = 1 << 5;

const OEM_ID: [u8; 6] = *b"CRNVMM";
const OEM_TABLE_ID: [u8; 8] = *b"CRNVMM  ";
const OEM_REVISION: u32 = 1;

/// All tables, RSDP first, linked for [`ACPI_TABLES`].
#[must_use]
pub fn tables(vcpus: u8, places: &Places) -> Vec<u8> {
    let mut image = Image {
        bytes: vec![0; Rsdp::len()],
    };
    let dsdt = image.place(&dsdt::dsdt(places));
    let fadt = image.place(&fadt(dsdt));
    let madt = image.place(&madt(vcpus));
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    if matches!(places, Places::Pci) {
        xsdt.add_entry(image.place(&mcfg()));
    }
    let xsdt = image.place(&xsdt);
    let mut rsdp = Vec::with_capacity(Rsdp::len());
    Rsdp::new(OEM_ID, xsdt).to_aml_bytes(&mut rsdp);
    image.bytes[..rsdp.len()].copy_from_slice(&rsdp);
    debug_assert!(image.bytes.len() as u64 <= ACPI_TABLES_SIZE);
    image.bytes
}

struct Image {
    bytes: Vec<u8>,
}

impl Image {
    /// Appends a table at the next 16-byte boundary; returns its guest address.
    fn place(&mut self, table: &dyn Aml) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        let address = ACPI_TABLES + self.bytes.len() as u64;
        table.to_aml_bytes(&mut self.bytes);
        address
    }
}

fn io_register(port: u16) -> GAS {
    GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        u64::from(port),
    )
}

fn fadt(dsdt: u64) -> impl Aml {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = (NO_VGA | NO_CMOS_CLOCK).into();
    fadt.reset_reg = io_register(RESET_PORT);
    fadt.reset_value = RESET_VALUE;
    fadt.sleep_control_reg = io_register(SLEEP_CONTROL_PORT);
    fadt.sleep_status_reg = io_register(SLEEP_STATUS_PORT);
    fadt.finalize()
}

fn madt(vcpus: u8) -> MADT {
    let mut madt = MADT::new(
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
        LocalInterruptController::Address(LAPIC_BASE),
    );
    for id in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, IOAPIC_BASE, 0));
    madt
}

/// Where the configuration registers of bus 0 are (PCI Firmware 3.2, section 4.1.2).
fn mcfg() -> MCFG {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(PCI_ECAM, 0, 0, 0);
    mcfg
}

#[cfg(test)]
mod tests {
    use crn_protocol::control::Transport;

    use super::*;
    use crate::plan::Plan;

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    /// The table at a guest address, its checksum verified.
    fn table(image: &[u8], address: u64) -> &[u8] {
        let start = (address - ACPI_TABLES) as usize;
        let length = u32_at(image, start + 4) as usize;
        let table = &image[start..start + length];
        assert_eq!(
            table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)),
            0,
            "checksum"
        );
        table
    }

    #[test]
    fn every_table_is_reachable_from_the_rsdp_with_a_right_checksum() {
        let image = Plan::new(64, 1024, Transport::Mmio, 18).acpi;
        assert!(image.len() as u64 <= ACPI_TABLES_SIZE);
        assert_eq!(&image[..8], b"RSD PTR ");
        assert_eq!(
            image[..36]
                .iter()
                .fold(0u8, |sum, byte| sum.wrapping_add(*byte)),
            0
        );
        let xsdt = table(&image, u64_at(&image, 24));
        assert_eq!(&xsdt[..4], b"XSDT");
        let names: Vec<&[u8]> = (0..2)
            .map(|n| &table(&image, u64_at(xsdt, 36 + 8 * n))[..4])
            .collect();
        assert_eq!(names, [b"FACP", b"APIC"]);
        let fadt = table(&image, u64_at(xsdt, 36));
        assert_eq!(&table(&image, u64_at(fadt, 140))[..4], b"DSDT");
    }

    #[test]
    fn the_fadt_names_the_reset_and_sleep_registers() {
        let image = Plan::new(1, 64, Transport::Mmio, 1).acpi;
        let xsdt = table(&image, u64_at(&image, 24));
        let fadt = table(&image, u64_at(xsdt, 36));
        assert_eq!(fadt.len(), 276);
        let flags = u32_at(fadt, 112);
        assert_ne!(flags & 1 << 20, 0, "hardware-reduced");
        assert_ne!(flags & 1 << 10, 0, "reset register supported");
        assert_eq!(
            (fadt[116], u64_at(fadt, 120), fadt[128]),
            (1, u64::from(RESET_PORT), RESET_VALUE)
        );
        assert_eq!(
            (fadt[244], u64_at(fadt, 248)),
            (1, u64::from(SLEEP_CONTROL_PORT))
        );
        assert_eq!(
            (fadt[256], u64_at(fadt, 260)),
            (1, u64::from(SLEEP_STATUS_PORT))
        );
    }

    #[test]
    fn the_madt_has_a_local_apic_for_each_vcpu_and_one_ioapic() {
        let image = Plan::new(3, 64, Transport::Mmio, 0).acpi;
        let xsdt = table(&image, u64_at(&image, 24));
        let madt = table(&image, u64_at(xsdt, 44));
        assert_eq!(madt.len(), 44 + 3 * 8 + 12);
        assert_eq!(&madt[44 + 8..44 + 16], &[0, 8, 1, 1, 1, 0, 0, 0]);
        assert_eq!(&madt[44 + 24..44 + 26], &[1, 12]);
    }

    #[test]
    fn sixty_four_vcpus_are_all_in_the_madt() {
        let image = Plan::new(64, 64, Transport::Pci, 1).acpi;
        let xsdt = table(&image, u64_at(&image, 24));
        let madt = table(&image, u64_at(xsdt, 44));
        assert_eq!(madt.len(), 44 + 64 * 8 + 12);
        for id in 0..64 {
            let at = 44 + usize::from(id) * 8;
            assert_eq!(madt[at..at + 8], [0, 8, id, id, 1, 0, 0, 0]);
        }
    }

    #[test]
    fn the_dsdt_lists_each_virtio_device() {
        let image = Plan::new(1, 64, Transport::Mmio, 2).acpi;
        let text = String::from_utf8_lossy(&image);
        assert_eq!(text.matches("LNRO0005").count(), 2);
        assert!(text.contains("V000") && text.contains("V001") && text.contains("ACPI0013"));
        assert!(text.contains("VMGENCTR"));
    }

    #[test]
    fn a_machine_with_pci_says_where_its_configuration_registers_are() {
        let image = Plan::new(64, 1024, Transport::Pci, 4).acpi;
        assert!(image.len() as u64 <= ACPI_TABLES_SIZE);
        let xsdt = table(&image, u64_at(&image, 24));
        let mcfg = table(&image, u64_at(xsdt, 52));
        assert_eq!((&mcfg[..4], u64_at(mcfg, 44)), (&b"MCFG"[..], PCI_ECAM));
        assert_eq!(mcfg[52..56], [0; 4], "segment 0, bus 0 to 0");
        let text = String::from_utf8_lossy(&image);
        for name in [
            "PCI0", "_CBA", "_SEG", "_BBN", "S01_", "S31_", "_EJ0", "PCNT",
        ] {
            assert!(text.contains(name), "{name}");
        }
        assert!(!text.contains("LNRO0005"));
    }
}
