//! Writes an initramfs: a `newc` cpio archive, uncompressed (Documentation/driver-api/early-userspace/buffer-format).

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

const S_IFDIR: u32 = 0o040000;
const S_IFCHR: u32 = 0o020000;
const S_IFREG: u32 = 0o100000;

/// An archive under construction. Parent directories are made as they are needed.
#[derive(Debug)]
pub struct Archive<W> {
    out: W,
    written: u64,
    inode: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// Starts an archive in `out`.
    pub fn new(out: W) -> Self {
        Archive {
            out,
            written: 0,
            inode: 0,
            directories: BTreeSet::new(),
        }
    }

    /// Adds a directory and those above it.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        let path = path.trim_matches('/');
        if path.is_empty() || self.directories.contains(path) {
            return Ok(());
        }
        self.parents(path)?;
        self.header(path, S_IFDIR | 0o755, 0, (0, 0))?;
        self.directories.insert(path.to_owned());
        Ok(())
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.parents(path.trim_matches('/'))?;
        self.header(path, S_IFCHR | 0o600, 0, (major, minor))
    }

    /// Adds a regular file of exactly `size` bytes, mode 0755.
    pub fn file(&mut self, path: &str, size: u64, contents: impl Read) -> io::Result<()> {
        // The size field holds eight hexadecimal digits.
        let size = u32::try_from(size)
            .map_err(|_| io::Error::other(format!("{path}: more than 4 GiB")))?;
        self.parents(path.trim_matches('/'))?;
        self.header(path, S_IFREG | 0o755, size, (0, 0))?;
        let copied = io::copy(&mut contents.take(u64::from(size)), &mut self.out)?;
        if copied != u64::from(size) {
            return Err(io::Error::other(format!(
                "{path}: ended after {copied} of {size} bytes"
            )));
        }
        self.written += copied;
        self.pad(4)
    }

    /// Writes the trailer and returns the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.header("TRAILER!!!", 0, 0, (0, 0))?;
        self.pad(512)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.directory(parent),
            None => Ok(()),
        }
    }

    fn header(&mut self, path: &str, mode: u32, size: u32, device: (u32, u32)) -> io::Result<()> {
        let name = path.trim_matches('/');
        self.inode += 1;
        let links = if mode & S_IFDIR != 0 { 2 } else { 1 };
        // magic, ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let header = format!(
            "070701{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{}\0",
            self.inode,
            mode,
            0,
            0,
            links,
            0,
            size,
            0,
            0,
            device.0,
            device.1,
            name.len() + 1,
            0,
            name
        );
        self.out.write_all(header.as_bytes())?;
        self.written += header.len() as u64;
        self.pad(4)
    }

    fn pad(&mut self, to: u64) -> io::Result<()> {
        let missing = self.written.next_multiple_of(to) - self.written;
        self.written += missing;
        io::copy(&mut io::repeat(0).take(missing), &mut self.out)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_once_and_before_their_files() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/a/b/c", 3, &b"xyz"[..]).unwrap();
        archive.file("/a/b/d", 0, &b""[..]).unwrap();
        let bytes = archive.finish().unwrap();

        let text = String::from_utf8_lossy(&bytes);
        let names: Vec<&str> = text
            .split("070701")
            .skip(1)
            .map(|member| member[104..].split('\0').next().unwrap())
            .collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/b/d", "TRAILER!!!"]);
        assert_eq!(bytes.len() % 512, 0);
    }

    #[test]
    fn a_file_shorter_than_announced_is_refused() {
        assert!(Archive::new(Vec::new()).file("/a", 4, &b"xyz"[..]).is_err());
    }
}
