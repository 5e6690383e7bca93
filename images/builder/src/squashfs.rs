//! A directory tree into one squashfs image.
//!
//! The tree is walked depth first in name order, so inode numbers, and with them the image, depend on nothing else; a
//! directory is written after its children, as the format's writer wants it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use squashfs_ng::SquashfsError;
use squashfs_ng::write::{Source, SourceData, Writer};

/// Offset of `modification_time` (32 bits, little endian) in the superblock: magic and inode count stand before it.
/// The writer puts the present there.
const SUPERBLOCK_MTIME: u64 = 8;
/// Permission, set-id and sticky bits of `st_mode`.
const MODE_BITS: u32 = 0o7777;

/// Why a directory could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Something in the tree could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The path that was read.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The source is not a directory.
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    /// The writer takes names and link targets as UTF-8 only.
    #[error("{0:?} has a name or a link target that is not UTF-8: rename or remove it")]
    NotUtf8(PathBuf),
    /// The writer refused an entry.
    #[error("cannot pack {path}")]
    Add {
        /// The entry.
        path: PathBuf,
        /// What the writer said.
        #[source]
        source: SquashfsError,
    },
    /// The image could not be created or completed.
    #[error("cannot write image {path}")]
    Image {
        /// The image, under its temporary name.
        path: PathBuf,
        /// What the writer said.
        #[source]
        source: SquashfsError,
    },
    /// The finished image could not be put in place.
    #[error("cannot publish {path}")]
    Publish {
        /// The image's final name.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What went into an image.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// Regular files.
    pub files: u64,
    /// Directories, the root included.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Device nodes, FIFOs and sockets that were left out.
    pub skipped: u64,
    /// Sum of the files' lengths.
    pub content_bytes: u64,
    /// Length of the image.
    pub image_bytes: u64,
}

