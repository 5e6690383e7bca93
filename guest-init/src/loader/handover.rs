//! Where the next kernel and its files go in memory, and what it is told of them. Nothing here touches memory.
//!
//! ```text
//! low memory   one block: boot_params, then the code that enters the kernel with its GDT and stack, then a seed for
//!              its random numbers, then the command line
//! 16 MiB on    the kernel, where it would like to be if that is memory
//! as high as   the archives of the initrd, each from a page's beginning: the zeroes between them are skipped by the
//! possible     kernel that unpacks them
//! ```

use super::bzimage::{BOOT_PARAMS, BzImage, HEADER};
use crate::error::{Error, Result};

/// What all places are multiples of.
pub const PAGE: u64 = 4096;
/// No part goes below: kernels keep to themselves what is there.
const LOWEST_BLOCK: u64 = 0x1_0000;
/// Where the kernel's place begins to be looked for.
const LOWEST_KERNEL: u64 = 0x100_0000;
/// All places are below, where 32 bits of an address are enough in every field and instruction.
const HIGHEST: u64 = 0x8000_0000;
/// Bytes of the seed.
pub const SEED: usize = 32;
/// In `boot_params`: the memory map's length, its entries' beginning, and the most it holds.
const MAP_LENGTH: usize = 0x1e8;
const MAP: usize = 0x2d0;
const MAP_MAX: usize = 128;
/// Bytes of an entry of the map: address, size, type.
const MAP_ENTRY: usize = 20;
/// The type of what is RAM.
const USABLE: u32 = 1;
/// `type_of_loader`: one without a number.
const LOADER_UNKNOWN: u8 = 0xff;
/// SETUP_RNG_SEED of asm/setup_data.h.
const RNG_SEED: u32 = 9;
/// Bytes of `struct setup_data` before its contents.
const DATA_HEADER: usize = 16;
/// Where the kernel is entered, from its beginning.
const ENTRY_64: u64 = 0x200;
/// In the block: the code, the stack's top, the seed, the command line.
const CODE: usize = BOOT_PARAMS;
const STACK: usize = CODE + 0x400;
const DATA: usize = STACK;
const CMDLINE: usize = DATA + 0x100;

/// A part of memory, `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: u64,
    end: u64,
}

/// Where everything goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The block in low memory.
    pub block: u64,
    /// Where it is entered.
    pub entry: u64,
    /// The kernel.
    pub kernel: u64,
    /// The initrd's archives, in their order.
    pub archives: Vec<u64>,
    /// From the first archive's beginning to the last one's end.
    initrd: Option<Range>,
}

impl Places {
    /// Finds room in the memory that `boot_params` describe.
    ///
    /// # Errors
    /// [`Error::Refused`] when something has none.
    pub fn find(
        boot_params: &[u8; BOOT_PARAMS],
        kernel: &BzImage<'_>,
        archives: &[u64],
        cmdline: &str,
    ) -> Result<Self> {
        let mut free = usable(boot_params);
        let none = |what: &str, bytes: u64| {
            Error::Refused(format!(
                "there is no room in memory for {what} of {bytes} bytes"
            ))
        };
        if cmdline.len() > kernel.cmdline_max {
            return Err(Error::Refused(format!(
                "the kernel takes arguments of {} bytes, these are {}",
                kernel.cmdline_max,
                cmdline.len()
            )));
        }
        let size = (CMDLINE + cmdline.len() + 1) as u64;
        let block = lowest(&free, LOWEST_BLOCK, size, PAGE)
            .ok_or_else(|| none("the kernel's parameters", size))?;
        take(&mut free, block, size);

        let size = kernel.init_size;
        let preferred = kernel.preferred;
        let at = if free.iter().any(|range| range.holds(preferred, size)) {
            preferred
        } else {
            lowest(&free, LOWEST_KERNEL, size, kernel.alignment)
                .ok_or_else(|| none("a kernel", size))?
        };
        take(&mut free, at, size);

        let size: u64 = archives
            .iter()
            .map(|size| size.next_multiple_of(PAGE))
            .sum();
        let mut places = Self {
            block,
            entry: block + CODE as u64,
            kernel: at,
            archives: Vec::new(),
            initrd: None,
        };
        if size > 0 {
            let mut next =
                highest(&free, kernel.initrd_max, size).ok_or_else(|| none("an initrd", size))?;
            let start = next;
            let mut end = next;
            for size in archives {
                places.archives.push(next);
                end = next + size;
                next += size.next_multiple_of(PAGE);
            }
            places.initrd = Some(Range { start, end });
        }
        Ok(places)
    }

