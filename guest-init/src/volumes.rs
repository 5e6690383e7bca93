//! A program's further mounts.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use crn_protocol::guest::Volume;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::disks::Disk;
use crate::error::{Context, Error, Result};
use crate::system::{mount, say};

/// A disk whose first bytes are all zero has never been written: every file system has its super block in there.
const BLANK_BYTES: u64 = 128 * 1024;
/// Where runtimes have it.
const MKFS: [&str; 3] = [
    "/usr/sbin/mkfs.ext4",
    "/sbin/mkfs.ext4",
    "/usr/bin/mkfs.ext4",
];

/// Mounts the volumes in their order; called inside the program's root.
///
/// # Errors
/// A missing disk, a mount point that is not absolute, a disk that is neither blank nor ext4, or the system calls'.
pub fn mount_all(volumes: &[Volume]) -> Result<()> {
    volumes.iter().try_for_each(mount_one)
}

fn mount_one(volume: &Volume) -> Result<()> {
    if !volume.mount.starts_with('/') || volume.mount.contains('\0') {
        return Err(Error::Refused(format!(
            "the mount point {:?} is not an absolute path",
            volume.mount
        )));
    }
    let device = Disk::with_serial(&volume.disk)?.device();
    let source = device.to_string_lossy();
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    if volume.read_only {
        return mount(
            &source,
            &volume.mount,
            "squashfs",
            flags | MountFlags::RDONLY,
            None,
        );
    }
    if is_blank(&device).context(|| format!("read {source}"))? {
        format(&device)?;
    }
    mount(&source, &volume.mount, "ext4", flags, None)
}

fn is_blank(device: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(device)?
        .take(BLANK_BYTES)
        .read_to_end(&mut start)?;
    Ok(start.iter().all(|byte| *byte == 0))
}

fn format(device: &Path) -> Result<()> {
    let mkfs = MKFS
        .into_iter()
        .find(|path| Path::new(path).exists())
        .ok_or_else(|| {
            Error::Refused(format!(
                "{} is blank and the runtime has no mkfs.ext4 to format it with",
                device.display()
            ))
        })?;
    // The disk is sparse on the host and full of zeros: nothing to discard, no tables to clear.
    let output = Command::new(mkfs)
        .args([
            "-q",
            "-m",
            "0",
            "-E",
            "nodiscard,assume_storage_prezeroed=1",
        ])
        .arg(device)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .context(|| format!("run {mkfs}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Refused(format!(
        "{mkfs} {} failed ({}): {}",
        device.display(),
        output.status,
        said.trim()
    )))
}

/// Unmounts the writable volumes, so that their journals are clean; called when no process uses them any more.
pub fn unmount_all(volumes: &[Volume]) {
    for volume in volumes.iter().rev().filter(|volume| !volume.read_only) {
        if let Err(error) = rustix::mount::unmount(volume.mount.as_str(), UnmountFlags::empty()) {
            say(&format!("unmount {}: {error}", volume.mount));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_disk_of_zeros_is_blank() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        assert!(is_blank(file.path()).unwrap());
        std::os::unix::fs::FileExt::write_at(file.as_file(), &[0x53, 0xef], 1080).unwrap();
        assert!(!is_blank(file.path()).unwrap());
    }

    #[test]
    fn a_relative_mount_point_is_refused() {
        let volume = Volume {
            disk: "vol0".to_owned(),
            mount: "data".to_owned(),
            read_only: false,
        };
        assert!(matches!(mount_one(&volume), Err(Error::Refused(_))));
    }
}
