//! A directory as a tar archive.

use std::io::{self, Write};

use super::Blobs;
use super::archive::{ArchiveError, Entry};

/// Writes the directory `hash` with everything in it below a directory of that name.
///
/// # Errors
/// When it is not there, is damaged, or `out` refuses.
pub fn write(blobs: &Blobs, hash: &str, out: &mut impl Write) -> Result<(), ArchiveError> {
    let archive = blobs
        .archive(hash)?
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let mut tar = tar::Builder::new(out);
    archive.walk(&mut |path, entry| {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        match entry {
            Entry::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
                header.set_size(0);
                Ok(tar.append_data(&mut header, format!("{path}/"), io::empty())?)
            }
            Entry::Symlink(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                header.set_size(0);
                let target = String::from_utf8_lossy(target);
                Ok(tar.append_link(&mut header, path, target.as_ref())?)
            }
            Entry::File(bytes, size) => {
                header.set_mode(0o644);
                header.set_size(size);
                Ok(tar.append_data(&mut header, path, bytes)?)
            }
        }
    })?;
    tar.into_inner()?;
    Ok(())
}