    /// What stands in the block: this machine's parameters with the kernel's own header, the code that enters it, a
    /// seed, the command line.
    #[must_use]
    pub fn block(
        &self,
        boot_params: &[u8; BOOT_PARAMS],
        kernel: &BzImage<'_>,
        cmdline: &str,
        seed: &[u8; SEED],
    ) -> Vec<u8> {
        let mut block = vec![0; CMDLINE + cmdline.len() + 1];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, boot_params);
        // What the last loader said of its own initrd and command line beyond 32 bits.
        put(0xc0, &[0; 12]);
        put(HEADER, &[0; 0x290 - HEADER]);
        put(HEADER, kernel.header());
        put(0x210, &[LOADER_UNKNOWN]);
        let initrd = self.initrd.unwrap_or(Range { start: 0, end: 0 });
        put(0x218, &low(initrd.start).to_le_bytes());
        put(0x21c, &low(initrd.end - initrd.start).to_le_bytes());
        put(0x228, &low(self.block + CMDLINE as u64).to_le_bytes());
        put(0x250, &(self.block + DATA as u64).to_le_bytes());

        let code = self.code();
        debug_assert!(code.len() <= STACK - CODE, "the stack grows down to it");
        put(CODE, &code);
        put(DATA + 8, &RNG_SEED.to_le_bytes());
        put(DATA + 12, &(SEED as u32).to_le_bytes());
        put(DATA + DATA_HEADER, seed);
        put(CMDLINE, cmdline.as_bytes());
        block
    }

    /// Sets the segments that the boot protocol asks for, which the kernel that leaves takes away, and enters the next.
    fn code(&self) -> Vec<u8> {
        const GDT: u64 = 0x80;
        const GDT_REGISTER: u64 = 0x60;
        let at = low(self.entry);
        let mut code = Vec::new();
        let mut put = |bytes: &[u8]| code.extend_from_slice(bytes);
        put(&[0x0f, 0x01, 0x14, 0x25]); // lgdt [GDT_REGISTER]
        put(&low(self.entry + GDT_REGISTER).to_le_bytes());
        put(&[0xb8, 0x18, 0x00, 0x00, 0x00]); // mov eax, 0x18
        put(&[0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0]); // mov ds, eax; mov es, eax; mov ss, eax
        put(&[0xbc]); // mov esp, the stack's top
        put(&low(self.block + STACK as u64).to_le_bytes());
        put(&[0x6a, 0x10, 0x68]); // push 0x10; push the place behind the next instruction
        put(&(at + 33).to_le_bytes());
        put(&[0x48, 0xcb]); // retfq
        put(&[0xbe]); // mov esi, boot_params
        put(&low(self.block).to_le_bytes());
        put(&[0xb8]); // mov eax, the kernel's entry
        put(&low(self.kernel + ENTRY_64).to_le_bytes());
        put(&[0xff, 0xe0]); // jmp rax
        code.resize(GDT_REGISTER as usize, 0);
        code.extend_from_slice(&31u16.to_le_bytes());
        code.extend_from_slice(&(self.entry + GDT).to_le_bytes());
        code.resize(GDT as usize, 0);
        // Flat segments: two that are none, 64-bit code at 0x10, data at 0x18.
        for descriptor in [0, 0, 0x00af_9b00_0000_ffff_u64, 0x00cf_9300_0000_ffff] {
            code.extend_from_slice(&descriptor.to_le_bytes());
        }
        code
    }
}

