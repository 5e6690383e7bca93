//! A bzImage, as distributions ship kernels: its 64-bit entry, by its own header
//! (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header" and "64-bit Boot Protocol").

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use linux_loader::loader::KernelLoader;
use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::bzimage::BzImage;
use vm_memory::GuestAddress;

use crate::memory::Ram;
use crate::plan::Plan;
use crate::plan::layout::HIGH_MEMORY;
use crate::{Error, Result};

/// Bytes of the image up to the last field read here.
const HEADER_END: usize = 0x264;
/// "HdrS", at its offset.
const MAGIC: &[u8; 4] = b"HdrS";
const MAGIC_OFFSET: usize = 0x202;
/// The first protocol whose header says whether there is a 64-bit entry.
const MIN_VERSION: u16 = 0x020c;
/// In `loadflags`: loaded at 1 MiB or above.
const LOADED_HIGH: u8 = 1;
/// In `xloadflags`: there is a 64-bit entry, 0x200 bytes into the kernel.
const KERNEL_64: u16 = 1;
const ENTRY_64: u64 = 0x200;

/// What the header of a bzImage asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    /// Where the kernel is loaded.
    load: u64,
    /// Bytes from there that it needs before it knows the memory map.
    init_size: u64,
    /// Last address that an initramfs may have.
    initramfs_max: u64,
    /// Longest command line.
    cmdline_max: usize,
}

impl Header {
    fn parse(image: &[u8; HEADER_END]) -> Result<Self> {
        let word = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
        let long = |at: usize| u32::from(word(at)) | u32::from(word(at + 2)) << 16;
        let quad = |at: usize| u64::from(long(at)) | u64::from(long(at + 4)) << 32;
        if word(0x206) < MIN_VERSION {
            return Err(Error::Kernel("its boot protocol is older than 2.12"));
        }
        if image[0x211] & LOADED_HIGH == 0 || word(0x236) & KERNEL_64 == 0 {
            return Err(Error::Kernel("it has no 64-bit entry"));
        }
        let load = quad(0x258);
        let alignment = u64::from(long(0x230)).max(1);
        if load < HIGH_MEMORY || !load.is_multiple_of(alignment) {
            return Err(Error::Kernel("it asks for an address it cannot have"));
        }
        Ok(Self {
            load,
            init_size: u64::from(long(0x260)),
            initramfs_max: u64::from(long(0x22c)),
            cmdline_max: long(0x238) as usize,
        })
    }
}

/// A kernel in guest memory.
#[derive(Debug)]
pub struct Loaded {
    /// Its header, for `boot_params`.
    pub header: setup_header,
    /// Where it is entered.
    pub entry: u64,
    /// First address that is free for other things.
    pub end: u64,
    /// First address that an initramfs may not have.
    pub initramfs_end: u64,
}

/// Whether a file is a bzImage; its position is as before.
///
/// # Errors
/// The file's.
pub fn is(file: &mut File) -> io::Result<bool> {
    let mut magic = [0; 4];
    file.seek(SeekFrom::Start(MAGIC_OFFSET as u64))?;
    let found = match file.read_exact(&mut magic) {
        Ok(()) => magic == *MAGIC,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(error),
    };
    file.rewind()?;
    Ok(found)
}

/// Loads it where it wants to be.
///
/// # Errors
/// [`Error::Kernel`] when its header asks for what this machine has not got, [`Error::LoadKernel`],
/// [`Error::Spec`] for a command line that is longer than it takes.
pub fn load(ram: &Ram, plan: &Plan, file: &mut File, cmdline_length: usize) -> Result<Loaded> {
    let mut image = [0; HEADER_END];
    file.read_exact(&mut image)
        .map_err(|_| Error::Kernel("its header is cut off"))?;
    let wanted = Header::parse(&image)?;
    if cmdline_length > wanted.cmdline_max {
        return Err(Error::spec(
            "cmdline",
            format!(
                "is {cmdline_length}, this kernel takes at most {} bytes",
                wanted.cmdline_max
            ),
        ));
    }
    let end = wanted.load.saturating_add(wanted.init_size);
    if end > plan.ram.low_end() {
        return Err(Error::Kernel("it needs more memory than the machine has"));
    }
    let loaded = BzImage::load(ram, Some(GuestAddress(wanted.load)), file, None)
        .map_err(Error::LoadKernel)?;
    Ok(Loaded {
        header: loaded.setup_header.unwrap_or_default(),
        entry: wanted.load + ENTRY_64,
        end: end.max(loaded.kernel_end),
        initramfs_end: wanted.initramfs_max.saturating_add(1),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use crn_protocol::control::Transport;
    use vm_memory::Bytes;

    use super::*;
    use crate::memory;

    /// An image with a header of one sector and `body` behind it.
    fn image(version: u16, flags: u16, load: u64, init_size: u32, body: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(MAGIC);
        image[0x206..0x208].copy_from_slice(&version.to_le_bytes());
        image[0x211] = LOADED_HIGH;
        image[0x22c..0x230].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
        image[0x230..0x234].copy_from_slice(&0x20_0000u32.to_le_bytes());
        image[0x236..0x238].copy_from_slice(&flags.to_le_bytes());
        image[0x238..0x23c].copy_from_slice(&2047u32.to_le_bytes());
        image[0x258..0x260].copy_from_slice(&load.to_le_bytes());
        image[0x260..0x264].copy_from_slice(&init_size.to_le_bytes());
        image.extend_from_slice(body);
        image
    }

    fn try_load(image: &[u8], cmdline_length: usize) -> (Ram, Result<Loaded>) {
        let plan = Plan::new(1, 64, Transport::Mmio, 0);
        let ram = memory::map(&plan.ram, Default::default()).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(image).unwrap();
        assert!(is(&mut file).unwrap());
        let loaded = load(&ram, &plan, &mut file, cmdline_length);
        (ram, loaded)
    }

    #[test]
    fn a_kernel_is_loaded_where_its_header_says() {
        let image = image(0x20f, KERNEL_64, 0x100_0000, 0x200_0000, b"kernel");
        let (ram, loaded) = try_load(&image, 10);
        let loaded = loaded.unwrap();
        assert_eq!((loaded.entry, loaded.end), (0x100_0200, 0x300_0000));
        assert_eq!(loaded.initramfs_end, 0x8000_0000);
        let mut bytes = [0; 6];
        ram.read_slice(&mut bytes, GuestAddress(0x100_0000))
            .unwrap();
        assert_eq!(&bytes, b"kernel");
    }

    #[test]
    fn what_a_header_cannot_have_is_refused() {
        let good = |load, size| image(0x20f, KERNEL_64, load, size, &[]);
        for (image, cmdline) in [
            (image(0x20b, KERNEL_64, 0x100_0000, 0, &[]), 0),
            (image(0x20f, 0, 0x100_0000, 0, &[]), 0),
            (good(0, 0), 0),
            (good(0x100_1000, 0), 0),
            (good(0x100_0000, 0x400_0000), 0),
            (good(!0x1f_ffff, u32::MAX), 0),
            (good(0x100_0000, 0), 2048),
        ] {
            assert!(try_load(&image, cmdline).1.is_err());
        }
    }

    #[test]
    fn other_files_are_not_taken_for_a_kernel() {
        let mut file = tempfile::tempfile().unwrap();
        assert!(!is(&mut file).unwrap());
        file.write_all(&[0x7f; 2048]).unwrap();
        assert!(!is(&mut file).unwrap());
    }
}
