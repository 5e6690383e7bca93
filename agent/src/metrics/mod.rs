//! How the host is: what the scheduler and the owners' clients ask for, read from `/proc` when asked. Everything here
//! blocks for a moment: call it from a blocking thread.

pub mod history;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use procfs::Current as _;
use serde::Serialize;

use crate::config::Limits;
use crate::ledger::Capacity;

/// `GET /about/usage/system`. Sizes are thousands of bytes, frequencies MHz.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the wire's names")]
pub struct Usage {
    pub cpu: Cpu,
    pub mem: Size,
    pub disk: Size,
    pub period: Period,
    pub properties: Properties,
    pub gpu: Gpus,
    pub active: bool,
}

/// See [`Usage`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the wire's names")]
pub struct Cpu {
    pub count: usize,
    pub load_average: LoadAverage,
    pub core_frequencies: Frequencies,
}

/// See [`Usage`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the wire's names")]
pub struct LoadAverage {
    pub load1: f32,
    pub load5: f32,
    pub load15: f32,
}

/// See [`Usage`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the wire's names")]
pub struct Frequencies {
    pub min: f64,
    pub max: f64,
}

/// See [`Usage`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the wire's names")]
#[serde(rename_all = "snake_case")]
pub struct Size {
    #[serde(rename = "total_kB")]
    pub total_kb: u64,
    #[serde(rename = "available_kB")]
    pub available_kb: u64,
}

/// See [`Usage`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the wire's names")]
pub struct Period {
    pub start_timestamp: String,
    pub duration_seconds: f64,
}

/// See [`Usage`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the wire's names")]
pub struct Properties {
    pub cpu: CpuProperties,
}

/// See [`Usage`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the wire's names")]
pub struct CpuProperties {
    pub architecture: String,
    pub vendor: String,
    pub features: Vec<String>,
}

/// See [`Usage`]; this node gives out none.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the wire's names")]
pub struct Gpus {
    pub devices: Vec<String>,
    pub available_devices: Vec<String>,
}

/// `GET /about/capability`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the wire's names")]
pub struct Capability {
    pub cpu: CapabilityCpu,
    pub memory: CapabilityMemory,
}

/// See [`Capability`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the wire's names")]
pub struct CapabilityCpu {
    pub architecture: String,
    pub vendor: String,
    pub features: Vec<String>,
    pub model: String,
    /// Hz.
    pub frequency: u64,
    pub count: usize,
}

/// See [`Capability`]; what only the firmware's tables know is null.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the wire's names")]
pub struct CapabilityMemory {
    pub size: u64,
    pub units: &'static str,
    pub r#type: Option<String>,
    pub clock: Option<u64>,
    pub clock_units: Option<String>,
}

/// How the host is. `disk_promised_mib` is what machines may still grow to on `state_dir`'s file system.
#[must_use]
pub fn usage(state_dir: &Path, disk_promised_mib: u64) -> Usage {
    let load = procfs::LoadAverage::current().map_or_else(
        |_| LoadAverage::default(),
        |load| LoadAverage {
            load1: load.one,
            load5: load.five,
            load15: load.fifteen,
        },
    );
    let cpus = Cpus::read();
    let (disk_total, disk_free) = disk(state_dir);
    let promised = (disk_promised_mib << 20).saturating_sub(machines_bytes(state_dir));
    let now = time::OffsetDateTime::now_utc();
    let start = now
        .replace_nanosecond(0)
        .and_then(|t| t.replace_second(0))
        .unwrap_or(now);
    Usage {
        cpu: Cpu {
            count: cpus.count,
            load_average: load,
            core_frequencies: cpus.frequencies(),
        },
        mem: memory(),
        disk: Size {
            total_kb: disk_total / 1000,
            available_kb: disk_free.saturating_sub(promised) / 1000,
        },
        period: Period {
            start_timestamp: start
                .format(&time::format_description::well_known::Rfc3339)
                .unwrap_or_default(),
            duration_seconds: 60.0,
        },
        properties: Properties {
            cpu: CpuProperties {
                architecture: std::env::consts::ARCH.to_owned(),
                vendor: cpus.vendor.clone(),
                features: cpus.confidential_features(),
            },
        },
        gpu: Gpus::default(),
        active: true,
    }
}

/// What the host is.
#[must_use]
pub fn capability() -> Capability {
    let cpus = Cpus::read();
    Capability {
        cpu: CapabilityCpu {
            architecture: std::env::consts::ARCH.to_owned(),
            vendor: cpus.vendor.clone(),
            features: cpus.confidential_features(),
            model: cpus.model.clone(),
            frequency: (cpus.frequencies().max * 1e6) as u64,
            count: cpus.count,
        },
        memory: CapabilityMemory {
            size: memory().total_kb * 1000,
            units: "bytes",
            r#type: None,
            clock: None,
            clock_units: None,
        },
    }
}

/// What all machines together may hold.
#[must_use]
pub fn capacity(limits: &Limits, state_dir: &Path, slots: u16) -> Capacity {
    let memory_mib = procfs::Meminfo::current().map_or(0, |memory| memory.mem_total >> 20);
    let cpus = u32::try_from(Cpus::read().count).unwrap_or(u32::MAX);
    let (_, free) = disk(state_dir);
    let disk_mib = (free + machines_bytes(state_dir)) >> 20;
    Capacity {
        memory_mib: memory_mib.saturating_sub(limits.host_memory_mib),
        vcpus: cpus.saturating_mul(limits.vcpu_overcommit),
        disk_mib: disk_mib.saturating_sub(limits.host_disk_mib),
        slots,
    }
}