/// All places end below [`HIGHEST`].
fn low(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(u32::MAX)
}

impl Range {
    fn holds(&self, start: u64, size: u64) -> bool {
        start >= self.start && start.checked_add(size).is_some_and(|end| end <= self.end)
    }
}

/// What is RAM and below [`HIGHEST`], whole pages of it.
fn usable(boot_params: &[u8; BOOT_PARAMS]) -> Vec<Range> {
    let entries = boot_params[MAP..].chunks_exact(MAP_ENTRY);
    let length = usize::from(boot_params[MAP_LENGTH]).min(MAP_MAX);
    let quad = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0, |n, byte| n << 8 | u64::from(*byte))
    };
    entries
        .take(length)
        .filter(|entry| quad(&entry[16..20]) == u64::from(USABLE))
        .filter_map(|entry| {
            let (start, size) = (quad(&entry[..8]), quad(&entry[8..16]));
            let end = start.saturating_add(size).min(HIGHEST);
            let range = Range {
                start: start.checked_next_multiple_of(PAGE)?,
                end: end / PAGE * PAGE,
            };
            (range.start < range.end).then_some(range)
        })
        .collect()
}

/// The lowest place from `floor` on.
fn lowest(free: &[Range], floor: u64, size: u64, alignment: u64) -> Option<u64> {
    free.iter()
        .filter_map(|range| {
            let start = range.start.max(floor).checked_next_multiple_of(alignment)?;
            range.holds(start, size).then_some(start)
        })
        .min()
}

/// The highest place whose last byte is not above `limit`.
fn highest(free: &[Range], limit: u64, size: u64) -> Option<u64> {
    free.iter()
        .filter_map(|range| {
            let end = range.end.min(limit.saturating_add(1));
            let start = end.checked_sub(size)? / PAGE * PAGE;
            range.holds(start, size).then_some(start)
        })
        .max()
}

