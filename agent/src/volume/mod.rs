//! Files a machine's disks are: private copies of root images, seeds, blank volumes.
//!
//! What comes in: verified raw images of the cache, sizes, the seed's contents. What may be touched: the machine's
//! state directory. All calls block: they belong on a blocking thread. A file has its name only once it is complete.

mod copy;
pub mod seed;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub use seed::{Holds, Seed, SeedVolume, write_seed};

/// What went wrong with a disk file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub struct VolumeError {
    /// What was attempted.
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// Makes `target` a private copy of the raw image `image`, `size_mib` MiB long (never shorter than the image).
/// A reflink where the file system can, otherwise a copy that keeps holes. An existing `target` keeps its contents, for it
/// is a machine's disk with what the machine wrote, and grows if smaller.
///
/// # Errors
/// [`VolumeError`]; a `target` that was not there does not exist then.
pub fn prepare_copy(image: &Path, target: &Path, size_mib: u64) -> Result<(), VolumeError> {
    if target.try_exists().map_err(failed("look for", target))? {
        return grow(target, size_mib);
    }
    let source = File::open(image).map_err(failed("open", image))?;
    publish(target, |file| {
        if rustix::fs::ioctl_ficlone(file, &source).is_err() {
            copy::sparse(&source, file)?;
        }
        let length = source.metadata()?.len().max(bytes(size_mib)?);
        file.set_len(length)
    })
}

/// Makes `target` an empty sparse file of `size_mib` MiB; an existing one keeps its contents, and grows if smaller.
///
/// # Errors
/// [`VolumeError`].
pub fn prepare_blank(target: &Path, size_mib: u64) -> Result<(), VolumeError> {
    if target.try_exists().map_err(failed("look for", target))? {
        return grow(target, size_mib);
    }
    let length = bytes(size_mib).map_err(failed("size", target))?;
    publish(target, |file| file.set_len(length))
}

fn grow(target: &Path, size_mib: u64) -> Result<(), VolumeError> {
    let length = bytes(size_mib).map_err(failed("size", target))?;
    let file = OpenOptions::new()
        .write(true)
        .open(target)
        .map_err(failed("open", target))?;
    if file.metadata().map_err(failed("measure", target))?.len() < length {
        file.set_len(length).map_err(failed("grow", target))?;
        file.sync_all().map_err(failed("sync", target))?;
    }
    Ok(())
}

/// Takes away a machine's root disk, and with `volumes` its other disks too; the next start makes them anew.
///
/// # Errors
/// [`VolumeError`].
pub fn wipe(dir: &Path, volumes: bool) -> Result<(), VolumeError> {
    for path in entries(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let disk = name.strip_suffix(".raw");
        let goes =
            disk == Some("root") || (volumes && disk.is_some_and(|disk| disk.starts_with("vol")));
        if goes {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    seed::forget_revision(dir)
}

/// Takes away the volumes in `dir` whose disks' names are not among `used`: those that a later version of a message does not
/// have any more.
///
/// # Errors
/// [`VolumeError`].
pub fn keep_volumes(dir: &Path, used: &[String]) -> Result<(), VolumeError> {
    for path in entries(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let disk = name.strip_suffix(".raw");
        let disk = disk.filter(|disk| disk.starts_with("vol"));
        if disk.is_some_and(|disk| used.iter().all(|used| used != disk)) {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

/// Takes away the links in `dir` to files that are not among `used`: what a machine used before an update.
///
/// # Errors
/// [`VolumeError`].
pub fn keep_links<'a>(dir: &Path, used: impl Iterator<Item = &'a Path>) -> Result<(), VolumeError> {
    let names: Vec<_> = used.filter_map(Path::file_name).collect();
    for path in entries(dir)? {
        if path.file_name().is_none_or(|name| !names.contains(&name)) {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, VolumeError> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed("list", dir)(error)),
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
    }
}

/// Removes a machine's directory with all its disks; one that is not there is no error.
///
/// # Errors
/// [`VolumeError`].
pub fn erase(dir: &Path) -> Result<(), VolumeError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", dir)(error)),
        _ => Ok(()),
    }
}

/// Fills a temporary file beside `target`, makes it durable and gives it its name.
fn publish(target: &Path, fill: impl FnOnce(&File) -> io::Result<()>) -> Result<(), VolumeError> {
    let dir = target.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir).map_err(failed("make", dir))?;
    let mut temporary = target.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let written = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|file| {
            fill(&file)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, target))
        .and_then(|()| File::open(dir)?.sync_all());
    written.map_err(|error| {
        // The error at hand says more than this one's could; what is left is overwritten by the next attempt.
        fs::remove_file(&temporary).ok();
        failed("write", target)(error)
    })
}

