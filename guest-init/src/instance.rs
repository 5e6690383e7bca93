//! A machine of its own: the image's kernel is started, or, for an image without one, its root file system is found and
//! its init takes this process over.

use std::convert::Infallible;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::disks::Disk;
use crate::error::{Context, Error, Result};
use crate::gpt;
use crate::loader::{self, Entry, kexec};
use crate::root::{self, NEW_ROOT};
use crate::system::say;

/// The init of a Linux distribution, in the order tried.
const INITS: [&str; 3] = [
    "/sbin/init",
    "/usr/lib/systemd/systemd",
    "/lib/systemd/systemd",
];
/// File systems that a root comes on, with the options that select the root inside: btrfs images keep it in a
/// subvolume that need not be the default one.
const KINDS: [(&str, Option<&CStr>); 5] = [
    ("ext4", None),
    ("xfs", None),
    ("btrfs", None),
    ("btrfs", Some(c"subvol=root")),
    ("btrfs", Some(c"subvol=@")),
];

/// What an instance goes on as.
#[derive(Debug)]
pub enum Successor {
    /// The image's own kernel, which has been loaded.
    Kernel(Entry),
    /// The init at this path of the root file system, which has been mounted at [`NEW_ROOT`].
    Init(&'static str),
}

/// Finds what the disk holds: a kernel that can be started, or a root file system.
///
/// # Errors
/// A missing disk, or [`Error::NoRoot`] with what was tried.
pub fn prepare(serial: &str) -> Result<Successor> {
    let disk = Disk::with_serial(serial)?;
    let devices = candidates(&disk)?;
    if let Some(entry) = loader::load(&devices)? {
        return Ok(Successor::Kernel(entry));
    }
    std::fs::create_dir_all(NEW_ROOT).context(|| format!("create the directory {NEW_ROOT}"))?;
    let mut looked = Vec::new();
    for device in devices {
        match try_device(&device)? {
            Found::Init(init) => return Ok(Successor::Init(init)),
            Found::NoInit(kind) => {
                looked.push(format!("{} ({kind} without an init)", device.display()))
            }
            Found::NoFileSystem => {
                looked.push(format!("{} (no ext4, xfs or btrfs)", device.display()))
            }
        }
    }
    Err(Error::NoRoot {
        disk: disk.name,
        looked: format!("{} in {}", INITS.join(" or "), looked.join(", ")),
    })
}

/// The partition whose type says root, then the others, then the whole disk.
fn candidates(disk: &Disk) -> Result<Vec<PathBuf>> {
    let device = disk.device();
    let root = gpt::root_partition(
        &mut File::open(&device).context(|| format!("open {}", device.display()))?,
    );
    let mut partitions = disk.partitions()?;
    partitions.sort_by_key(|partition| (Some(partition.number) != root, partition.number));
    let partitions = partitions
        .into_iter()
        .map(|partition| PathBuf::from("/dev").join(partition.name));
    Ok(partitions.chain([device]).collect())
}

enum Found {
    Init(&'static str),
    NoInit(&'static str),
    NoFileSystem,
}

fn try_device(device: &std::path::Path) -> Result<Found> {
    let mut found = Found::NoFileSystem;
    for (kind, options) in KINDS {
        // Silent: that a partition is something else is no event. Read-only: nothing but the right one is touched.
        let flags = MountFlags::RDONLY | MountFlags::SILENT;
        if rustix::mount::mount(device, NEW_ROOT, kind, flags, options).is_err() {
            continue;
        }
        if let Some(init) = INITS.into_iter().find(|init| holds(init)) {
            // Some images name no root in their fstab and rely on the loader's `rw`.
            rustix::mount::mount_remount(NEW_ROOT, MountFlags::empty(), c"")
                .context(|| format!("make {} writable", device.display()))?;
            return Ok(Found::Init(init));
        }
        found = Found::NoInit(kind);
        rustix::mount::unmount(NEW_ROOT, UnmountFlags::empty())
            .context(|| format!("unmount {}", device.display()))?;
    }
    Ok(found)
}

/// Whether a path exists in the new root; its symbolic links, absolute ones too, are followed inside of it.
fn holds(path: &str) -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::open(NEW_ROOT, flags | OFlags::DIRECTORY, Mode::empty())
        .and_then(|root| {
            rustix::fs::openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
        })
        .is_ok()
}

/// Becomes the successor.
///
/// # Errors
/// Always, when it returns: the switch's or execve(2)'s.
pub fn take_over(successor: &Successor) -> Result<Infallible> {
    let init = match successor {
        Successor::Kernel(entry) => {
            say(&format!(
                "starting {:?}: {} {}",
                entry.title, entry.kernel.path, entry.cmdline
            ));
            kexec::start()
        }
        Successor::Init(init) => init,
    };
    root::switch()?;
    let error: io::Error = Command::new(init)
        .env_clear()
        .env("TERM", "linux")
        .env("HOME", "/")
        .exec();
    Err(Error::Io {
        what: format!("execute {init}"),
        source: error,
    })
}