/// Takes what is used out of what is free; both ends become pages' ends.
fn take(free: &mut Vec<Range>, start: u64, size: u64) {
    let end = (start + size).next_multiple_of(PAGE);
    *free = free
        .iter()
        .flat_map(|range| {
            [
                Range {
                    start: range.start,
                    end: range.end.min(start),
                },
                Range {
                    start: range.start.max(end),
                    end: range.end,
                },
            ]
        })
        .filter(|range| range.start < range.end)
        .collect();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::bzimage::tests::image;
    use super::*;

    const MIB: u64 = 1 << 20;

    fn params(map: &[(u64, u64, u32)]) -> [u8; BOOT_PARAMS] {
        let mut params = [0; BOOT_PARAMS];
        params[MAP_LENGTH] = u8::try_from(map.len()).unwrap();
        for (index, (start, size, kind)) in map.iter().enumerate() {
            let at = MAP + index * MAP_ENTRY;
            params[at..at + 8].copy_from_slice(&start.to_le_bytes());
            params[at + 8..at + 16].copy_from_slice(&size.to_le_bytes());
            params[at + 16..at + 20].copy_from_slice(&kind.to_le_bytes());
        }
        params
    }

    fn usual(mib: u64) -> [u8; BOOT_PARAMS] {
        params(&[
            (0, 0x9_fc00, 1),
            (0xe_0000, 0x2_0000, 2),
            (MIB, (mib - 1) * MIB, 1),
        ])
    }

    #[test]
    fn everything_has_its_usual_place() {
        let image = image(&[0x90; 5000]);
        let kernel = BzImage::parse(&image).unwrap();
        let places = Places::find(&usual(256), &kernel, &[MIB + 1, 10], "quiet").unwrap();
        assert_eq!((places.block, places.entry), (0x1_0000, 0x1_1000));
        assert_eq!(places.kernel, 16 * MIB);
        let start = 256 * MIB - MIB - 2 * PAGE;
        assert_eq!(places.archives, [start, start + MIB + PAGE]);
    }

    #[test]
    fn the_kernel_is_told_where_its_files_are() {
        let image = image(b"code");
        let kernel = BzImage::parse(&image).unwrap();
        let mut params = usual(256);
        // The table of ACPI's tables is this machine's own and stays; the last kernel's command line goes.
        params[0x70..0x78].copy_from_slice(&0xe_0000u64.to_le_bytes());
        params[0xc8..0xcc].copy_from_slice(&[9; 4]);
        params[0x228..0x22c].copy_from_slice(&[9; 4]);
        let places = Places::find(&params, &kernel, &[5000], "quiet").unwrap();
        let block = places.block(&params, &kernel, "quiet", &[7; SEED]);
        let long = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().unwrap());
        assert_eq!((long(0x70), long(0xc8)), (0xe_0000, 0));
        assert_eq!(block[0x202..0x206], *b"HdrS");
        assert_eq!(u64::from(long(0x218)), places.archives[0]);
        assert_eq!(long(0x21c), 5000);
        let cmdline = long(0x228) as usize - 0x1_0000;
        assert_eq!(block[cmdline..], *b"quiet\0");
        let data = long(0x250) as usize - 0x1_0000;
        assert_eq!((long(data), long(data + 4)), (0, 0), "there is no next");
        assert_eq!((long(data + 8), long(data + 12)), (9, 32));
        assert_eq!(block[data + 16..data + 48], [7; SEED]);
        assert_eq!(block[MAP..MAP + 60], params[MAP..MAP + 60]);
        assert_eq!(block[CODE..CODE + 4], [0x0f, 0x01, 0x14, 0x25]);
        assert_eq!(
            block[CODE + 33],
            0xbe,
            "retfq returns to the instruction behind it"
        );
    }

    #[test]
    fn what_has_no_room_is_named() {
        let image = image(b"code");
        let kernel = BzImage::parse(&image).unwrap();
        let find = |params, archives: &[u64], cmdline: &str| {
            Places::find(&params, &kernel, archives, cmdline)
                .unwrap_err()
                .to_string()
        };
        assert!(find(params(&[]), &[], "").contains("parameters"));
        assert!(find(usual(32), &[], "").contains("a kernel"));
        assert!(find(usual(128), &[100 * MIB], "").contains("an initrd"));
        assert!(find(usual(128), &[], &"x".repeat(2048)).contains("2047"));
    }

    proptest! {
        #[test]
        fn places_are_memory_and_do_not_overlap(
            map in proptest::collection::vec((0..0x1_0000_0000u64, 0..0x8000_0000u64, 1..3u32), 0..8),
            archives in proptest::collection::vec(1..64 * MIB, 0..4),
            preferred in 0..64u64,
        ) {
            // Maps with entries that overlap are the host's fault, and not what is tried here.
            let mut next = 0;
            let map: Vec<_> = map.into_iter().map(|(gap, size, kind)| {
                let start = next + gap / 16;
                next = start + size;
                (start, size, kind)
            }).collect();
            let mut image = image(b"code");
            image[0x258..0x260].copy_from_slice(&(preferred * 0x20_0000).to_le_bytes());
            let kernel = BzImage::parse(&image).unwrap();
            let params = params(&map);
            if let Ok(places) = Places::find(&params, &kernel, &archives, "quiet") {
                let mut parts = vec![
                    (places.block, (CMDLINE + 6) as u64),
                    (places.kernel, kernel.init_size),
                ];
                parts.extend(places.archives.iter().copied().zip(archives));
                parts.sort();
                for (start, size) in &parts {
                    prop_assert_eq!(start % PAGE, 0);
                    let inside = |(from, length, kind): &(u64, u64, u32)| {
                        *kind == 1 && from <= start && start + size <= from + length
                    };
                    prop_assert!(map.iter().any(inside));
                }
                for pair in parts.windows(2) {
                    prop_assert!(pair[0].0 + pair[0].1 <= pair[1].0);
                }
            }
        }
    }
}
