//! A mounted file system that may hold a boot loader's files.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

/// Longest configuration file read, bytes; Debian's with twenty kernels has 40 KiB.
const MAX_CONFIG: u64 = 1 << 20;
/// Most entries of one directory looked at.
const MAX_LISTED: usize = 1024;

/// A file system, read-only. Symbolic links are followed inside of it.
#[derive(Debug)]
pub struct Volume {
    root: OwnedFd,
    /// For messages: `/dev/vda1`.
    pub name: String,
    /// As [`super::superblock::Superblock`] has it.
    pub uuid: String,
    /// See `uuid`.
    pub label: String,
}

impl Volume {
    /// The file system mounted on `directory`.
    ///
    /// # Errors
    /// open(2)'s.
    pub fn new(directory: &Path, name: String, uuid: String, label: String) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            root: rustix::fs::open(directory, flags, Mode::empty())?,
            name,
            uuid,
            label,
        })
    }

    /// Opens a regular file.
    ///
    /// # Errors
    /// openat2(2)'s, and [`io::ErrorKind::InvalidInput`] for anything but a regular file.
    pub fn open(&self, path: &str) -> io::Result<File> {
        // Without waiting, should it be a FIFO.
        let file = File::from(self.at(path, OFlags::RDONLY | OFlags::NONBLOCK)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        Ok(file)
    }

    /// Reads a configuration file as text.
    ///
    /// # Errors
    /// See [`Volume::open`]; [`io::ErrorKind::FileTooLarge`] beyond a mebibyte.
    pub fn read(&self, path: &str) -> io::Result<String> {
        let mut bytes = Vec::new();
        self.open(path)?
            .take(MAX_CONFIG + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_CONFIG {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What a path is; `None` when there is nothing.
    #[must_use]
    pub fn kind(&self, path: &str) -> Option<FileType> {
        let file = self.at(path, OFlags::PATH).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        Some(FileType::from_raw_mode(stat.st_mode))
    }

    /// Whether a path is a file that is not empty.
    #[must_use]
    pub fn has_content(&self, path: &str) -> bool {
        self.open(path)
            .and_then(|file| file.metadata())
            .is_ok_and(|metadata| metadata.len() > 0)
    }

    /// The names in a directory, sorted; none when there is no such directory.
    #[must_use]
    pub fn list(&self, path: &str) -> Vec<String> {
        let Ok(directory) = self.at(path, OFlags::RDONLY | OFlags::DIRECTORY) else {
            return Vec::new();
        };
        let Ok(entries) = rustix::fs::Dir::new(directory) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str().ok().map(str::to_owned))
            .filter(|name| !matches!(name.as_str(), "." | ".."))
            .take(MAX_LISTED)
            .collect();
        names.sort();
        names
    }

    fn at(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(rustix::fs::openat2(
            &self.root,
            path,
            flags,
            Mode::empty(),
            resolve,
        )?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_inside_and_never_out() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("boot/grub")).unwrap();
        fs::write(tree.path().join("boot/grub/grub.cfg"), "set x=1").unwrap();
        symlink("/boot/grub/grub.cfg", tree.path().join("inside")).unwrap();
        symlink("/etc/passwd", tree.path().join("outside")).unwrap();
        symlink("../../../../etc/passwd", tree.path().join("above")).unwrap();
        let volume =
            Volume::new(tree.path(), "vda1".to_owned(), String::new(), String::new()).unwrap();
        assert_eq!(volume.read("inside").unwrap(), "set x=1");
        assert!(volume.read("outside").is_err() && volume.read("above").is_err());
        assert!(volume.read("/boot").is_err());
        assert_eq!(volume.kind("/boot"), Some(FileType::Directory));
        assert_eq!(volume.kind("/nothing"), None);
        assert!(volume.has_content("/inside"));
        assert_eq!(volume.list("/"), ["above", "boot", "inside", "outside"]);
        assert!(volume.list("/none").is_empty());
    }
}
