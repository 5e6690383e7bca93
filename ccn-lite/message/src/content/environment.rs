//! Resources, environment and host requirements of virtual machines.

use serde::Serialize;
use serde_json::Value;

pub use super::trusted::{
    ConfidentialGpu, LaunchMeasurement, TrustedExecution, TrustedExecutionMode,
};
use crate::ItemHash;
use crate::fields::{
    FieldError, Object, Parsed, boolean, integer, integer_within, item_hash, list, named,
    short_text, text,
};

const MAX_VCPUS: u64 = 256;
const MAX_MEMORY_MIB: u64 = 1024 * 1024;
const MAX_SECONDS: u64 = 10 * 365 * 24 * 3600;
const MAX_REGEX_CHARS: usize = 256;

named_values! {
    /// Transport of a published port.
    NetworkProtocol { Tcp = "tcp", Udp = "udp" }
}

named_values! {
    /// The hypervisor an instance asks for.
    Hypervisor { Qemu = "qemu", Firecracker = "firecracker" }
}

named_values! {
    /// CPU architecture.
    Architecture { X8664 = "x86_64", Arm64 = "arm64" }
}

named_values! {
    /// PCI class of a GPU.
    GpuDeviceClass { VgaCompatible = "0300", ThreeD = "0302" }
}

/// A guest port to be reachable from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublishedPort {
    /// Transport.
    pub protocol: NetworkProtocol,
    /// Port in the guest.
    pub port: u16,
}

/// What the machine gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MachineResources {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory, MiB.
    pub memory: u64,
    /// Longest run of a program, seconds.
    pub seconds: u64,
    /// Ports to be reachable from outside.
    pub published_ports: Option<Vec<PublishedPort>>,
}

impl MachineResources {
    pub(crate) fn parse(value: &Value) -> Parsed<Self> {
        Self::parse_with(value, integer)
    }

    /// With whole numbers read by `number`.
    pub(crate) fn parse_with(value: &Value, number: fn(&Value) -> Parsed<i128>) -> Parsed<Self> {
        let fields = Object::new(value)?;
        let ports = |value: &Value| {
            let fields = Object::new(value)?;
            Ok(PublishedPort {
                protocol: fields.or("protocol", NetworkProtocol::Tcp, named)?,
                port: fields.required("port", integer_within(1, 65535, number))? as u16,
            })
        };
        Ok(Self {
            vcpus: fields.or("vcpus", 1, integer_within(1, MAX_VCPUS, number))? as u32,
            memory: fields.or("memory", 128, integer_within(1, MAX_MEMORY_MIB, number))?,
            seconds: fields.or("seconds", 1, integer_within(1, MAX_SECONDS, number))?,
            published_ports: fields.optional("published_ports", list(65535, ports))?,
        })
    }
}

/// Environment of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FunctionEnvironment {
    /// Whether runs are to be reproducible.
    pub reproducible: bool,
    /// Whether the guest reaches the internet.
    pub internet: bool,
    /// Whether the guest reaches the network's API.
    pub aleph_api: bool,
    /// Whether the cache is shared between programs.
    pub shared_cache: bool,
}

impl FunctionEnvironment {
    pub(crate) fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        Ok(Self {
            reproducible: fields.or("reproducible", false, boolean)?,
            internet: fields.or("internet", false, boolean)?,
            aleph_api: fields.or("aleph_api", false, boolean)?,
            shared_cache: fields.or("shared_cache", false, boolean)?,
        })
    }
}

/// Environment of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InstanceEnvironment {
    /// Whether the guest reaches the internet.
    pub internet: bool,
    /// Whether the guest reaches the network's API.
    pub aleph_api: bool,
    /// The hypervisor asked for.
    pub hypervisor: Option<Hypervisor>,
    /// Confidential computing.
    pub trusted_execution: Option<TrustedExecution>,
    /// Kept by the schema without effect.
    pub reproducible: bool,
    /// Kept by the schema without effect.
    pub shared_cache: bool,
}

