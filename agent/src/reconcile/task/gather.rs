//! What a machine needs before it can start: its message, room, its files, its ports, its disks.

use aleph_message::ItemHash;

use super::super::host::Place;
use super::super::setback::Setback;
use super::super::{Shared, ports};
use crate::content::unused::Keep;
use crate::intake::workload::{Body, Reference, Resolved, Volume};
use crate::intake::{self, Intake, IntakeError};
use crate::ledger::{Demand, Lease, LedgerError, Record, Refusal};

/// Everything a machine needs before it can start, or why it cannot have it.
pub(super) async fn gather(
    shared: &Shared,
    record: &Record,
) -> Result<Result<Resolved, Setback>, LedgerError> {
    let hash = &record.hash;
    let refuse = |error: &IntakeError| Setback {
        reason: crate::chain(error),
        transient: error.may_pass(),
        crash: false,
    };
    let verified = match &record.message {
        Some(text) => Intake::kept(hash, text),
        None => shared.intake.message(hash).await,
    };
    let known = match verified {
        Ok(verified) => verified,
        Err(error) => return Ok(Err(refuse(&error))),
    };
    // The newest version; without an answer, or when it cannot run here, what is known runs on. The sweep asks again.
    let newest = shared.intake.newest(known.clone()).await;
    // It has disks when it has a lease.
    let before = record.lease.and_then(|_| intake::workload(&known).ok());
    let newest = newest.and_then(|newest| shared.intake.runnable(newest, before.as_ref()));
    let (workload, verified) = match newest {
        Ok(both) => both,
        Err(error) => match shared.intake.runnable(known, None) {
            Ok(both) => {
                tracing::warn!(vm = %hash, "no newer version of it: {}", crate::chain(&error));
                both
            }
            Err(error) => return Ok(Err(refuse(&error))),
        },
    };
    for field in &workload.unheeded {
        tracing::info!(vm = %hash, "its message asks for what is not here: {field}");
    }
    let method = workload.payment.method;
    shared
        .ledger
        .describe(
            hash,
            workload.kind,
            workload.owner.clone(),
            method,
            verified.text,
        )
        .await?;
    let lease = match admit(shared, hash, workload.demand()).await? {
        Ok(lease) => lease,
        Err(refusal) => return Ok(Err(Setback::transient(refusal.to_string()))),
    };
    let place = Place {
        slot: lease.slot,
        kind: workload.kind,
    };
    if let Err(error) = shared.host.addresses(hash, place) {
        return Ok(Err(Setback {
            reason: crate::chain(&error),
            transient: false,
            crash: false,
        }));
    }
    let (kind, owner) = (workload.kind, workload.owner.clone());
    let resolved = match shared.intake.resolve(workload).await {
        Ok(resolved) => resolved,
        Err(error) => return Ok(Err(refuse(&error))),
    };
    if let Some(reason) = too_small(&resolved) {
        return Ok(Err(Setback {
            reason,
            transient: false,
            crash: false,
        }));
    }
    ports::refresh(shared, hash, kind, &owner).await?;
    match shared.host.make_disks(&resolved, place).await {
        Ok(()) => Ok(Ok(resolved)),
        Err(error) => Ok(Err(Setback::transient(crate::chain(&error)))),
    }
}

/// Gives a machine what it needs. When there is no room on the disk, files that nobody uses make room first.
async fn admit(
    shared: &Shared,
    hash: &ItemHash,
    demand: Demand,
) -> Result<Result<Lease, Refusal>, LedgerError> {
    let capacity = shared.capacity().await?;
    let admitted = shared.ledger.admit(hash, demand, capacity).await?;
    if !admitted.as_ref().is_err_and(Refusal::is_of_disk)
        || !shared.sweep_files(Keep::NOTHING).await
    {
        return Ok(admitted);
    }
    let capacity = shared.capacity().await?;
    shared.ledger.admit(hash, demand, capacity).await
}

/// The disk that is smaller than the image it begins as, by its field.
fn too_small(resolved: &Resolved) -> Option<String> {
    let begins = |image: &Reference, size_mib: u64| {
        let file = resolved.files.get(&image.hash)?;
        (file.bytes > size_mib.saturating_mul(1 << 20)).then_some(())
    };
    let workload = &resolved.workload;
    if let Body::Instance { image, size_mib } = &workload.body
        && begins(image, *size_mib).is_some()
    {
        return Some(format!(
            "rootfs.size_mib: the disk of {size_mib} MiB is smaller than its image"
        ));
    }
    let volumes = workload.volumes.iter().enumerate();
    let mut small = volumes.filter_map(|(index, volume)| match volume {
        Volume::Disk {
            size_mib,
            parent: Some(parent),
            ..
        } => begins(parent, *size_mib).map(|()| {
            format!(
                "volumes[{index}].size_mib: the disk of {size_mib} MiB is smaller than its parent"
            )
        }),
        _ => None,
    });
    small.next()
}
