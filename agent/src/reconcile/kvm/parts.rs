//! Pure: a resolved workload's parts as the disks' and the machine's descriptions want them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::intake::workload::{Body, Reference, Resolved, Volume, Workload};
use crate::machine::spec::{ProgramParts, VolumeParts};
use crate::net;
use crate::reconcile::host::HostError;
use crate::volume::{Holds, Seed, SeedVolume};

/// Owns what a [`Seed`] borrows.
pub(super) struct InstanceSeed {
    pub(super) vm: String,
    pub(super) hostname: String,
    pub(super) keys: Vec<String>,
    pub(super) plan: net::Plan,
    pub(super) mtu: u16,
    pub(super) dns: Vec<IpAddr>,
    pub(super) volumes: Vec<SeedVolume>,
    pub(super) user_data: Option<String>,
}

pub(super) fn seed_volumes(workload: &Workload) -> Vec<SeedVolume> {
    let one = |volume: &Volume| SeedVolume {
        serial: workload.disk_name(volume),
        mount: volume.mount().to_owned(),
        holds: match volume {
            Volume::Image { .. } => Holds::Image,
            Volume::Disk {
                parent: Some(_), ..
            } => Holds::Copy,
            Volume::Disk { parent: None, .. } => Holds::Nothing,
        },
    };
    workload.volumes.iter().map(one).collect()
}

/// The volumes as disks of a machine whose own are in `dir`.
pub(super) fn volume_parts(resolved: &Resolved, dir: &Path) -> Result<Vec<VolumeParts>, HostError> {
    let workload = &resolved.workload;
    let one = |volume: &Volume| {
        let serial = workload.disk_name(volume);
        let (path, read_only) = match volume {
            Volume::Image { image, .. } => (file(resolved, image)?.0, true),
            Volume::Disk { .. } => (volume_path(dir, &serial), false),
        };
        Ok(VolumeParts {
            path,
            serial,
            mount: volume.mount().to_owned(),
            read_only,
        })
    };
    workload.volumes.iter().map(one).collect()
}

/// The file of a volume that is written.
pub(super) fn volume_path(dir: &Path, disk: &str) -> PathBuf {
    dir.join(format!("{disk}.raw"))
}

impl InstanceSeed {
    pub(super) fn seed(&self) -> Seed<'_> {
        Seed {
            vm: &self.vm,
            hostname: &self.hostname,
            ssh_keys: &self.keys,
            plan: &self.plan,
            mtu: self.mtu,
            dns: &self.dns,
            volumes: &self.volumes,
            user_data: self.user_data.as_deref(),
        }
    }
}

pub(super) fn program_parts(resolved: &Resolved) -> Result<ProgramParts, HostError> {
    let Body::Program {
        runtime,
        code,
        encoding,
        interface,
        entrypoint,
        arguments,
        ..
    } = &resolved.workload.body
    else {
        return Err(HostError::during("run an instance as a program")(
            "it is an instance",
        ));
    };
    let (code, code_bytes) = file(resolved, code)?;
    Ok(ProgramParts {
        runtime: file(resolved, runtime)?.0,
        code,
        encoding: *encoding,
        code_bytes,
        interface: *interface,
        entrypoint: entrypoint.clone(),
        arguments: arguments.clone(),
        variables: resolved.workload.variables.clone(),
    })
}

pub(super) fn file(
    resolved: &Resolved,
    reference: &Reference,
) -> Result<(PathBuf, u64), HostError> {
    let cached = resolved.files.get(&reference.hash).ok_or_else(|| {
        HostError::during("find a file")(format!("{} was not fetched", reference.hash))
    })?;
    Ok((cached.path.clone(), cached.bytes))
}
