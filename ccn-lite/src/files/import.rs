//! Archives coming in and going out: what is uploaded as one is kept as a plain file where a file can be made into the
//! same blocks again, and any file or directory is given back as one.

use std::fs::File;
use std::io::{self, BufWriter, Read};
use std::path::Path;

use tempfile::NamedTempFile;

use super::archive::{Archive, ArchiveError};
use super::car;
use super::cid::Cid;
use super::dagpb::Kind;
use super::tree::{CidHasher, Layout, TreeBuilder};
use super::{Blobs, Uploaded};

const BUFFER: usize = 1 << 18;

/// An archive that was checked, ready to be published.
pub struct Imported {
    /// The root.
    pub root: Cid,
    /// Bytes: of the file, or of all blocks of a directory.
    pub size: u64,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// The bytes of a file.
    plain: Option<NamedTempFile>,
    /// The archive of what the bytes alone do not tell.
    archive: Option<NamedTempFile>,
}

fn read_all(path: &Path, mut sink: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            read => sink(&buffer[..read])?,
        }
    }
}

/// The layout in which the file at `path` has the CID `expected`.
///
/// # Errors
/// When the file cannot be read.
pub fn layout_of(path: &Path, expected: &Cid) -> io::Result<Option<Layout>> {
    // Which version a CID has says which layout is likely, but not for certain.
    let likely = |layout: &Layout| layout.version == expected.version();
    let (first, second): (Vec<_>, Vec<_>) = Layout::ALL.into_iter().partition(likely);
    for layout in first.into_iter().chain(second) {
        let mut hasher = CidHasher::new(layout);
        read_all(path, |bytes| {
            hasher.update(bytes);
            Ok(())
        })?;
        if hasher.finish() == *expected {
            return Ok(Some(layout));
        }
    }
    Ok(None)
}

impl Blobs {
    /// Checks an uploaded archive; what it stands for may have at most `limit` bytes.
    ///
    /// # Errors
    /// When the archive is broken, incomplete, or neither a file nor a directory.
    pub fn import(&self, car: &Uploaded, limit: u64) -> Result<Imported, ArchiveError> {
        let archive = Archive::open(car.file.path())?;
        let root = archive.root();
        let measure = archive.measure(limit)?;
        let is_directory = match measure.kind {
            Kind::Directory | Kind::Shard => true,
            Kind::File | Kind::Raw => false,
            Kind::Symlink => {
                return Err(ArchiveError::Rule {
                    cid: root,
                    reason: "a symbolic link alone is nothing to keep",
                });
            }
        };
        let plain = if is_directory {
            None
        } else {
            let mut out = BufWriter::with_capacity(BUFFER, self.temporary()?);
            io::copy(&mut archive.file(root), &mut out)?;
            Some(out.into_inner().map_err(io::IntoInnerError::into_error)?)
        };
        let told_by_bytes = match &plain {
            Some(file) => layout_of(file.path(), &root)?.is_some(),
            None => false,
        };
        let archive = if told_by_bytes {
            None
        } else {
            let mut out = BufWriter::with_capacity(BUFFER, self.temporary()?);
            archive.write_canonical(&mut out)?;
            Some(out.into_inner().map_err(io::IntoInnerError::into_error)?)
        };
        Ok(Imported {
            root,
            size: if is_directory {
                measure.tree
            } else {
                measure.content
            },
            is_directory,
            plain,
            archive,
        })
    }

    /// Gives an imported archive its name; afterwards it survives power loss.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn publish_imported(&self, imported: Imported) -> io::Result<()> {
        let name = imported.root.to_string();
        if let Some(archive) = imported.archive {
            self.persist(archive, &self.archive_path(&name))?;
        }
        match imported.plain {
            Some(plain) => self.persist(plain, &self.path(&name)),
            None => Ok(()),
        }
    }

    /// Writes the archive of the plain file `name` into a nameless file; `None` when its bytes do not make that CID.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn export(&self, name: &Cid) -> io::Result<Option<File>> {
        let path = self.path(&name.to_string());
        let Some(layout) = layout_of(&path, name)? else {
            return Ok(None);
        };
        let mut out =
            BufWriter::with_capacity(BUFFER, tempfile::tempfile_in(self.root.join("incoming"))?);
        car::write_header(&mut out, name)?;
        let mut builder = TreeBuilder::new(layout);
        let mut sink =
            |cid: &Cid, block: &[u8]| -> io::Result<()> { car::write_block(&mut out, cid, block) };
        read_all(&path, |bytes| builder.update(bytes, &mut sink))?;
        builder.finish(&mut sink)?;
        let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        io::Seek::rewind(&mut file)?;
        Ok(Some(file))
    }

    /// Whether the stored blob `name` is intact: its bytes, or all blocks of its archive, have the name they stand
    /// under.
    ///
    /// # Errors
    /// When the disk refuses; a blob that is not there is one that cannot be read.
    pub fn is_intact(&self, name: &str) -> io::Result<bool> {
        let path = self.path(name);
        let Ok(cid) = name.parse::<Cid>() else {
            use sha2::Digest;
            let mut hasher = sha2::Sha256::new();
            read_all(&path, |bytes| {
                hasher.update(bytes);
                Ok(())
            })?;
            return Ok(hex::encode(hasher.finalize()) == name);
        };
        if !self.archive_path(name).try_exists()? {
            return Ok(layout_of(&path, &cid)?.is_some());
        }
        let checked = Archive::open(&self.archive_path(name)).and_then(|archive| {
            let measure = archive.measure(u64::MAX)?;
            Ok((archive, measure))
        });
        let (archive, measure) = match checked {
            Ok(checked) => checked,
            Err(ArchiveError::Io(error)) => return Err(error),
            Err(_) => return Ok(false),
        };
        if archive.root() != cid {
            return Ok(false);
        }
        if matches!(measure.kind, Kind::Directory | Kind::Shard) {
            return Ok(true);
        }
        same_bytes(archive.file(cid), File::open(&path)?)
    }
}

/// Whether two readers give the same bytes.
fn same_bytes(mut a: impl Read, mut b: impl Read) -> io::Result<bool> {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        for (input, piece) in [(&mut a as &mut dyn Read, &mut left), (&mut b, &mut right)] {
            piece.clear();
            input.take(BUFFER as u64).read_to_end(piece)?;
        }
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}