fn bytes(mib: u64) -> io::Result<u64> {
    // off_t is signed.
    mib.checked_mul(1 << 20)
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError + use<> {
    let path = path.to_owned();
    move |source| VolumeError {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn image(dir: &Path) -> PathBuf {
        let path = dir.join("image");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"start").unwrap();
        file.seek(SeekFrom::Start(6 << 20)).unwrap();
        file.write_all(b"end").unwrap();
        path
    }

    #[test]
    fn a_root_is_the_image_grown_to_its_size_without_its_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (image, target) = (image(dir.path()), dir.path().join("vm/root.img"));
        prepare_copy(&image, &target, 64).unwrap();
        let mut file = File::open(&target).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 64 << 20);
        assert!(
            metadata.blocks() * 512 < 1 << 20,
            "{} blocks",
            metadata.blocks()
        );
        let mut contents = Vec::new();
        Read::by_ref(&mut file)
            .take((6 << 20) + 3)
            .read_to_end(&mut contents)
            .unwrap();
        assert!(contents.starts_with(b"start\0\0") && contents.ends_with(b"\0end"));
    }

    #[test]
    fn a_root_is_never_shorter_than_its_image() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("root.img");
        prepare_copy(&image(dir.path()), &target, 1).unwrap();
        assert_eq!(fs::metadata(&target).unwrap().len(), (6 << 20) + 3);
    }

    #[test]
    fn a_machines_own_disk_is_not_overwritten_and_grows_when_its_message_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("root.img");
        fs::write(&target, "mine").unwrap();
        prepare_copy(&image(dir.path()), &target, 2).unwrap();
        let contents = fs::read(&target).unwrap();
        assert_eq!(contents.len(), 2 << 20);
        assert!(contents.starts_with(b"mine\0"));
        prepare_copy(&image(dir.path()), &target, 1).unwrap();
        assert_eq!(fs::metadata(&target).unwrap().len(), 2 << 20);
    }

    #[test]
    fn a_blank_volume_is_sparse_and_grows_but_never_shrinks() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("vol0.img");
        prepare_blank(&target, 8).unwrap();
        OpenOptions::new()
            .write(true)
            .open(&target)
            .unwrap()
            .write_all(b"data")
            .unwrap();
        prepare_blank(&target, 16).unwrap();
        prepare_blank(&target, 4).unwrap();
        let contents = fs::read(&target).unwrap();
        assert_eq!(contents.len(), 16 << 20);
        assert!(contents.starts_with(b"data"));
        assert!(fs::metadata(&target).unwrap().blocks() * 512 < 1 << 20);
    }

    #[test]
    fn a_failed_copy_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("root.img");
        assert!(prepare_copy(&image(dir.path()), &target, u64::MAX).is_err());
        assert!(prepare_copy(&dir.path().join("none"), &target, 1).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_wipe_takes_the_root_and_the_volumes_only_when_told() {
        let dir = tempfile::tempdir().unwrap();
        let make = || {
            for name in ["root.raw", "vol0.raw", "seed.img", "console.log"] {
                fs::write(dir.path().join(name), "x").unwrap();
            }
        };
        let left = || {
            let mut names: Vec<_> = fs::read_dir(dir.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        make();
        wipe(dir.path(), false).unwrap();
        assert_eq!(left(), ["console.log", "seed.img", "vol0.raw"]);
        make();
        wipe(dir.path(), true).unwrap();
        assert_eq!(left(), ["console.log", "seed.img"]);
        keep_links(dir.path(), [Path::new("/cache/seed.img")].into_iter()).unwrap();
        assert_eq!(left(), ["seed.img"]);
        wipe(&dir.path().join("none"), true).unwrap();
    }

    #[test]
    fn erasing_what_is_not_there_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let vm = dir.path().join("vm");
        prepare_blank(&vm.join("vol0.img"), 1).unwrap();
        erase(&vm).unwrap();
        erase(&vm).unwrap();
        assert!(!vm.exists());
    }
}
