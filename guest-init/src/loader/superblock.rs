//! What a file system says of itself: kind, UUID and label, as boot loaders search for them.
//!
//! Read inside the guest, from its own disk; every field has a fixed place, so there is nothing to parse.

use std::io::{self, Read, Seek, SeekFrom};

/// Bytes from the start of a device that hold every superblock looked at.
const LENGTH: usize = 0x1_0000 + 0x1000;

/// A file system that can hold a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Its kind, as mount(2) names it.
    pub kind: &'static str,
    /// Lower case: `8-4-4-4-12` hexadecimal digits, of FAT `4-4`.
    pub uuid: String,
    /// May be empty.
    pub label: String,
}

impl Superblock {
    /// Looks at a device; `None` when it holds no ext2/3/4, XFS, btrfs or FAT.
    ///
    /// # Errors
    /// read(2)'s.
    pub fn read(device: &mut (impl Read + Seek)) -> io::Result<Option<Self>> {
        device.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::with_capacity(LENGTH);
        device.take(LENGTH as u64).read_to_end(&mut bytes)?;
        bytes.resize(LENGTH, 0);
        Ok(Self::of(&bytes))
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        // fs/ext4/ext4.h: struct ext4_super_block at 1024: s_magic, s_uuid, s_volume_name.
        if bytes[0x438..0x43a] == [0x53, 0xef] {
            return Some(Self::new(
                "ext4",
                &bytes[0x468..0x478],
                &bytes[0x478..0x488],
            ));
        }
        // fs/xfs/libxfs/xfs_format.h: struct xfs_dsb: sb_magicnum, sb_uuid, sb_fname.
        if &bytes[..4] == b"XFSB" {
            return Some(Self::new("xfs", &bytes[0x20..0x30], &bytes[0x6c..0x78]));
        }
        // include/uapi/linux/btrfs_tree.h: struct btrfs_super_block at 64 KiB: magic, fsid, label.
        let btrfs = &bytes[0x1_0000..];
        if &btrfs[0x40..0x48] == b"_BHRfS_M" {
            return Some(Self::new("btrfs", &btrfs[0x20..0x30], &btrfs[0x12b..0x22b]));
        }
        // include/uapi/linux/msdos_fs.h: struct fat_boot_sector: vol_id and vol_label stand after the kind's own fields.
        let (id, label) = if &bytes[0x52..0x57] == b"FAT32" {
            (&bytes[0x43..0x47], &bytes[0x47..0x52])
        } else if &bytes[0x36..0x39] == b"FAT" {
            (&bytes[0x27..0x2b], &bytes[0x2b..0x36])
        } else {
            return None;
        };
        Some(Self {
            kind: "vfat",
            uuid: format!("{:02x}{:02x}-{:02x}{:02x}", id[3], id[2], id[1], id[0]),
            label: text(label),
        })
    }

    fn new(kind: &'static str, uuid: &[u8], label: &[u8]) -> Self {
        let mut digits = String::with_capacity(36);
        for (index, byte) in uuid.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                digits.push('-');
            }
            digits.push_str(&format!("{byte:02x}"));
        }
        Self {
            kind,
            uuid: digits,
            label: text(label),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Makes a file system with the tools of the distribution, which is what meets this code.
    fn made(size: u64, command: &[&str]) -> Option<Superblock> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        let status = Command::new(command[0])
            .args(&command[1..])
            .arg(file.path())
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .output()
            .unwrap();
        assert!(status.status.success(), "{command:?}: {status:?}");
        Superblock::read(&mut file.reopen().unwrap()).unwrap()
    }

    const UUID: &str = "0b8f7a6e-1c2d-4e3f-8a9b-0123456789ab";

    #[test]
    fn ext4_is_known() {
        let found = made(
            8 << 20,
            &[
                "mke2fs",
                "-q",
                "-F",
                "-t",
                "ext4",
                "-U",
                UUID,
                "-L",
                "cloudimg-rootfs",
            ],
        );
        assert_eq!(
            found,
            Some(Superblock {
                kind: "ext4",
                uuid: UUID.to_owned(),
                label: "cloudimg-rootfs".to_owned()
            })
        );
    }

    #[test]
    fn fat_is_known() {
        let found = made(
            64 << 20,
            &["mkfs.vfat", "-F", "32", "-i", "cafe0123", "-n", "EFI"],
        )
        .unwrap();
        assert_eq!(
            (found.kind, found.uuid.as_str(), found.label.as_str()),
            ("vfat", "cafe-0123", "EFI")
        );
        let small = made(4 << 20, &["mkfs.vfat", "-F", "12", "-i", "cafe0124"]).unwrap();
        assert_eq!((small.kind, small.uuid.as_str()), ("vfat", "cafe-0124"));
    }

    #[test]
    fn xfs_and_btrfs_are_known_by_their_magic() {
        let mut bytes = vec![0; LENGTH];
        bytes[..4].copy_from_slice(b"XFSB");
        bytes[0x20..0x30].copy_from_slice(&[0x11; 16]);
        bytes[0x6c..0x70].copy_from_slice(b"root");
        let found = Superblock::of(&bytes).unwrap();
        assert_eq!((found.kind, found.label.as_str()), ("xfs", "root"));
        assert_eq!(found.uuid, "11111111-1111-1111-1111-111111111111");
        let mut bytes = vec![0; LENGTH];
        bytes[0x1_0040..0x1_0048].copy_from_slice(b"_BHRfS_M");
        bytes[0x1_0020..0x1_0030].copy_from_slice(&[0x22; 16]);
        bytes[0x1_012b..0x1_0131].copy_from_slice(b"fedora");
        let found = Superblock::of(&bytes).unwrap();
        assert_eq!((found.kind, found.label.as_str()), ("btrfs", "fedora"));
        assert_eq!(found.uuid, "22222222-2222-2222-2222-222222222222");
    }

    #[test]
    fn anything_else_is_nothing() {
        assert_eq!(
            Superblock::read(&mut io::Cursor::new(vec![])).unwrap(),
            None
        );
        assert_eq!(
            Superblock::read(&mut io::Cursor::new(vec![0x5a; 1 << 20])).unwrap(),
            None
        );
    }
}
