//! What is in guest memory before the first instruction: the kernel, its initramfs, and what they are told.

mod bzimage;
mod linux64;
mod pvh;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};

use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use linux_loader::loader::{Cmdline, KernelLoader, load_cmdline};
use vm_memory::{Bytes, GuestAddress};

use crate::devices::power::RESET_CODE;
use crate::error::os;
use crate::machine::vcpu::GDT_ENTRIES;
use crate::memory::Ram;
use crate::plan::Plan;
use crate::plan::layout::{
    ACPI_TABLES, CMDLINE, CMDLINE_MAX, GAP_START, GDT, HIGH_MEMORY, RESET_VECTOR, Range, initramfs,
};
use crate::snapshot::identity;
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
    /// An ELF file or a bzImage.
    pub kernel: File,
    /// A cpio archive.
    pub initramfs: Option<File>,
    /// At most [`CMDLINE_MAX`] bytes of printable ASCII.
    pub cmdline: String,
}

/// Types in both memory maps.
const MAP_RAM: u32 = 1;
const MAP_RESERVED: u32 = 2;

/// A kernel in guest memory: what is told to it, and where other things may be.
struct Loaded {
    entry: Entry,
    /// For `boot_params`, when it is entered in long mode.
    header: setup_header,
    end: u64,
    initramfs_end: u64,
}

/// Fills guest memory; returns how the kernel is entered.
///
/// # Errors
/// [`Error::LoadKernel`], [`Error::Kernel`], [`Error::LoadInitramfs`], [`Error::WriteBoot`],
/// [`Error::WriteBootParameters`], [`Error::Spec`].
pub fn load(ram: &Ram, plan: &Plan, mut payload: Payload) -> Result<Entry> {
    let kernel = load_kernel(ram, plan, &mut payload)?;
    let initramfs = payload
        .initramfs
        .map(|file| load_initramfs(ram, plan, file, &kernel))
        .transpose()
        .map_err(Error::LoadInitramfs)?;
    let cmdline = Cmdline::try_from(&payload.cmdline, CMDLINE_MAX + 1)
        .map_err(|error| Error::spec("cmdline", format!("is not a command line: {error}")))?;
    load_cmdline(ram, GuestAddress(CMDLINE), &cmdline).map_err(Error::LoadKernel)?;
    ram.write_slice(&plan.acpi, GuestAddress(ACPI_TABLES))
        .map_err(|error| Error::WriteBoot("the ACPI tables", error))?;
    identity::renew(ram)?;
    ram.write_slice(&RESET_CODE, GuestAddress(RESET_VECTOR))
        .map_err(|error| Error::WriteBoot("the reset code", error))?;
    for (index, entry) in (0..).zip(GDT_ENTRIES) {
        place(ram, GDT + 8 * index, entry, "the descriptor table")?;
    }
    match kernel.entry {
        Entry::Pvh(_) => pvh::write(ram, plan, initramfs)?,
        Entry::Linux64(_) => {
            let length = payload.cmdline.len();
            linux64::write(ram, plan, kernel.header, initramfs, length)?;
        }
    }
    Ok(kernel.entry)
}

fn load_kernel(ram: &Ram, plan: &Plan, payload: &mut Payload) -> Result<Loaded> {
    let file = &mut payload.kernel;
    if bzimage::is(file).map_err(os("read the kernel"))? {
        let kernel = bzimage::load(ram, plan, file, payload.cmdline.len())?;
        return Ok(Loaded {
            entry: Entry::Linux64(kernel.entry),
            header: kernel.header,
            end: kernel.end,
            initramfs_end: kernel.initramfs_end,
        });
    }
    let kernel =
        Elf::load(ram, None, file, Some(GuestAddress(HIGH_MEMORY))).map_err(Error::LoadKernel)?;
    let entry = match kernel.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(entry) => Entry::Pvh(entry.0),
        _ => Entry::Linux64(kernel.kernel_load.0),
    };
    Ok(Loaded {
        entry,
        header: linux64::plain_header(),
        end: kernel.kernel_end,
        initramfs_end: GAP_START,
    })
}

fn place(ram: &Ram, address: u64, value: u64, what: &'static str) -> Result<()> {
    ram.write_obj(value, GuestAddress(address))
        .map_err(|error| Error::WriteBoot(what, error))
}

fn load_initramfs(ram: &Ram, plan: &Plan, mut file: File, kernel: &Loaded) -> io::Result<Range> {
    let length = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    let (after, before) = (kernel.end, kernel.initramfs_end.min(plan.ram.low_end()));
    let start = initramfs(length, after, before).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::OutOfMemory,
            format!(
                "{length} bytes do not fit between the kernel's end at {after:#x} and {before:#x}"
            ),
        )
    })?;
    ram.read_exact_volatile_from(GuestAddress(start), &mut file, length as usize)
        .map_err(io::Error::other)?;
    Ok(Range { start, length })
}
