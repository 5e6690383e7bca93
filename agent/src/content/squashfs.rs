//! Whether a published image is a squashfs that a guest's kernel will mount, by its superblock (`struct
//! squashfs_super_block` of `fs/squashfs/squashfs_fs.h`, the checks those of `squashfs_fill_super`). What is behind the
//! superblock is a guest's to read, never the host's.

use std::path::Path;

use tokio::io::AsyncReadExt as _;

/// The superblock's length in bytes.
const LENGTH: usize = 96;
const MAGIC: u32 = 0x7371_7368;
/// `SQUASHFS_FILE_MAX_SIZE`, and the least block the format knows.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 4096..=1 << 20;
/// gzip, LZO, xz, LZ4, zstd: the ones the guests' kernel has. 2 is LZMA, which no kernel has.
const COMPRESSIONS: [u16; 5] = [1, 3, 4, 5, 6];
/// A metadata block's length in bytes.
const METADATA: u64 = 8192;
/// Where a table would begin that is not there.
const ABSENT: u64 = u64::MAX;

/// Why an image is no squashfs that can be used: the field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("squashfs {field}: {problem}")]
pub struct Refusal {
    field: &'static str,
    problem: String,
}

/// Reads a file's first bytes and checks them.
///
/// # Errors
/// What the file system says, or the refusal.
pub(super) async fn check(path: &Path, length: u64) -> std::io::Result<Result<(), Refusal>> {
    let mut head = Vec::with_capacity(LENGTH);
    let file = tokio::fs::File::open(path).await?;
    file.take(LENGTH as u64).read_to_end(&mut head).await?;
    Ok(superblock(&head, length))
}

/// Checks the superblock at the start of an image of `length` bytes.
fn superblock(head: &[u8], length: u64) -> Result<(), Refusal> {
    let refuse = |field, problem: String| Err(Refusal { field, problem });
    let Some(head) = head.first_chunk::<LENGTH>() else {
        let problem = format!("{} bytes are too few", head.len());
        return refuse("superblock", problem);
    };
    let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
    let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| head[at + i]));
    let half = |at: usize| u16::from_le_bytes(std::array::from_fn(|i| head[at + i]));
    if word(0) != MAGIC {
        return refuse("magic", format!("is {:#010x}", word(0)));
    }
    let version = (half(28), half(30));
    if version != (4, 0) {
        return refuse(
            "version",
            format!("is {}.{}, expected 4.0", version.0, version.1),
        );
    }
    let (block, log) = (word(12), u32::from(half(22)));
    if !block.is_power_of_two() || !BLOCK_SIZES.contains(&block) || block.ilog2() != log {
        return refuse(
            "block_size",
            format!("is {block} with a logarithm of {log}"),
        );
    }
    if !COMPRESSIONS.contains(&half(20)) {
        let problem = format!("is {}, which the guests' kernel has not", half(20));
        return refuse("compression", problem);
    }
    for (field, count) in [("inodes", word(4)), ("no_ids", u32::from(half(26)))] {
        if count == 0 {
            return refuse(field, "is 0".to_owned());
        }
    }
    let used = long(40);
    if used < LENGTH as u64 || used > length {
        return refuse("bytes_used", format!("is {used} of {length} bytes"));
    }
    let (inodes, directories) = (long(64), long(72));
    let (fragments, exports) = (long(80), long(88));
    for (field, start, optional) in [
        ("inode_table_start", inodes, false),
        ("directory_table_start", directories, false),
        ("id_table_start", long(48), false),
        ("fragment_table_start", fragments, word(16) == 0),
        ("xattr_id_table_start", long(56), true),
        ("lookup_table_start", exports, true),
    ] {
        let good = (LENGTH as u64..used).contains(&start) || (optional && start == ABSENT);
        if !good {
            return refuse(field, format!("is {start}, with {used} bytes used"));
        }
    }
    if inodes >= directories {
        let problem = format!("is {inodes}, behind the directories at {directories}");
        return refuse("inode_table_start", problem);
    }
    let root = long(32);
    let (at, offset) = (root >> 16, root & 0xffff);
    if at >= directories - inodes || offset >= METADATA {
        let problem = format!("is at {at}, {offset}, outside of the inode table");
        return refuse("root_inode", problem);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn image(options: &[&str]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let (tree, image) = (dir.path().join("tree"), dir.path().join("image"));
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("file"), b"text".repeat(5000)).unwrap();
        let status = std::process::Command::new("mksquashfs")
            .args([&tree, &image])
            .args(["-quiet", "-no-progress"])
            .args(options)
            .status()
            .unwrap();
        assert!(status.success());
        std::fs::read(image).unwrap()
    }

    fn check(image: &[u8]) -> Result<(), Refusal> {
        superblock(&image[..image.len().min(LENGTH)], image.len() as u64)
    }

    #[test]
    fn what_mksquashfs_makes_is_good() {
        for options in [
            &["-comp", "gzip"][..],
            &["-comp", "zstd", "-b", "1M"],
            &["-comp", "xz", "-no-fragments", "-no-xattrs"],
            &["-comp", "lz4", "-b", "4096", "-no-exports"],
        ] {
            assert_eq!(check(&image(options)), Ok(()), "{options:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        let good = image(&[]);
        for (at, bytes, field) in [
            (0, &b"ZIP!"[..], "magic"),
            (4, &[0; 4], "inodes"),
            (12, &[0, 0, 3, 0], "block_size"),
            (12, &[0; 4], "block_size"),
            (20, &[2, 0], "compression"),
            (22, &[13, 0], "block_size"),
            (26, &[0, 0], "no_ids"),
            (28, &[3, 0], "version"),
            (32, &[0xff; 8], "root_inode"),
            (40, &[0xff; 8], "bytes_used"),
            (48, &[0xff; 8], "id_table_start"),
            (64, &[0xff; 8], "inode_table_start"),
            (64, &[0; 8], "inode_table_start"),
            (72, &[0xff; 8], "directory_table_start"),
        ] {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            assert_eq!(check(&bad).unwrap_err().field, field, "at {at}");
        }
        assert_eq!(check(&good[..50]).unwrap_err().field, "superblock");
        let used = u64::from_le_bytes(good[40..48].try_into().unwrap());
        let cut = superblock(&good[..LENGTH], used - 1);
        assert_eq!(cut.unwrap_err().field, "bytes_used");
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_image_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = check(&bytes);
        }

        #[test]
        fn any_fields_behind_a_good_magic_are_judged(fields in prop::collection::vec(any::<u8>(), 92), length: u64) {
            let head = [&MAGIC.to_le_bytes()[..], &fields].concat();
            let _ = superblock(&head, length);
        }
    }
}