impl InstanceEnvironment {
    pub(crate) fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        let hypervisor = fields.optional("hypervisor", named)?;
        let trusted_execution = fields.optional("trusted_execution", |value| {
            let is_empty = value.as_object().is_some_and(serde_json::Map::is_empty);
            if !is_empty && hypervisor != Some(Hypervisor::Qemu) {
                return Err(FieldError::new(
                    "Trusted Execution Environment is only supported for QEmu",
                ));
            }
            TrustedExecution::parse(value)
        })?;
        Ok(Self {
            internet: fields.or("internet", false, boolean)?,
            aleph_api: fields.or("aleph_api", false, boolean)?,
            hypervisor,
            trusted_execution,
            reproducible: fields.or("reproducible", false, boolean)?,
            shared_cache: fields.or("shared_cache", false, boolean)?,
        })
    }
}

/// Where a machine may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostRequirements {
    /// CPU.
    pub cpu: Option<CpuRequirements>,
    /// Node.
    pub node: Option<NodeRequirements>,
    /// GPUs to pass through.
    pub gpu: Option<Vec<GpuRequirement>>,
}

/// Required CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CpuRequirements {
    /// Architecture.
    pub architecture: Option<Architecture>,
    /// Vendor, e.g. `AuthenticAMD`.
    pub vendor: Option<String>,
    /// CPU flags, e.g. `sev_snp`.
    pub features: Option<Vec<String>>,
}

/// Required node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeRequirements {
    /// Address of the node's owner.
    pub owner: Option<String>,
    /// Pattern the node's address must match.
    pub address_regex: Option<String>,
    /// The node itself.
    pub node_hash: Option<ItemHash>,
    /// Terms and conditions the user accepted.
    pub terms_and_conditions: Option<ItemHash>,
}

/// A required GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GpuRequirement {
    /// Vendor name.
    pub vendor: String,
    /// Card name.
    pub device_name: String,
    /// PCI class.
    pub device_class: GpuDeviceClass,
    /// PCI vendor and device, e.g. `10de:27b0`.
    pub device_id: String,
}

impl HostRequirements {
    pub(crate) fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        fields.only(&[&["cpu", "node", "gpu"]])?;
        Ok(Self {
            cpu: fields.optional("cpu", CpuRequirements::parse)?,
            node: fields.optional("node", NodeRequirements::parse)?,
            gpu: fields.optional("gpu", list(usize::MAX, GpuRequirement::parse))?,
        })
    }
}

impl CpuRequirements {
    fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        fields.only(&[&["architecture", "vendor", "features"]])?;
        Ok(Self {
            architecture: fields.optional("architecture", named)?,
            vendor: fields.optional("vendor", text)?,
            features: fields.optional("features", list(usize::MAX, text))?,
        })
    }
}

impl NodeRequirements {
    fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        fields.only(&[&[
            "owner",
            "address_regex",
            "node_hash",
            "terms_and_conditions",
        ]])?;
        let regex = |value: &Value| {
            let pattern = short_text(MAX_REGEX_CHARS)(value)?;
            match regex_syntax::Parser::new().parse(&pattern) {
                Ok(_) => Ok(pattern),
                Err(error) => Err(FieldError::new(format!(
                    "Invalid regular expression: {error}"
                ))),
            }
        };
        Ok(Self {
            owner: fields.optional("owner", text)?,
            address_regex: fields.optional("address_regex", regex)?,
            node_hash: fields.optional("node_hash", item_hash)?,
            terms_and_conditions: fields.optional("terms_and_conditions", item_hash)?,
        })
    }
}

impl GpuRequirement {
    fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        fields.only(&[&["vendor", "device_name", "device_class", "device_id"]])?;
        Ok(Self {
            vendor: fields.required("vendor", text)?,
            device_name: fields.required("device_name", text)?,
            device_class: fields.required("device_class", named)?,
            device_id: fields.required("device_id", text)?,
        })
    }
}
