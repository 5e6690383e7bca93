//! Blobs on disk, named by content.
//!
//! Bytes stream into a temporary file while they are hashed and counted; a blob appears under its name only complete,
//! synced and by rename. Whether a blob is *known* is decided by the database, not by its presence here.

pub mod archive;
pub mod car;
pub mod cid;
pub mod dagpb;
pub mod import;
pub mod tar;
pub mod tree;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use archive::{Archive, ArchiveError};
use tree::{CidHasher, Layout};

/// Largest JSON content read into memory for a message that is not inline.
pub const MAX_CONTENT_BYTES: u64 = 1 << 20;

/// The directory of blobs.
#[derive(Debug, Clone)]
pub struct Blobs {
    root: PathBuf,
}

/// Why an upload stopped.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// More bytes than allowed.
    #[error("file exceeds the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// Disk trouble.
    #[error("cannot store upload")]
    Io(#[from] io::Error),
}

/// An upload in progress.
pub struct Upload {
    file: NamedTempFile,
    sha256: Sha256,
    cid: Option<CidHasher>,
    size: u64,
    limit: u64,
}

/// A complete upload that has no name yet; dropped, it disappears.
pub struct Uploaded {
    file: NamedTempFile,
    /// Hex sha256 of the bytes.
    pub sha256: String,
    /// CIDv0, when asked for.
    pub cid: Option<String>,
    /// Bytes.
    pub size: u64,
}

impl Blobs {
    /// The directory of another process: nothing is created or removed by opening it.
    pub fn at(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// Opens `root`, creating it, and removes what interrupted uploads left.
    pub fn open(root: &Path) -> io::Result<Self> {
        let incoming = root.join("incoming");
        std::fs::create_dir_all(&incoming)?;
        for entry in std::fs::read_dir(&incoming)? {
            std::fs::remove_file(entry?.path())?;
        }
        Ok(Self { root: root.into() })
    }

    /// Where the blob `hash` stands. `hash` is a checked item hash: letters and digits only.
    pub fn path(&self, hash: &str) -> PathBuf {
        let tail = &hash[hash.len().saturating_sub(4)..];
        let (a, b) = tail.split_at(tail.len() / 2);
        self.root.join(a).join(b).join(hash)
    }

    /// Starts an upload of at most `limit` bytes.
    pub fn begin(&self, limit: u64, with_cid: bool) -> io::Result<Upload> {
        Ok(Upload {
            file: self.temporary()?,
            sha256: Sha256::new(),
            cid: with_cid.then(|| CidHasher::new(Layout::V0)),
            size: 0,
            limit,
        })
    }

    /// Where the archive of `hash` stands, for what is more than one plain file.
    pub fn archive_path(&self, hash: &str) -> PathBuf {
        self.path(hash).with_extension("car")
    }

    /// The archive of `hash`; `None` when it is a plain file.
    pub fn archive(&self, hash: &str) -> Result<Option<Archive>, ArchiveError> {
        let path = self.archive_path(hash);
        if path.try_exists()? {
            Archive::open_trusted(&path).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Gives the upload its name; afterwards it survives power loss.
    pub fn publish(&self, uploaded: Uploaded, hash: &str) -> io::Result<()> {
        self.persist(uploaded.file, &self.path(hash))
    }

    fn persist(&self, file: NamedTempFile, path: &Path) -> io::Result<()> {
        let parent = path
            .parent()
            .ok_or_else(|| io::Error::other("blob path has no parent"))?;
        std::fs::create_dir_all(parent)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        let mut dir = parent;
        while dir.starts_with(&self.root) {
            File::open(dir)?.sync_all()?;
            let Some(up) = dir.parent() else { break };
            dir = up;
        }
        Ok(())
    }

    /// Stores `bytes` under the name chosen by `name` from the hashes.
    pub fn put(&self, bytes: &[u8], with_cid: bool) -> Result<(String, u64), UploadError> {
        let mut upload = self.begin(u64::MAX, with_cid)?;
        upload.write(bytes)?;
        let uploaded = upload.finish()?;
        let name = uploaded.name().to_owned();
        let size = uploaded.size;
        self.publish(uploaded, &name)?;
        Ok((name, size))
    }

    /// Size in bytes, `None` when absent.
    pub fn size(&self, hash: &str) -> io::Result<Option<u64>> {
        match std::fs::metadata(self.path(hash)) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a blob of at most `limit` bytes; `None` when absent, an error when larger.
    pub fn read(&self, hash: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path(hash)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "blob too large",
            ));
        }
        Ok(Some(bytes))
    }

    /// Whether anything stands under `hash`.
    pub fn exists(&self, hash: &str) -> io::Result<bool> {
        Ok(self.path(hash).try_exists()? || self.archive_path(hash).try_exists()?)
    }

    /// Takes the name from a blob and its archive, which is quick however large they are; dropping what comes back
    /// gives the space free. Absent is fine.
    pub fn retire(&self, hash: &str) -> io::Result<Vec<tempfile::TempPath>> {
        let mut retired = Vec::new();
        for path in [self.path(hash), self.archive_path(hash)] {
            let trash = self.temporary()?.into_temp_path();
            match std::fs::rename(path, &trash) {
                Ok(()) => retired.push(trash),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(retired)
    }

    fn temporary(&self) -> io::Result<NamedTempFile> {
        NamedTempFile::new_in(self.root.join("incoming"))
    }
}

impl Upload {
    /// Takes the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        let size = self.size.saturating_add(bytes.len() as u64);
        if size > self.limit {
            return Err(UploadError::TooLarge { limit: self.limit });
        }
        self.size = size;
        self.sha256.update(bytes);
        if let Some(cid) = &mut self.cid {
            cid.update(bytes);
        }
        self.file.write_all(bytes)?;
        Ok(())
    }

    /// No more bytes come.
    pub fn finish(self) -> io::Result<Uploaded> {
        Ok(Uploaded {
            file: self.file,
            sha256: hex::encode(self.sha256.finalize()),
            cid: self.cid.map(|hasher| hasher.finish().to_string()),
            size: self.size,
        })
    }
}

impl Uploaded {
    /// The CID when one was computed, else the sha256.
    pub fn name(&self) -> &str {
        self.cid.as_deref().unwrap_or(&self.sha256)
    }

    /// Whether the bytes have this CID in any layout files are added with.
    pub fn has_cid(&self, expected: &cid::Cid) -> io::Result<bool> {
        Ok(import::layout_of(self.file.path(), expected)?.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_enforced_while_writing() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let mut upload = blobs.begin(10, false).unwrap();
        upload.write(b"12345678").unwrap();
        assert!(matches!(
            upload.write(b"901"),
            Err(UploadError::TooLarge { limit: 10 })
        ));
    }

    #[test]
    fn published_blob_is_found_and_leftovers_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let (name, size) = blobs.put(b"abc", false).unwrap();
        assert_eq!(size, 3);
        assert_eq!(blobs.read(&name, 3).unwrap().unwrap(), b"abc");
        std::fs::write(dir.path().join("incoming/junk"), b"x").unwrap();
        Blobs::open(dir.path()).unwrap();
        assert!(!dir.path().join("incoming/junk").exists());
    }
}
