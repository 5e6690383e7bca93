//! A bzImage, as distributions ship kernels: what its header says of its 64-bit entry
//! (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header" and "64-bit Boot Protocol").

use crate::error::{Error, Result};

/// Bytes of `struct boot_params`, a part of which the header is.
pub const BOOT_PARAMS: usize = 4096;
/// Where the header begins, in the image as in `boot_params`.
pub const HEADER: usize = 0x1f1;
/// Bytes of the image up to the last field read here.
const FIELDS_END: usize = 0x264;
/// Behind the instruction whose second byte is the distance to the header's end.
const AFTER_JUMP: usize = 0x202;
/// "HdrS", behind that instruction.
const MAGIC: &[u8] = b"HdrS";
/// The first protocol whose header says whether there is a 64-bit entry.
const MIN_VERSION: u16 = 0x020c;
/// In `xloadflags`: there is a 64-bit entry.
const KERNEL_64: u16 = 1;
/// Bytes of a sector.
const SECTOR: usize = 512;

/// A kernel image and what its header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BzImage<'a> {
    image: &'a [u8],
    header_end: usize,
    code: usize,
    /// Where it would like to be loaded.
    pub preferred: u64,
    /// What the address must be a multiple of, a power of two.
    pub alignment: u64,
    /// Bytes from its address that it needs before it knows the memory map, its own length at least.
    pub init_size: u64,
    /// Last address that an initrd may have.
    pub initrd_max: u64,
    /// Longest command line without its zero byte.
    pub cmdline_max: usize,
}

impl<'a> BzImage<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`Error::Refused`] for what is no bzImage with a 64-bit entry.
    pub fn parse(image: &'a [u8]) -> Result<Self> {
        let refused = |why: &str| Error::Refused(format!("the kernel is no 64-bit bzImage: {why}"));
        let head: &[u8; FIELDS_END] = image
            .first_chunk()
            .ok_or_else(|| refused("it is too short"))?;
        let word = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let long = |at: usize| u32::from(word(at)) | u32::from(word(at + 2)) << 16;
        let quad = |at: usize| u64::from(long(at)) | u64::from(long(at + 4)) << 32;
        if &head[AFTER_JUMP..AFTER_JUMP + MAGIC.len()] != MAGIC {
            return Err(refused("its header is missing"));
        }
        if word(0x206) < MIN_VERSION {
            return Err(refused("its boot protocol is older than 2.12"));
        }
        if word(0x236) & KERNEL_64 == 0 {
            return Err(refused("it has no 64-bit entry"));
        }
        let sectors = match head[HEADER] {
            0 => 4,
            sectors => usize::from(sectors),
        };
        let code = (sectors + 1) * SECTOR;
        let length = image
            .len()
            .checked_sub(code)
            .filter(|length| *length > 0)
            .ok_or_else(|| refused("it ends before its code"))?;
        let (preferred, alignment) = (quad(0x258), u64::from(long(0x230)));
        if !alignment.is_power_of_two() || alignment < 4096 || !preferred.is_multiple_of(alignment)
        {
            return Err(refused("it asks for an address it cannot have"));
        }
        Ok(Self {
            image,
            header_end: AFTER_JUMP + usize::from(head[AFTER_JUMP - 1]),
            code,
            preferred,
            alignment,
            init_size: u64::from(long(0x260)).max(length as u64),
            initrd_max: u64::from(long(0x22c)),
            cmdline_max: long(0x238) as usize,
        })
    }

    /// What is loaded and entered, 0x200 bytes from its beginning.
    #[must_use]
    pub fn code(&self) -> &'a [u8] {
        self.image.get(self.code..).unwrap_or_default()
    }

    /// The part of `boot_params` that comes with the image, to stand at [`HEADER`].
    #[must_use]
    pub fn header(&self) -> &'a [u8] {
        self.image.get(HEADER..self.header_end).unwrap_or_default()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An image with one sector before its code, of these bytes.
    pub fn image(code: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 2 * SECTOR];
        image[HEADER] = 1;
        image[0x200] = 0xeb;
        image[0x201] = 0x6a;
        image[0x202..0x206].copy_from_slice(MAGIC);
        image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
        image[0x22c..0x230].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
        image[0x230..0x234].copy_from_slice(&0x20_0000u32.to_le_bytes());
        image[0x236] = 1;
        image[0x238..0x23c].copy_from_slice(&2047u32.to_le_bytes());
        image[0x258..0x260].copy_from_slice(&0x100_0000u64.to_le_bytes());
        image[0x260..0x264].copy_from_slice(&0x300_0000u32.to_le_bytes());
        image.extend_from_slice(code);
        image
    }

    #[test]
    fn a_header_says_what_the_kernel_asks_for() {
        let image = image(b"code");
        let kernel = BzImage::parse(&image).unwrap();
        assert_eq!(kernel.code(), b"code");
        assert_eq!(kernel.header().len(), 0x202 + 0x6a - HEADER);
        assert_eq!(kernel.header()[0x11..0x15], *MAGIC);
        assert_eq!(
            (kernel.preferred, kernel.alignment, kernel.init_size),
            (0x100_0000, 0x20_0000, 0x300_0000)
        );
        assert_eq!((kernel.initrd_max, kernel.cmdline_max), (0x7fff_ffff, 2047));
    }

    #[test]
    fn what_has_no_64_bit_entry_is_refused_by_name() {
        for (at, byte, why) in [
            (0x202, b'X', "header is missing"),
            (0x207, 1, "older than 2.12"),
            (0x236, 0, "no 64-bit entry"),
            (HEADER, 9, "ends before its code"),
            (0x233, 0xff, "an address it cannot have"),
            (0x258, 1, "an address it cannot have"),
        ] {
            let mut image = image(b"code");
            image[at] = byte;
            let error = BzImage::parse(&image).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(BzImage::parse(&image(b"")).is_err());
        assert!(BzImage::parse(b"MZ").is_err());
    }

    proptest! {
        #[test]
        fn no_image_is_read_beyond_its_end(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..4096),
            magic: bool,
        ) {
            if magic && bytes.len() > FIELDS_END {
                let good = image(b"");
                bytes[AFTER_JUMP..FIELDS_END].copy_from_slice(&good[AFTER_JUMP..FIELDS_END]);
            }
            if let Ok(kernel) = BzImage::parse(&bytes) {
                prop_assert!(!kernel.code().is_empty());
                prop_assert!(kernel.header().len() <= BOOT_PARAMS - HEADER);
                prop_assert!(kernel.init_size >= kernel.code().len() as u64);
            }
        }
    }
}
