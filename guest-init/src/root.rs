//! Root file systems: a program's overlay, and the switch from the initramfs into either kind of root.

use std::ffi::CStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::mount::MountFlags;

use crate::disks::Disk;
use crate::error::{Context, Result};
use crate::system::{mount, say};

/// Where the next root is put together, in the initramfs.
pub const NEW_ROOT: &str = "/newroot";
const RUNTIME: &str = "/runtime";
const SCRATCH: &str = "/scratch";

/// Mounts a runtime's squashfs and a writable overlay in memory over it, as the next root.
///
/// # Errors
/// mkdir(2)'s or mount(2)'s.
pub fn overlay(runtime: &Disk) -> Result<()> {
    let device = runtime.device();
    mount(
        &device.to_string_lossy(),
        RUNTIME,
        "squashfs",
        MountFlags::RDONLY | MountFlags::NODEV,
        None,
    )?;
    mount(
        "tmpfs",
        SCRATCH,
        "tmpfs",
        MountFlags::NODEV,
        Some(c"mode=0755"),
    )?;
    for name in ["upper", "work"] {
        let path = format!("{SCRATCH}/{name}");
        fs::create_dir_all(&path).context(|| format!("create the directory {path}"))?;
    }
    let options: &CStr = c"lowerdir=/runtime,upperdir=/scratch/upper,workdir=/scratch/work";
    mount(
        "overlay",
        NEW_ROOT,
        "overlay",
        MountFlags::NODEV,
        Some(options),
    )
}

/// Makes [`NEW_ROOT`] the root of this process: /dev, /proc and /sys move along, the initramfs is emptied.
///
/// # Errors
/// mkdir(2)'s, mount(2)'s, chroot(2)'s or chdir(2)'s.
pub fn switch() -> Result<()> {
    for directory in ["/dev", "/proc", "/sys"] {
        let target = format!("{NEW_ROOT}{directory}");
        // A read-only root that lacks one of them could not be started anyway; mount(2) then says which.
        let _ = fs::create_dir_all(&target);
        rustix::mount::mount_move(directory, &target)
            .context(|| format!("move {directory} to {target}"))?;
    }
    rustix::process::chdir(NEW_ROOT).context(|| format!("enter {NEW_ROOT}"))?;
    empty_initramfs();
    rustix::mount::mount_move(".", "/").context(|| format!("move {NEW_ROOT} to /"))?;
    rustix::process::chroot(".").context(|| "change the root directory".to_owned())?;
    rustix::process::chdir("/").context(|| "enter /".to_owned())
}

/// The initramfs lives in memory: what is deleted is given back. What is mounted on it is not touched.
fn empty_initramfs() {
    if let Ok(root) = fs::metadata("/")
        && let Err(error) = empty(Path::new("/"), root.dev())
    {
        say(&format!("the initramfs could not be emptied: {error}"));
    }
}

fn empty(directory: &Path, device: u64) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.dev() != device {
            continue;
        }
        if metadata.is_dir() {
            empty(&path, device)?;
            // A directory that holds a mount point stays.
            let _ = fs::remove_dir(&path);
        } else {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// What a program's root needs beside the file systems that moved along: called inside it.
///
/// # Errors
/// mkdir(2)'s or mount(2)'s.
pub fn furnish() -> Result<()> {
    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    let harmless = plain | MountFlags::NOEXEC;
    mount(
        "devpts",
        "/dev/pts",
        "devpts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        Some(c"mode=0620,ptmxmode=0666"),
    )?;
    mount("tmpfs", "/dev/shm", "tmpfs", plain, Some(c"mode=1777"))?;
    mount("tmpfs", "/tmp", "tmpfs", plain, Some(c"mode=1777"))?;
    mount("tmpfs", "/run", "tmpfs", plain, Some(c"mode=0755"))?;
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2", harmless, None)?;
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ] {
        let path = Path::new("/dev").join(name);
        if !path.exists() {
            std::os::unix::fs::symlink(target, &path)
                .context(|| format!("link {} to {target}", path.display()))?;
        }
    }
    Ok(())
}
