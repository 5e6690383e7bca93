//! What is in guest memory before the first instruction: the kernel, its initramfs, and what they are told.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};

use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::boot_params;
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use linux_loader::loader::{Cmdline, KernelLoader, load_cmdline};
use vm_memory::{Bytes, GuestAddress};

use crate::machine::vcpu::GDT_ENTRIES;
use crate::memory::Ram;
use crate::plan::Plan;
use crate::plan::layout::{
    ACPI_TABLES, CMDLINE, CMDLINE_MAX, GDT, HIGH_MEMORY, PAGE_TABLES, PVH_MEMORY_MAP, PVH_MODULES,
    PVH_START_INFO, Range, ZERO_PAGE,
};
use crate::{Error, Result};

/// Where and how the kernel is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// 32-bit protected mode, by the kernel's PVH note.
    Pvh(u64),
    /// 64-bit long mode with identity-mapped pages, by Linux's 64-bit boot protocol.
    Linux64(u64),
}

/// What is loaded.
#[derive(Debug)]
pub struct Payload {
    /// An ELF kernel.
    pub kernel: File,
    /// A cpio archive.
    pub initramfs: Option<File>,
    /// At most [`CMDLINE_MAX`] bytes of printable ASCII.
    pub cmdline: String,
}

/// XEN_HVM_START_MAGIC_VALUE.
const PVH_MAGIC: u32 = 0x336e_c578;
/// Types in both memory maps.
const MAP_RAM: u32 = 1;
const MAP_RESERVED: u32 = 2;

/// Fills guest memory; returns how the kernel is entered.
///
/// # Errors
/// [`Error::LoadKernel`], [`Error::LoadInitramfs`], [`Error::WriteBoot`], [`Error::WriteBootParameters`].
pub fn load(ram: &Ram, plan: &Plan, mut payload: Payload) -> Result<Entry> {
    let kernel = Elf::load(
        ram,
        None,
        &mut payload.kernel,
        Some(GuestAddress(HIGH_MEMORY)),
    )
    .map_err(Error::LoadKernel)?;
    let initramfs = payload
        .initramfs
        .map(|file| load_initramfs(ram, plan, file, kernel.kernel_end))
        .transpose()
        .map_err(Error::LoadInitramfs)?;
    let cmdline = Cmdline::try_from(&payload.cmdline, CMDLINE_MAX + 1)
        .map_err(|error| Error::spec("cmdline", format!("is not a command line: {error}")))?;
    load_cmdline(ram, GuestAddress(CMDLINE), &cmdline).map_err(Error::LoadKernel)?;
    ram.write_slice(&plan.acpi, GuestAddress(ACPI_TABLES))
        .map_err(|error| Error::WriteBoot("the ACPI tables", error))?;
    for (index, entry) in GDT_ENTRIES.iter().enumerate() {
        write(ram, GDT + 8 * index as u64, *entry, "the descriptor table")?;
    }
    match kernel.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(entry) => {
            pvh(ram, plan, initramfs)?;
            Ok(Entry::Pvh(entry.0))
        }
        _ => {
            linux64(ram, plan, initramfs, payload.cmdline.len())?;
            Ok(Entry::Linux64(kernel.kernel_load.0))
        }
    }
}

fn write(ram: &Ram, address: u64, value: u64, what: &'static str) -> Result<()> {
    ram.write_obj(value, GuestAddress(address))
        .map_err(|error| Error::WriteBoot(what, error))
}

fn load_initramfs(ram: &Ram, plan: &Plan, mut file: File, kernel_end: u64) -> io::Result<Range> {
    let length = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    let start = plan.ram.initramfs(length, kernel_end).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::OutOfMemory,
            format!("{length} bytes do not fit between the kernel's end at {kernel_end:#x} and the end of low memory at {:#x}", plan.ram.low_end()),
        )
    })?;
    ram.read_exact_volatile_from(GuestAddress(start), &mut file, length as usize)
        .map_err(io::Error::other)?;
    Ok(Range { start, length })
}

fn pvh(ram: &Ram, plan: &Plan, initramfs: Option<Range>) -> Result<()> {
    let map: Vec<hvm_memmap_table_entry> = plan
        .ram
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

/// Documentation/arch/x86/boot.rst, "64-bit Boot Protocol".
fn linux64(ram: &Ram, plan: &Plan, initramfs: Option<Range>, cmdline_length: usize) -> Result<()> {
    let mut parameters = boot_params::default();
    parameters.hdr.boot_flag = 0xaa55;
    parameters.hdr.header = 0x5372_6448;
    // "Undefined" boot loader.
    parameters.hdr.type_of_loader = 0xff;
    parameters.hdr.kernel_alignment = 0x100_0000;
    parameters.hdr.cmd_line_ptr = CMDLINE as u32;
    parameters.hdr.cmdline_size = cmdline_length as u32;
    parameters.acpi_rsdp_addr = ACPI_TABLES;
    if let Some(range) = initramfs {
        // Both are below the gap, so below 4 GiB.
        parameters.hdr.ramdisk_image = range.start as u32;
        parameters.hdr.ramdisk_size = range.length as u32;
    }
    let mut count = 0;
    for ((range, usable), entry) in plan.ram.memory_map().zip(&mut parameters.e820_table) {
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
    write(ram, PAGE_TABLES, pdpt | PRESENT_WRITABLE, "page tables")?;
    for gib in 0..4 {
        write(
            ram,
            pdpt + 8 * gib,
            (directories + 0x1000 * gib) | PRESENT_WRITABLE,
            "page tables",
        )?;
    }
    for page in 0..2048 {
        write(
            ram,
            directories + 8 * page,
            page << 21 | PRESENT_WRITABLE | LARGE,
            "page tables",
        )?;
    }
    // The 64-bit code descriptor: L set, D clear.
    write(ram, GDT + 8, 0x00af_9b00_0000_ffff, "the descriptor table")
}
