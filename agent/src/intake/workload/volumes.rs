//! The further disks of a workload, and which of them is which from version to version.

use std::collections::{BTreeMap, BTreeSet};

use aleph_message::{MachineVolume, VolumePersistence, VolumeSource};
use serde::{Deserialize, Serialize};

use super::{Reference, Unsupported, Workload, unsupported};

/// The longest mount point, in bytes.
const MAX_MOUNT: usize = 1024;

/// A further disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Volume {
    /// A read-only squashfs image.
    Image {
        /// The image.
        image: Reference,
        /// Where it is mounted.
        mount: String,
    },
    /// A writable disk, blank at first or a copy of its parent.
    Disk {
        /// The raw image it begins as; of a machine that has it already, it is not looked at again.
        parent: Option<Reference>,
        /// MiB.
        size_mib: u64,
        /// Where it is mounted.
        mount: String,
        /// It is blank again after every stop.
        ephemeral: bool,
    },
}

impl Volume {
    /// Where it is mounted.
    #[must_use]
    pub fn mount(&self) -> &str {
        match self {
            Self::Image { mount, .. } | Self::Disk { mount, .. } => mount,
        }
    }

    /// Whether what is written on it stays.
    const fn holds_data(&self) -> bool {
        matches!(
            self,
            Self::Disk {
                ephemeral: false,
                ..
            }
        )
    }
}

/// Which disk each volume is. A volume is known by its mount point and keeps its number through all versions of its message,
/// whatever comes and goes beside it; a number is never given to another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    numbers: BTreeMap<String, u32>,
    next: u32,
}

impl Places {
    /// The numbers of `volumes` after those that there were before.
    #[must_use]
    pub fn after(before: &Self, volumes: &[Volume]) -> Self {
        let mut next = before.next;
        let mut numbers = BTreeMap::new();
        for volume in volumes {
            let mount = canonical(volume.mount());
            let number = before.numbers.get(&mount).copied().unwrap_or_else(|| {
                next = next.saturating_add(1);
                next - 1
            });
            numbers.insert(mount, number);
        }
        Self { numbers, next }
    }

    fn of(&self, volume: &Volume) -> u32 {
        // Whoever makes a workload numbers all of its volumes.
        let number = self.numbers.get(&canonical(volume.mount()));
        number.copied().unwrap_or(self.next)
    }
}

/// One way of writing a mount point.
fn canonical(mount: &str) -> String {
    let parts: Vec<_> = mount.split('/').filter(|part| !part.is_empty()).collect();
    parts.join("/")
}

impl Workload {
    /// The name of a volume's disk: its serial in the guest, and on the host, when it is written, its file.
    #[must_use]
    pub fn disk_name(&self, volume: &Volume) -> String {
        format!("vol{}", self.places.of(volume))
    }

    /// Makes this version of a message go on with the disks of the version `before` it. What was written on one must not
    /// turn up as another, nor go because a mount point was written differently: one may go, or one may come, but not one
    /// for another.
    ///
    /// # Errors
    /// [`Unsupported`], naming the volume.
    pub fn takes_over(&mut self, before: &Self) -> Result<(), Unsupported> {
        let at = |volumes: &[Volume], mount: &str| {
            let same = |volume: &Volume| canonical(volume.mount()) == canonical(mount);
            volumes.iter().position(same)
        };
        let mut gone = None;
        for old in before.volumes.iter().filter(|old| old.holds_data()) {
            let mount = old.mount();
            match at(&self.volumes, mount) {
                Some(index) if !self.volumes[index].holds_data() => {
                    return unsupported(format!(
                        "volumes[{index}]: the version before has a disk at {mount}, and what was written on it would be lost"
                    ));
                }
                Some(_) => {}
                None => gone = Some(mount),
            }
        }
        let is_new = |new: &Volume| new.holds_data() && at(&before.volumes, new.mount()).is_none();
        if let (Some(mount), Some(index)) = (gone, self.volumes.iter().position(is_new)) {
            return unsupported(format!(
                "volumes[{index}]: this disk is new, and that of {mount}, with what was written on it, is gone: take one \
                 away and add the other in two versions"
            ));
        }
        self.places = Places::after(&before.places, &self.volumes);
        Ok(())
    }
}

