//! INSTANCE: a virtual private server.

use serde::Serialize;
use serde_json::Value;

use super::BASE;
use super::environment::{Hypervisor, InstanceEnvironment};
use super::executable::{EXECUTABLE, Executable, PaymentType};
use super::volume::{ParentVolume, VolumePersistence, persistent_size};
use crate::fields::{FieldError, Object, Parsed, list, named, text};

/// Content of an INSTANCE.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InstanceContent {
    /// What it has in common with programs.
    #[serde(flatten)]
    pub executable: Executable,
    /// Environment.
    pub environment: InstanceEnvironment,
    /// The disk it boots from.
    pub rootfs: RootfsVolume,
}

/// Root file system of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RootfsVolume {
    /// The image it starts as a copy of.
    pub parent: ParentVolume,
    /// Where it is kept.
    pub persistence: VolumePersistence,
    /// Size, MiB.
    pub size_mib: u64,
    /// Kept by the schema without effect.
    pub forgotten_by: Option<Vec<String>>,
}

impl RootfsVolume {
    fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        Ok(Self {
            parent: fields.required("parent", ParentVolume::parse)?,
            persistence: fields.required("persistence", named)?,
            size_mib: fields.required("size_mib", persistent_size)?,
            forgotten_by: fields.optional("forgotten_by", list(usize::MAX, text))?,
        })
    }
}

impl InstanceContent {
    pub(crate) fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        fields.only(&[BASE, EXECUTABLE, &["rootfs"]])?;
        let this = Self {
            executable: Executable::parse(&fields)?,
            environment: fields.required("environment", InstanceEnvironment::parse)?,
            rootfs: fields.required("rootfs", RootfsVolume::parse)?,
        };
        this.check().map_err(FieldError::new)?;
        Ok(this)
    }

    /// Rules across fields.
    fn check(&self) -> Result<(), &'static str> {
        let payment = self.executable.payment_type();
        let trusted = self.environment.trusted_execution.as_ref();
        if let Some(requirements) = &self.executable.requirements {
            let node = requirements.node.as_ref();
            let pinned = node.is_some_and(|node| node.node_hash.is_some());
            if payment == PaymentType::Superfluid && !pinned {
                return Err("Node hash assignment is needed for PAYG payments");
            }
            if requirements
                .gpu
                .as_ref()
                .is_some_and(|gpus| !gpus.is_empty())
            {
                if trusted.is_some_and(|trusted| trusted.gpu.is_some()) {
                    return Err(
                        "requirements.gpu and trusted_execution.gpu are mutually exclusive",
                    );
                }
                if payment != PaymentType::Credit && !pinned {
                    return Err("Node hash assignment is needed for GPU support");
                }
                if self.environment.hypervisor != Some(Hypervisor::Qemu) {
                    return Err("GPU option is only supported for QEmu hypervisor");
                }
            }
            if node.is_some_and(|node| node.terms_and_conditions.is_some()) {
                if !pinned {
                    return Err(
                        "Terms_and_conditions field needs a requirements.node.node_hash value",
                    );
                }
                if payment == PaymentType::Hold && trusted.is_none() {
                    return Err("Only PAYG/CoCo/Credit instances can have a terms_and_conditions");
                }
            }
        }
        if trusted.is_some_and(|trusted| trusted.is_measured()) && payment != PaymentType::Credit {
            return Err("Measured confidential instances are credit-only");
        }
        Ok(())
    }
}
