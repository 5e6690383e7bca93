//! PROGRAM, INSTANCE and V-PROGRAM: the files they need, and what they replace.

use aleph_message::{
    Body, Content, ErrorCode, MachineVolume, Rejection, VerifiableProgramContent, VolumeSource,
};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::money::payment_type;
use crate::pipeline::{Refusal, Verified};
use crate::store::vms::{self, Vm};
use crate::store::{StoreError, files};

const MIB: u64 = 1 << 20;

/// A file a VM needs.
#[derive(Debug, Clone)]
pub struct FileRef {
    /// The STORE message.
    pub reference: String,
    /// Whether its newest update is meant.
    pub use_latest: bool,
    /// For the parent of a volume: the volume's name and size, MiB.
    pub volume: Option<(String, u64)>,
}

fn volume_ref(volume: &MachineVolume) -> Option<FileRef> {
    match &volume.source {
        VolumeSource::Immutable {
            reference,
            use_latest,
        } => Some(FileRef {
            reference: reference.to_string(),
            use_latest: *use_latest,
            volume: None,
        }),
        VolumeSource::Persistent {
            parent: Some(parent),
            name,
            size_mib,
            ..
        } => Some(FileRef {
            reference: parent.reference.to_string(),
            use_latest: parent.use_latest,
            volume: Some((name.clone().unwrap_or_default(), *size_mib)),
        }),
        _ => None,
    }
}

/// Every file `content` needs; nothing for messages that are no VM.
pub fn file_refs(content: &Content) -> Vec<FileRef> {
    let file = |reference: &aleph_message::ItemHash, use_latest: bool| FileRef {
        reference: reference.to_string(),
        use_latest,
        volume: None,
    };
    let mut refs = Vec::new();
    match &content.body {
        Body::Program(program) => {
            refs.push(file(&program.code.reference, program.code.use_latest));
            refs.push(file(&program.runtime.reference, program.runtime.use_latest));
            if let Some(data) = &program.data {
                refs.push(file(&data.reference, data.use_latest.unwrap_or(false)));
            }
        }
        Body::Instance(instance) => refs.push(FileRef {
            volume: Some(("rootfs".into(), instance.rootfs.size_mib)),
            ..file(
                &instance.rootfs.parent.reference,
                instance.rootfs.parent.use_latest,
            )
        }),
        _ => {}
    }
    if let Some(executable) = content.executable() {
        refs.extend(executable.volumes.iter().filter_map(volume_ref));
    }
    refs
}

/// The file a reference means now, with its size in bytes.
pub fn resolve(
    conn: &Connection,
    reference: &str,
    use_latest: bool,
) -> Result<Option<(String, u64)>, StoreError> {
    let file = if use_latest {
        files::tag(conn, reference)?.map(|tag| tag.file_hash)
    } else {
        files::store_pin(conn, reference)?.map(|pin| pin.file_hash)
    };
    let Some(file) = file else { return Ok(None) };
    Ok(files::get(conn, &file)?.map(|(size, _)| (file, size.unsigned_abs())))
}

pub(super) fn check(conn: &Connection, v: &Verified) -> Result<(), Refusal> {
    let refs = file_refs(&v.content);
    let mut missing = Vec::new();
    let mut too_small = Vec::new();
    for r in &refs {
        let Some((file, size)) = resolve(conn, &r.reference, r.use_latest)? else {
            missing.push(r.reference.clone());
            continue;
        };
        if let Some((name, size_mib)) = &r.volume
            && size > size_mib.saturating_mul(MIB)
        {
            too_small.push(json!({
                "volume_name": name,
                "parent_ref": r.reference,
                "parent_file": file,
                "parent_size": size,
                "volume_size": size_mib.saturating_mul(MIB),
            }));
        }
    }
    if !missing.is_empty() {
        missing.sort_unstable();
        missing.dedup();
        let rejection = Rejection::with_details(
            ErrorCode::VmVolumeNotFound,
            json!({"errors": missing.iter().map(|r| Value::from(r.as_str())).collect::<Vec<_>>()}),
        );
        return Err(Refusal::waiting(rejection, missing));
    }
    if !too_small.is_empty() {
        return Err(Rejection::with_details(
            ErrorCode::VmVolumeTooSmall,
            json!({"errors": too_small}),
        )
        .into());
    }
    let replaces = v
        .content
        .executable()
        .and_then(|executable| executable.replaces.as_deref());
    match replaces {
        Some(replaces) => check_replaced(conn, v, replaces),
        None => Ok(()),
    }
}

fn check_replaced(conn: &Connection, v: &Verified, replaces: &str) -> Result<(), Refusal> {
    let known = vms::get(conn, replaces)?.filter(|vm| vm.kind == "PROGRAM");
    let Some(original) = known else {
        let rejection = Rejection::new(
            ErrorCode::VmRefNotFound,
            format!("Program {replaces} is unknown"),
        );
        return Err(Refusal::waiting(rejection, vec![replaces.to_owned()]));
    };
    let refused = |code, reason: String| Err(Rejection::new(code, reason).into());
    if original.replaces.is_some() {
        return refused(
            ErrorCode::VmUpdateUpdate,
            format!("{replaces} is itself a replacement"),
        );
    }
    if !original.allow_amend {
        return refused(
            ErrorCode::VmAmendNotAllowed,
            format!("{replaces} forbids amends"),
        );
    }
    if original.owner != v.owner() {
        return refused(
            ErrorCode::PermissionDenied,
            format!("{replaces} belongs to {}", original.owner),
        );
    }
    Ok(())
}

/// The STORE messages a V-PROGRAM is made of: they are held, so that it stays what was measured.
fn measured_refs(program: &VerifiableProgramContent) -> Vec<String> {
    let disks = std::iter::once(&program.workload).chain(program.volumes.iter().map(|v| &v.disk));
    let refs = disks.flat_map(|disk| [&disk.reference, &disk.hash_tree]);
    std::iter::once(&program.runtime.reference)
        .chain(refs)
        .map(ToString::to_string)
        .collect()
}

pub(super) fn apply(conn: &Connection, v: &Verified) -> Result<(), StoreError> {
    let persistent = match &v.content.body {
        Body::Program(program) => program.is_persistent(),
        _ => true,
    };
    let volumes = match &v.content.body {
        Body::VerifiableProgram(program) => measured_refs(program),
        _ => file_refs(&v.content)
            .into_iter()
            .map(|r| r.reference)
            .collect(),
    };
    let executable = v.content.executable();
    vms::insert(
        conn,
        &Vm {
            item_hash: v.hash().into(),
            owner: v.owner().into(),
            kind: v.envelope.message_type.to_string(),
            payment_type: payment_type(&v.content).to_string(),
            persistent,
            allow_amend: executable.is_some_and(|executable| executable.allow_amend),
            replaces: executable.and_then(|executable| executable.replaces.clone()),
            created: v.content.time(),
        },
        &volumes,
    )
}
