//! Pure: a resolved workload's parts as the disks' and the machine's descriptions want them.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::intake::workload::{Body, Reference, Resolved, Volume};
use crate::machine::spec::ProgramParts;
use crate::net;
use crate::reconcile::host::HostError;
use crate::volume::{Seed, SeedVolume};

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

pub(super) fn seed_volume(volume: &Volume) -> SeedVolume {
    let (mount, read_only) = match volume {
        Volume::Image { mount, .. } => (mount, true),
        Volume::Disk { mount, .. } => (mount, false),
    };
    SeedVolume {
        mount: mount.clone(),
        read_only,
    }
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
