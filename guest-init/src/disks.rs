//! Block devices, found by the serial the monitor gave them, never by order.
//!
//! The drivers are built into the kernel and have probed before PID 1 starts, so whatever is there is there now.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};

const SYS_BLOCK: &str = "/sys/block";

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// `vda`.
    pub name: String,
}

impl Disk {
    /// `/dev/vda`.
    #[must_use]
    pub fn device(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// The disk whose serial is `wanted`.
    ///
    /// # Errors
    /// [`Error::NoDisk`] with what there is instead, or reading /sys.
    pub fn with_serial(wanted: &str) -> Result<Self> {
        Self::find(Path::new(SYS_BLOCK), wanted)
    }

    fn find(sys: &Path, wanted: &str) -> Result<Self> {
        let mut present = Vec::new();
        for name in names(sys).context(|| format!("list {}", sys.display()))? {
            // Only disks have the attribute; a virtio disk without identity answers with an empty one.
            let Ok(serial) = fs::read_to_string(sys.join(&name).join("serial")) else {
                continue;
            };
            let serial = serial.trim_matches(['\n', '\0']);
            if serial == wanted {
                return Ok(Self { name });
            }
            present.push(format!("{name}={serial}"));
        }
        let present = if present.is_empty() {
            "none".to_owned()
        } else {
            present.join(" ")
        };
        Err(Error::NoDisk {
            wanted: wanted.to_owned(),
            present,
        })
    }

    /// The disk's partitions as the kernel sees them, by number.
    ///
    /// # Errors
    /// Reading /sys.
    pub fn partitions(&self) -> Result<Vec<Partition>> {
        self.partitions_in(Path::new(SYS_BLOCK))
    }

    fn partitions_in(&self, sys: &Path) -> Result<Vec<Partition>> {
        let directory = sys.join(&self.name);
        let mut found = Vec::new();
        for name in names(&directory).context(|| format!("list {}", directory.display()))? {
            let Ok(number) = fs::read_to_string(directory.join(&name).join("partition")) else {
                continue;
            };
            if let Ok(number) = number.trim().parse() {
                found.push(Partition { number, name });
            }
        }
        found.sort_by_key(|partition| partition.number);
        Ok(found)
    }
}

/// A partition of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Counted from 1.
    pub number: u32,
    /// `vda1`.
    pub name: String,
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = fs::read_dir(directory)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect::<Vec<_>>();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sys() -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        for (path, content) in [
            ("loop0/size", "0\n"),
            ("vda/serial", "runtime"),
            ("vdb/serial", "code\n"),
            ("vdc/serial", "root"),
            ("vdc/vdc15/partition", "15\n"),
            ("vdc/vdc1/partition", "1\n"),
            ("vdc/queue/depth", "1\n"),
        ] {
            let path = sys.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        sys
    }

    #[test]
    fn a_disk_is_found_by_its_serial() {
        let sys = sys();
        assert_eq!(Disk::find(sys.path(), "code").unwrap().name, "vdb");
        assert_eq!(
            Disk::find(sys.path(), "runtime").unwrap().device(),
            Path::new("/dev/vda")
        );
    }

    #[test]
    fn a_missing_disk_is_told_with_those_present() {
        let error = Disk::find(sys().path(), "vol0").unwrap_err().to_string();
        assert_eq!(
            error,
            "no disk has the serial \"vol0\"; there are: vda=runtime vdb=code vdc=root"
        );
    }

    #[test]
    fn partitions_come_by_number() {
        let sys = sys();
        let disk = Disk::find(sys.path(), "root").unwrap();
        let numbers: Vec<u32> = disk
            .partitions_in(sys.path())
            .unwrap()
            .iter()
            .map(|found| found.number)
            .collect();
        assert_eq!(numbers, [1, 15]);
    }
}
