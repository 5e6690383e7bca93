//! What a machine reads and writes, as far as it is charged: files by their size, other volumes by the size asked for.

use aleph_message::{
    Executable, InstanceContent, ItemHash, PaymentType, ProgramContent, VolumeSource,
};

use super::costs::{SizeOf, amounts};
use super::{CostRow, CostType, Decimal, Rates};

/// Something charged by size.
pub(super) struct Volume {
    pub cost_type: CostType,
    pub name: String,
    pub reference: Option<String>,
    pub size_mib: Decimal,
}

impl Volume {
    fn file(
        cost_type: CostType,
        reference: &ItemHash,
        use_latest: bool,
        size_of: &SizeOf<'_>,
    ) -> Option<Self> {
        let bytes = size_of(reference, use_latest)?;
        Some(Self {
            cost_type,
            name: cost_type.as_str().to_owned(),
            reference: Some(reference.to_string()),
            size_mib: Decimal::mib_of_bytes(bytes),
        })
    }

    /// Its row, at `rates` a second.
    pub(super) fn row(self, rates: &Rates, payment: PaymentType) -> CostRow {
        let amounts = amounts(&self.size_mib, rates, payment);
        CostRow {
            cost_type: self.cost_type,
            name: self.name,
            reference: self.reference,
            hold: amounts.hold,
            stream: amounts.stream,
            credit: amounts.credit,
            size_mib: Some(self.size_mib),
        }
    }
}

/// Code, runtime, data, and the volumes beside them.
pub(super) fn of_program(program: &ProgramContent, size_of: &SizeOf<'_>) -> Vec<Volume> {
    let file =
        |cost_type, reference, use_latest| Volume::file(cost_type, reference, use_latest, size_of);
    let code = &program.code;
    let runtime = &program.runtime;
    let data = program.data.as_ref().map(|data| {
        let use_latest = data.use_latest.unwrap_or(false);
        file(CostType::ProgramData, &data.reference, use_latest)
    });
    [
        file(CostType::ProgramCode, &code.reference, code.use_latest),
        file(
            CostType::ProgramRuntime,
            &runtime.reference,
            runtime.use_latest,
        ),
        data.flatten(),
    ]
    .into_iter()
    .flatten()
    .chain(extra(&program.executable, size_of))
    .collect()
}

/// The root file system, and the volumes beside it.
pub(super) fn of_instance(instance: &InstanceContent, size_of: &SizeOf<'_>) -> Vec<Volume> {
    let rootfs = Volume {
        cost_type: CostType::InstanceRootfs,
        name: CostType::InstanceRootfs.as_str().to_owned(),
        reference: Some(instance.rootfs.parent.reference.to_string()),
        size_mib: instance.rootfs.size_mib.into(),
    };
    std::iter::once(rootfs)
        .chain(extra(&instance.executable, size_of))
        .collect()
}

fn extra<'a>(
    executable: &'a Executable,
    size_of: &'a SizeOf<'_>,
) -> impl Iterator<Item = Volume> + 'a {
    let priced = |volume: &VolumeSource| match volume {
        VolumeSource::Immutable {
            reference,
            use_latest,
        } => Volume::file(CostType::VolumeImmutable, reference, *use_latest, size_of),
        VolumeSource::Ephemeral { size_mib, .. } | VolumeSource::Persistent { size_mib, .. } => {
            Some(Volume {
                cost_type: CostType::VolumePersistent,
                name: String::new(),
                reference: None,
                size_mib: (*size_mib).into(),
            })
        }
    };
    executable
        .volumes
        .iter()
        .enumerate()
        .filter_map(move |(index, volume)| {
            let mut priced = priced(&volume.source)?;
            // An empty mount point is none, as on the network.
            let mount = volume.mount.as_deref().filter(|mount| !mount.is_empty());
            let label = mount.unwrap_or(priced.cost_type.as_str());
            priced.name = format!("#{index}:{label}");
            Some(priced)
        })
}