pub(super) fn read(index: usize, volume: &MachineVolume) -> Result<Volume, Unsupported> {
    let mount = |name: Option<&str>| match (&volume.mount, name) {
        (Some(mount), _) => absolute(&format!("volumes[{index}].mount"), mount),
        (None, Some(name)) if !name.is_empty() => {
            absolute(&format!("volumes[{index}].name"), &format!("/mnt/{name}"))
        }
        (None, _) => Ok(format!("/mnt/vol{index}")),
    };
    Ok(match &volume.source {
        VolumeSource::Immutable {
            reference,
            use_latest,
        } => Volume::Image {
            image: Reference {
                hash: reference.clone(),
                use_latest: *use_latest,
            },
            mount: mount(None)?,
        },
        VolumeSource::Ephemeral { size_mib, .. } => Volume::Disk {
            parent: None,
            size_mib: *size_mib,
            mount: mount(None)?,
            ephemeral: true,
        },
        VolumeSource::Persistent {
            persistence: Some(VolumePersistence::Store),
            ..
        } => {
            return unsupported(format!(
                "volumes[{index}].persistence: a volume cannot be kept in the network's storage here, ask for host"
            ));
        }
        VolumeSource::Persistent {
            size_mib,
            name,
            parent,
            ..
        } => Volume::Disk {
            parent: parent.as_ref().map(|parent| Reference {
                hash: parent.reference.clone(),
                use_latest: parent.use_latest,
            }),
            size_mib: *size_mib,
            mount: mount(name.as_deref())?,
            ephemeral: false,
        },
    })
}

/// The first volume, and its mount point, that another one before it is mounted at as well.
pub(super) fn mounted_twice(volumes: &[Volume]) -> Option<(usize, &str)> {
    let mut seen = BTreeSet::new();
    let index = volumes
        .iter()
        .position(|volume| !seen.insert(canonical(volume.mount())))?;
    Some((index, volumes[index].mount()))
}

/// A mount point must be an absolute path without steps upwards, of a length that fits where it has to be said.
pub(super) fn absolute(field: &str, mount: &str) -> Result<String, Unsupported> {
    if mount.len() > MAX_MOUNT {
        return unsupported(format!(
            "{field}: a mount point of {} bytes, at most {MAX_MOUNT} are possible",
            mount.len()
        ));
    }
    let mut parts = mount.split('/').filter(|part| !part.is_empty());
    if mount.starts_with('/')
        && parts.clone().next().is_some()
        && !parts.any(|part| matches!(part, "." | ".."))
    {
        Ok(mount.to_owned())
    } else {
        unsupported(format!(
            "{field}: mount point {mount:?} is not an absolute path"
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn disk(mount: &str) -> Volume {
        Volume::Disk {
            parent: None,
            size_mib: 1,
            mount: mount.to_owned(),
            ephemeral: false,
        }
    }

    proptest! {
        #[test]
        fn a_volume_keeps_its_number_as_long_as_it_is_there_and_no_number_is_given_twice(
            versions in prop::collection::vec(prop::collection::btree_set(0u8..12, 0..8), 1..12),
        ) {
            let mut places = Places::default();
            let mut holders: BTreeMap<u32, (u8, usize)> = BTreeMap::new();
            for (version, mounts) in versions.iter().enumerate() {
                let volumes: Vec<_> = mounts.iter().map(|mount| disk(&format!("/{mount}"))).collect();
                places = Places::after(&places, &volumes);
                for (mount, volume) in mounts.iter().zip(&volumes) {
                    let number = places.of(volume);
                    if let Some((holder, last)) = holders.insert(number, (*mount, version)) {
                        prop_assert_eq!(holder, *mount);
                        prop_assert!(version - last <= 1, "it was away, and is another one now");
                    }
                }
            }
        }
    }
}
