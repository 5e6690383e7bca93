//! What a kernel entered in long mode is told: `boot_params`, and page tables to be entered with
//! (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").

use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_params, setup_header};
use vm_memory::GuestAddress;

use super::{MAP_RAM, MAP_RESERVED, place};
use crate::machine::vcpu::{BOOT_CS, CODE_64};
use crate::memory::Ram;
use crate::plan::Plan;
use crate::plan::layout::{ACPI_TABLES, CMDLINE, GDT, PAGE_TABLES, Range, ZERO_PAGE};
use crate::{Error, Result};

/// The header of a kernel that has none, an ELF file.
#[must_use]
pub fn plain_header() -> setup_header {
    setup_header {
        boot_flag: 0xaa55,
        header: 0x5372_6448,
        kernel_alignment: 0x100_0000,
        ..Default::default()
    }
}

/// Writes `boot_params`, page tables and the code segment's descriptor.
///
/// # Errors
/// [`Error::WriteBootParameters`], [`Error::WriteBoot`].
pub fn write(
    ram: &Ram,
    plan: &Plan,
    header: setup_header,
    initramfs: Option<Range>,
    cmdline_length: usize,
) -> Result<()> {
    let mut parameters = boot_params {
        hdr: header,
        ..Default::default()
    };
    // "Undefined" boot loader.
    parameters.hdr.type_of_loader = 0xff;
    parameters.hdr.cmd_line_ptr = CMDLINE as u32;
    parameters.hdr.cmdline_size = cmdline_length as u32;
    parameters.acpi_rsdp_addr = ACPI_TABLES;
    if let Some(range) = initramfs {
        // Both are below the gap, so below 4 GiB.
        parameters.hdr.ramdisk_image = range.start as u32;
        parameters.hdr.ramdisk_size = range.length as u32;
    }
    let mut count = 0;
    for ((range, usable), entry) in plan.memory_map().zip(&mut parameters.e820_table) {
        (entry.addr, entry.size) = (range.start, range.length);
        entry.r#type = if usable { MAP_RAM } else { MAP_RESERVED };
        count += 1;
    }
    parameters.e820_entries = count;
    let parameters = BootParams::new(&parameters, GuestAddress(ZERO_PAGE));
    LinuxBootConfigurator::write_bootparams(&parameters, ram)
        .map_err(Error::WriteBootParameters)?;

    // The first 4 GiB mapped to themselves: PML4 → PDPT → 4 page directories of 2 MiB pages (present, writable).
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 1 << 7;
    let (pdpt, directories) = (PAGE_TABLES + 0x1000, PAGE_TABLES + 0x2000);
    place(ram, PAGE_TABLES, pdpt | PRESENT_WRITABLE, "page tables")?;
    for gib in 0..4 {
        place(
            ram,
            pdpt + 8 * gib,
            (directories + 0x1000 * gib) | PRESENT_WRITABLE,
            "page tables",
        )?;
    }
    for page in 0..2048 {
        place(
            ram,
            directories + 8 * page,
            page << 21 | PRESENT_WRITABLE | LARGE,
            "page tables",
        )?;
    }
    place(
        ram,
        GDT + u64::from(BOOT_CS),
        CODE_64,
        "the descriptor table",
    )
}

#[cfg(test)]
mod tests {
    use crn_protocol::control::Transport;
    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn half_a_tebibyte_is_in_the_map_and_the_first_four_gib_in_the_page_tables() {
        let plan = Plan::new(64, 512 * 1024, Transport::Pci, 1);
        let ram = Ram::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap();
        write(&ram, &plan, plain_header(), None, 0).unwrap();
        let parameters: boot_params = ram.read_obj(GuestAddress(ZERO_PAGE)).unwrap();
        let entries = &parameters.e820_table[..usize::from(parameters.e820_entries)];
        let told: Vec<(u64, u64, bool)> = entries
            .iter()
            .map(|entry| (entry.addr, entry.size, entry.r#type == MAP_RAM))
            .collect();
        let planned: Vec<_> = plan
            .memory_map()
            .map(|(range, usable)| (range.start, range.length, usable))
            .collect();
        assert_eq!(told, planned);
        assert_eq!(
            told.iter().map(|one| one.0 + one.1).max(),
            Some(plan.ram.end())
        );
        let last: u64 = ram
            .read_obj(GuestAddress(PAGE_TABLES + 0x2000 + 8 * 2047))
            .unwrap();
        assert_eq!(last, 2047 << 21 | 0x83);
    }
}
