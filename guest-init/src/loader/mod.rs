//! The image's own kernel: found the way the image's boot loader would find it, and started in this machine by
//! kexec(2).
//!
//! The disk belongs to the tenant, so its files are read here, inside the machine, and nowhere else.
//!
//! * [`superblock`], [`volume`]: the disk's file systems, mounted read-only while they are looked through.
//! * [`grub`], [`bls`], [`extlinux`]: configurations, to [`Entry`]s.
//! * [`bzimage`], [`handover`]: what a kernel asks for, where it goes, and what it is told.
//! * [`kexec`]: from an entry to its kernel's first instruction.

pub mod bls;
pub mod bzimage;
pub mod extlinux;
pub mod grub;
pub mod handover;
pub mod kexec;
pub mod superblock;
pub mod volume;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

use self::superblock::Superblock;
use self::volume::Volume;
use crate::error::{Context, Result};
use crate::system::say;

/// Most entries tried.
const MAX_ENTRIES: usize = 8;
/// Where file systems are mounted while they are looked through.
const VOLUMES: &str = "/volumes";
/// The one console this machine has; every line a kernel prints elsewhere is lost.
const CONSOLE: &str = "console=ttyS0";

/// A file on a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its index.
    pub volume: usize,
    /// From the volume's root.
    pub path: String,
}

/// A kernel that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As a menu shows it.
    pub title: String,
    /// A bzImage.
    pub kernel: Place,
    /// Archives, loaded one behind the other.
    pub initrds: Vec<Place>,
    /// The kernel's arguments.
    pub cmdline: String,
}

/// Reads the configuration on one of the volumes.
type Reader = fn(&[Volume], usize) -> Vec<Entry>;

/// Loads the first entry of a disk's boot loader whose kernel can be loaded; `None` when there is no such entry, which
/// is said on the console together with what was looked at. `devices` are the disk's partitions and the disk itself.
///
/// # Errors
/// Making the mount points.
pub fn load(devices: &[PathBuf]) -> Result<Option<Entry>> {
    let mounted = Mounted::new(devices)?;
    let volumes = &mounted.volumes;
    let entries = entries(volumes);
    if entries.is_empty() {
        let names: Vec<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
        say(&format!(
            "no kernel of the image's own: no grub.cfg, boot loader entries or extlinux.conf on {}",
            if names.is_empty() {
                "any partition".to_owned()
            } else {
                names.join(", ")
            }
        ));
    }
    for entry in entries {
        match kexec::load(volumes, &entry) {
            Ok(()) => return Ok(Some(entry)),
            Err(error) => say(&format!(
                "{:?} ({}) cannot be loaded: {}",
                entry.title,
                entry.kernel.path,
                error.chain()
            )),
        }
    }
    Ok(None)
}

/// The entries of all volumes, the one that the image would start first.
fn entries(volumes: &[Volume]) -> Vec<Entry> {
    let readers: [Reader; 3] = [grub::entries, bls::of_systemd_boot, extlinux::entries];
    let mut entries: Vec<Entry> = Vec::new();
    for read in readers {
        for index in 0..volumes.len() {
            for mut entry in read(volumes, index) {
                if !entry
                    .cmdline
                    .split_whitespace()
                    .any(|word| word.starts_with(CONSOLE))
                {
                    entry.cmdline = format!("{} {CONSOLE}", entry.cmdline).trim().to_owned();
                }
                // The small configuration on an EFI system partition leads to the one on the root.
                let known = |other: &Entry| {
                    (&other.kernel, &other.cmdline) == (&entry.kernel, &entry.cmdline)
                };
                if entries.len() < MAX_ENTRIES && !entries.iter().any(known) {
                    entries.push(entry);
                }
            }
        }
    }
    entries
}

/// Volumes that are mounted, read-only, until this is dropped.
#[derive(Debug, Default)]
struct Mounted {
    volumes: Vec<Volume>,
    targets: Vec<String>,
}

impl Mounted {
    /// Mounts what holds a file system that can be read; the rest is passed over.
    fn new(devices: &[PathBuf]) -> Result<Self> {
        let mut mounted = Self::default();
        for device in devices {
            if let Some(found) = File::open(device)
                .and_then(|mut file| Superblock::read(&mut file))
                .ok()
                .flatten()
            {
                mounted.add(device, found)?;
            }
        }
        Ok(mounted)
    }

    fn add(&mut self, device: &Path, found: Superblock) -> Result<()> {
        let target = format!("{VOLUMES}/{}", self.targets.len());
        fs::create_dir_all(&target).context(|| format!("create the directory {target}"))?;
        let flags =
            MountFlags::RDONLY | MountFlags::SILENT | MountFlags::NOSUID | MountFlags::NODEV;
        // Loaders see a btrfs from its top, whatever its default subvolume.
        let options = (found.kind == "btrfs").then_some(c"subvolid=5");
        if let Err(error) = rustix::mount::mount(device, &target, found.kind, flags, options) {
            say(&format!(
                "{} ({}) cannot be mounted: {error}",
                device.display(),
                found.kind
            ));
            return Ok(());
        }
        self.targets.push(target.clone());
        let name = device.display().to_string();
        let volume = Volume::new(Path::new(&target), name, found.uuid, found.label)
            .context(|| format!("open {target}"))?;
        self.volumes.push(volume);
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Open directories would keep them busy.
        self.volumes.clear();
        for target in &self.targets {
            if let Err(error) = rustix::mount::unmount(target.as_str(), UnmountFlags::empty()) {
                say(&format!("{target} cannot be unmounted: {error}"));
            }
        }
    }
}

#[cfg(test)]
mod testing {
    //! Trees of files that stand for file systems.

    use super::volume::Volume;

    /// A volume of these files.
    pub fn volume(files: &[(&str, &str)]) -> (tempfile::TempDir, Volume) {
        named("/dev/vda1", "", "", files)
    }

    /// The same, with a name, a UUID and a label.
    pub fn named(
        name: &str,
        uuid: &str,
        label: &str,
        files: &[(&str, &str)],
    ) -> (tempfile::TempDir, Volume) {
        let tree = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = tree.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let volume = Volume::new(
            tree.path(),
            name.to_owned(),
            uuid.to_owned(),
            label.to_owned(),
        )
        .unwrap();
        (tree, volume)
    }
}