/// Packs the tree at `source` into the image `output`; time stamps later than `epoch` (Unix seconds) become `epoch`.
pub fn pack(source: &Path, output: &Path, epoch: u32) -> Result<Packed, PackError> {
    let root = metadata(source)?;
    if !root.is_dir() {
        return Err(PackError::NotADirectory(source.to_path_buf()));
    }
    let mut temporary = output.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);

    let result = write(source, &root, &temporary, epoch)
        .and_then(|packed| publish(&temporary, output, epoch, packed));
    if result.is_err() {
        // Best effort: the error that matters is the one being returned.
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn write(source: &Path, root: &Metadata, image: &Path, epoch: u32) -> Result<Packed, PackError> {
    let refused = |source| PackError::Image {
        path: image.to_path_buf(),
        source,
    };
    let mut packer = Packer {
        writer: Writer::open(image).map_err(refused)?,
        epoch,
        packed: Packed::default(),
    };
    packer.directory(source, root)?;
    packer.writer.finish().map_err(refused)?;
    Ok(packer.packed)
}

fn publish(
    temporary: &Path,
    output: &Path,
    epoch: u32,
    mut packed: Packed,
) -> Result<Packed, PackError> {
    let refused = |source| PackError::Publish {
        path: output.to_path_buf(),
        source,
    };
    let file = File::options()
        .write(true)
        .open(temporary)
        .map_err(refused)?;
    file.write_all_at(&epoch.to_le_bytes(), SUPERBLOCK_MTIME)
        .map_err(refused)?;
    file.sync_all().map_err(refused)?;
    packed.image_bytes = file.metadata().map_err(refused)?.len();
    fs::rename(temporary, output).map_err(refused)?;
    Ok(packed)
}

struct Packer {
    writer: Writer,
    epoch: u32,
    packed: Packed,
}

impl Packer {
    /// Adds a directory after everything below it; its inode number.
    fn directory(&mut self, path: &Path, meta: &Metadata) -> Result<u32, PackError> {
        let unreadable = |source| PackError::Read {
            path: path.to_path_buf(),
            source,
        };
        let mut names = fs::read_dir(path)
            .map_err(unreadable)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<OsString>>>()
            .map_err(unreadable)?;
        names.sort();
        let mut children = Vec::with_capacity(names.len());
        for name in names {
            let child = path.join(&name);
            if name.to_str().is_none() {
                return Err(PackError::NotUtf8(child));
            }
            if let Some(inode) = self.entry(&child)? {
                children.push((name, inode));
            }
        }
        self.packed.directories += 1;
        self.add(path, meta, SourceData::Dir(Box::new(children.into_iter())))
    }

    /// Adds whatever stands at `path`; `None` when its kind is left out.
    fn entry(&mut self, path: &Path) -> Result<Option<u32>, PackError> {
        let meta = metadata(path)?;
        let kind = meta.file_type();
        if kind.is_dir() {
            return self.directory(path, &meta).map(Some);
        }
        let unreadable = |source| PackError::Read {
            path: path.to_path_buf(),
            source,
        };
        let data = if kind.is_file() {
            self.packed.files += 1;
            self.packed.content_bytes += meta.len();
            SourceData::File(Box::new(File::open(path).map_err(unreadable)?))
        } else if kind.is_symlink() {
            let target = fs::read_link(path).map_err(unreadable)?;
            if target.to_str().is_none() {
                return Err(PackError::NotUtf8(path.to_path_buf()));
            }
            self.packed.symlinks += 1;
            SourceData::Symlink(target)
        } else {
            eprintln!(
                "left out, not a file, directory or link: {}",
                path.display()
            );
            self.packed.skipped += 1;
            return Ok(None);
        };
        self.add(path, &meta, data).map(Some)
    }

    fn add(&mut self, path: &Path, meta: &Metadata, data: SourceData) -> Result<u32, PackError> {
        let modified = u32::try_from(meta.mtime().max(0))
            .unwrap_or(u32::MAX)
            .min(self.epoch);
        let source = Source {
            data,
            uid: meta.uid(),
            gid: meta.gid(),
            mode: (meta.mode() & MODE_BITS) as u16,
            modified,
            xattrs: attributes(path)?,
            flags: 0,
        };
        self.writer.add(source).map_err(|source| PackError::Add {
            path: path.to_path_buf(),
            source,
        })
    }
}

fn metadata(path: &Path) -> Result<Metadata, PackError> {
    fs::symlink_metadata(path).map_err(|source| PackError::Read {
        path: path.to_path_buf(),
        source,
    })
}

/// Extended attributes of the entry itself, not of what a link points to: file capabilities live there.
fn attributes(path: &Path) -> Result<HashMap<OsString, Vec<u8>>, PackError> {
    let unreadable = |source| PackError::Read {
        path: path.to_path_buf(),
        source,
    };
    let mut found = HashMap::new();
    for name in xattr::list(path).map_err(unreadable)? {
        if let Some(value) = xattr::get(path, &name).map_err(unreadable)? {
            found.insert(name, value);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    const EPOCH: u32 = 1_750_000_000;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(dir.path().join("sub")).expect("directory");
        fs::write(dir.path().join("sub/file"), b"content").expect("file");
        symlink("sub/file", dir.path().join("link")).expect("link");
        dir
    }

    #[test]
    fn same_tree_gives_same_image() {
        let tree = tree();
        let out = tempfile::tempdir().expect("temporary directory");
        let (one, two) = (out.path().join("one"), out.path().join("two"));

        let packed = pack(tree.path(), &one, EPOCH).expect("packs");
        pack(tree.path(), &two, EPOCH).expect("packs");

        assert_eq!(
            (packed.files, packed.directories, packed.symlinks),
            (1, 2, 1)
        );
        assert_eq!(fs::read(one).expect("image"), fs::read(two).expect("image"));
    }

    #[test]
    fn packed_file_reads_back() {
        let tree = tree();
        let out = tempfile::tempdir().expect("temporary directory");
        let image = out.path().join("image");
        pack(tree.path(), &image, EPOCH).expect("packs");

        let archive = squashfs_ng::read::Archive::open(&image).expect("opens");
        let node = archive.get("/sub/file").expect("lookup").expect("exists");
        let content = node
            .as_file()
            .expect("is a file")
            .to_bytes()
            .expect("reads");

        assert_eq!(content, b"content");
    }

    #[test]
    fn name_that_is_not_utf8_is_refused_and_leaves_nothing() {
        let tree = tree();
        fs::write(tree.path().join(OsStr::from_bytes(b"\xff")), b"").expect("file");
        let out = tempfile::tempdir().expect("temporary directory");

        let result = pack(tree.path(), &out.path().join("image"), EPOCH);

        assert!(matches!(result, Err(PackError::NotUtf8(_))));
        assert_eq!(fs::read_dir(out.path()).expect("directory").count(), 0);
    }

    #[test]
    fn file_as_source_is_refused() {
        let tree = tree();
        let file = tree.path().join("sub/file");
        assert!(matches!(
            pack(&file, &tree.path().join("image"), EPOCH),
            Err(PackError::NotADirectory(_))
        ));
    }
}
