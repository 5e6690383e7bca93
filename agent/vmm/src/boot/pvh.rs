//! What a kernel entered by its PVH note is told (Xen, docs/misc/pvh.pandoc; Linux, arch/x86/platform/pvh).

use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::GuestAddress;

use super::{MAP_RAM, MAP_RESERVED};
use crate::memory::Ram;
use crate::plan::Plan;
use crate::plan::layout::{
    ACPI_TABLES, CMDLINE, PVH_MEMORY_MAP, PVH_MODULES, PVH_START_INFO, Range,
};
use crate::{Error, Result};

/// XEN_HVM_START_MAGIC_VALUE.
const PVH_MAGIC: u32 = 0x336e_c578;

/// Writes the start info, the module list and the memory map.
///
/// # Errors
/// [`Error::WriteBootParameters`].
pub fn write(ram: &Ram, plan: &Plan, initramfs: Option<Range>) -> Result<()> {
    let map: Vec<hvm_memmap_table_entry> = plan
        .memory_map()
        .map(|(range, usable)| hvm_memmap_table_entry {
            addr: range.start,
            size: range.length,
            type_: if usable { MAP_RAM } else { MAP_RESERVED },
            reserved: 0,
        })
        .collect();
    let mut info = hvm_start_info {
        magic: PVH_MAGIC,
        version: 1,
        cmdline_paddr: CMDLINE,
        rsdp_paddr: ACPI_TABLES,
        memmap_paddr: PVH_MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    let module = initramfs.map(|range| hvm_modlist_entry {
        paddr: range.start,
        size: range.length,
        ..Default::default()
    });
    if module.is_some() {
        info.nr_modules = 1;
        info.modlist_paddr = PVH_MODULES;
    }
    let mut parameters = BootParams::new(&info, GuestAddress(PVH_START_INFO));
    parameters.set_sections(&map, GuestAddress(PVH_MEMORY_MAP));
    if let Some(module) = module {
        parameters.set_modules(&[module], GuestAddress(PVH_MODULES));
    }
    PvhBootConfigurator::write_bootparams(&parameters, ram).map_err(Error::WriteBootParameters)
}

#[cfg(test)]
mod tests {
    use crn_protocol::control::Transport;
    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn half_a_tebibyte_is_in_the_map() {
        let plan = Plan::new(64, 512 * 1024, Transport::Mmio, 1);
        let ram = Ram::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap();
        write(&ram, &plan, None).unwrap();
        let info: hvm_start_info = ram.read_obj(GuestAddress(PVH_START_INFO)).unwrap();
        assert_eq!((info.magic, info.rsdp_paddr), (PVH_MAGIC, ACPI_TABLES));
        let size = size_of::<hvm_memmap_table_entry>() as u64;
        let last = PVH_MEMORY_MAP + (u64::from(info.memmap_entries) - 1) * size;
        let last: hvm_memmap_table_entry = ram.read_obj(GuestAddress(last)).unwrap();
        assert_eq!(last.addr + last.size, plan.ram.end());
        assert_eq!(last.type_, MAP_RAM);
    }
}