/// A processor as guests see it.
#[derive(Debug, Clone, Default)]
pub struct Processor {
    /// Its maker, as CPUID has it.
    pub vendor: String,
    /// What it can do, as Linux names it.
    pub features: Vec<String>,
}

/// What the host's processor can do and guests' cannot: virtual machines of their own, performance counters, memory
/// that the host cannot read.
const HIDDEN: [&str; 9] = [
    "vmx",
    "svm",
    "arch_perfmon",
    "perfctr_core",
    "perfctr_nb",
    "perfctr_llc",
    "sev",
    "sev_es",
    "sev_snp",
];

/// The processor of this host's guests.
#[must_use]
pub fn processor() -> Processor {
    let cpus = Cpus::read();
    let features = cpus.flags.into_iter();
    Processor {
        vendor: cpus.vendor,
        features: features
            .filter(|flag| !HIDDEN.contains(&flag.as_str()))
            .collect(),
    }
}

struct Cpus {
    count: usize,
    vendor: String,
    model: String,
    flags: Vec<String>,
    mhz: Vec<f64>,
}

impl Cpus {
    fn read() -> Self {
        let Ok(info) = procfs::CpuInfo::current() else {
            let count = std::thread::available_parallelism().map_or(1, usize::from);
            return Self {
                count,
                vendor: String::new(),
                model: String::new(),
                flags: Vec::new(),
                mhz: Vec::new(),
            };
        };
        let field = |cpu, name| info.get_field(cpu, name).unwrap_or_default().to_owned();
        Self {
            count: info.num_cores().max(1),
            vendor: field(0, "vendor_id"),
            model: field(0, "model name"),
            flags: field(0, "flags")
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            mhz: (0..info.num_cores())
                .filter_map(|cpu| info.get_field(cpu, "cpu MHz")?.parse().ok())
                .collect(),
        }
    }

    fn frequencies(&self) -> Frequencies {
        let min = self.mhz.iter().copied().fold(f64::INFINITY, f64::min);
        let max = self.mhz.iter().copied().fold(0.0, f64::max);
        if self.mhz.is_empty() {
            Frequencies::default()
        } else {
            Frequencies { min, max }
        }
    }

    fn confidential_features(&self) -> Vec<String> {
        let known = ["sev", "sev_es", "sev_snp"];
        known
            .iter()
            .filter(|name| self.flags.iter().any(|flag| flag == *name))
            .map(|name| (*name).to_owned())
            .collect()
    }
}

fn memory() -> Size {
    procfs::Meminfo::current().map_or_else(
        |_| Size::default(),
        |memory| Size {
            total_kb: memory.mem_total / 1000,
            available_kb: memory.mem_available.unwrap_or(memory.mem_free) / 1000,
        },
    )
}

/// Length and free space of the file system, in bytes.
fn disk(path: &Path) -> (u64, u64) {
    rustix::fs::statvfs(path).map_or((0, 0), |fs| {
        (fs.f_blocks * fs.f_frsize, fs.f_bavail * fs.f_frsize)
    })
}

/// Bytes that machines' disks occupy.
fn machines_bytes(state_dir: &Path) -> u64 {
    let dirs = std::fs::read_dir(state_dir.join("vm"))
        .into_iter()
        .flatten()
        .flatten();
    let files = dirs
        .filter_map(|dir| std::fs::read_dir(dir.path()).ok())
        .flatten()
        .flatten();
    // st_blocks counts 512-byte units whatever the file system's block size.
    files
        .filter_map(|file| file.metadata().ok())
        .map(|metadata| metadata.blocks() * 512)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_usage_has_the_shape_clients_read() {
        let usage = serde_json::to_value(usage(Path::new("/"), 0)).unwrap();
        assert!(usage["cpu"]["count"].as_u64().unwrap() >= 1);
        assert!(usage["cpu"]["load_average"]["load15"].is_number());
        assert!(usage["cpu"]["core_frequencies"]["max"].is_number());
        assert!(usage["mem"]["total_kB"].as_u64().unwrap() > 0);
        assert!(usage["disk"]["available_kB"].is_number());
        assert!(
            usage["period"]["start_timestamp"]
                .as_str()
                .unwrap()
                .ends_with("00Z")
        );
        assert!(usage["properties"]["cpu"]["features"].is_array());
        assert_eq!(usage["gpu"]["devices"], serde_json::json!([]));
        assert_eq!(usage["active"], true);
    }

    #[test]
    fn what_is_kept_for_the_host_is_not_given_out() {
        let all = capacity(
            &Limits {
                host_memory_mib: 0,
                ..Limits::default()
            },
            Path::new("/"),
            10,
        );
        let less = capacity(
            &Limits {
                host_memory_mib: 100,
                ..Limits::default()
            },
            Path::new("/"),
            10,
        );
        assert_eq!(all.memory_mib - less.memory_mib, 100);
    }
}
