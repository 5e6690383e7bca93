//! Unpacking a ZIP archive made by a stranger: names that stay inside, a total that fits, no surprises in between.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use zip::ZipArchive;

use crate::error::{Context, Error, Result};

/// Entries that an archive may have.
const MAX_ENTRIES: usize = 100_000;
/// The longest target of a symbolic link, PATH_MAX.
const MAX_LINK: u64 = 4096;

/// The first `length` bytes of a reader, as if there were no more: a disk is longer than the file it carries.
#[derive(Debug)]
pub struct Section<R> {
    inner: R,
    length: u64,
    position: u64,
}

impl<R: Read + Seek> Section<R> {
    /// The first `length` bytes of `inner`, which stands at its start.
    pub const fn new(inner: R, length: u64) -> Self {
        Self {
            inner,
            length,
            position: 0,
        }
    }
}

impl<R: Read> Read for Section<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.length.saturating_sub(self.position);
        let want = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let got = self.inner.read(&mut buffer[..want])?;
        self.position += got as u64;
        Ok(got)
    }
}

impl<R: Seek> Seek for Section<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        let position = position.ok_or(io::ErrorKind::InvalidInput)?;
        self.position = self.inner.seek(SeekFrom::Start(position))?;
        Ok(self.position)
    }
}

/// The path an archive's name stands for below the target; `None` for one that is absolute, climbs with `..`, is
/// empty or holds a NUL.
#[must_use]
pub fn inside(name: &str) -> Option<PathBuf> {
    if name.contains('\0') {
        return None;
    }
    let mut path = PathBuf::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!path.as_os_str().is_empty()).then_some(path)
}

/// Unpacks an archive below `target`, an existing directory with `room` bytes to spare.
///
/// # Errors
/// A name that [`inside`] refuses, an archive larger than the room, a broken archive, or writing.
pub fn unpack(archive: impl Read + Seek, target: &Path, room: u64) -> Result<()> {
    let mut archive = ZipArchive::new(archive)?;
    if archive.len() > MAX_ENTRIES {
        return Err(Error::Refused(format!(
            "the archive has {} entries; {MAX_ENTRIES} are allowed",
            archive.len()
        )));
    }
    let mut total = 0u64;
    for index in 0..archive.len() {
        total = total.saturating_add(archive.by_index_raw(index)?.size());
    }
    if total > room {
        return Err(Error::Refused(format!(
            "the archive unpacks to {total} bytes; there is room for {room}"
        )));
    }

    // Links come last, so that no file is written through one.
    let mut links = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let name = entry.name()?.into_owned();
        if name == "/" || name == "./" {
            continue;
        }
        let path = inside(&name).ok_or_else(|| {
            Error::Refused(format!(
                "the archive names {name:?}, which is not inside it"
            ))
        })?;
        let path = target.join(path);
        if entry.is_dir() {
            fs::create_dir_all(&path)
                .context(|| format!("create the directory {}", path.display()))?;
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .context(|| format!("create the directory {}", parent.display()))?;
        }
        if entry.is_symlink() {
            let mut to = Vec::new();
            entry
                .take(MAX_LINK)
                .read_to_end(&mut to)
                .context(|| format!("unpack {name:?}"))?;
            links.push((path, OsString::from_vec(to)));
            continue;
        }
        let size = entry.size();
        let mode = entry.unix_mode().map_or(0o644, |mode| mode & 0o777 | 0o400);
        let mut file = create(&path, mode).context(|| format!("create {}", path.display()))?;
        let written = io::copy(&mut entry.by_ref().take(size), &mut file)
            .context(|| format!("unpack {name:?}"))?;
        if written != size
            || entry
                .read(&mut [0])
                .context(|| format!("unpack {name:?}"))?
                != 0
        {
            return Err(Error::Refused(format!(
                "{name:?} is not the {size} bytes that the archive declares"
            )));
        }
    }
    for (path, to) in links {
        symlink(&to, &path).context(|| format!("link {}", path.display()))?;
    }
    Ok(())
}

fn create(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn archive(entries: &[(&str, &[u8], u32)]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content, mode) in entries {
            writer
                .start_file(*name, SimpleFileOptions::default().unix_permissions(*mode))
                .unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn files_come_out_with_content_and_mode_from_a_disk_longer_than_the_archive() {
        let target = tempfile::tempdir().unwrap();
        let mut disk = archive(&[
            ("main.py", b"print()", 0o644),
            ("bin/run", &[7; 100_000], 0o755),
        ]);
        let length = disk.len() as u64;
        disk.resize(disk.len().next_multiple_of(512) + 512, 0);
        unpack(
            Section::new(Cursor::new(disk), length),
            target.path(),
            200_000,
        )
        .unwrap();
        assert_eq!(fs::read(target.path().join("main.py")).unwrap(), b"print()");
        let run = target.path().join("bin/run");
        assert_eq!(fs::read(&run).unwrap(), [7; 100_000]);
        assert_eq!(
            fs::metadata(&run).unwrap().permissions().mode() & 0o777,
            0o755
        );
    }

    #[test]
    fn links_are_made_after_the_files() {
        let target = tempfile::tempdir().unwrap();
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        writer
            .add_symlink("lib", "/elsewhere", SimpleFileOptions::default())
            .unwrap();
        writer
            .start_file("a", SimpleFileOptions::default())
            .unwrap();
        let bytes = writer.finish().unwrap().into_inner();
        unpack(Cursor::new(bytes), target.path(), 1000).unwrap();
        assert_eq!(
            fs::read_link(target.path().join("lib")).unwrap(),
            Path::new("/elsewhere")
        );
    }

    #[test]
    fn a_name_that_climbs_out_is_refused() {
        let outer = tempfile::tempdir().unwrap();
        let target = outer.path().join("code");
        fs::create_dir(&target).unwrap();
        for name in ["../evil", "/evil", "a/../../evil"] {
            let error =
                unpack(Cursor::new(archive(&[(name, b"x", 0o644)])), &target, 1000).unwrap_err();
            assert!(matches!(error, Error::Refused(_)), "{name}: {error}");
        }
        assert!(!outer.path().join("evil").exists());
    }

    #[test]
    fn an_archive_that_does_not_fit_is_refused_before_a_byte_is_written() {
        let target = tempfile::tempdir().unwrap();
        let error = unpack(
            Cursor::new(archive(&[("zeros", &[0; 5000], 0o644)])),
            target.path(),
            4999,
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the archive unpacks to 5000 bytes; there is room for 4999"
        );
        assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
    }

    proptest! {
        #[test]
        fn a_path_that_is_accepted_stays_inside(name in "[a./\\\\\u{0}é]{0,24}") {
            if let Some(path) = inside(&name) {
                prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
                prop_assert!(path.is_relative());
            }
        }

        #[test]
        fn a_broken_archive_is_an_error_and_nothing_worse(mut at in prop::collection::vec((0usize..160, any::<u8>()), 1..6)) {
            let mut bytes = archive(&[("main.py", b"print('hello')", 0o644)]);
            for (at, value) in at.drain(..) {
                let length = bytes.len();
                bytes[at % length] = value;
            }
            let target = tempfile::tempdir().unwrap();
            let _ = unpack(Cursor::new(bytes), target.path(), 10_000);
        }
    }
}
