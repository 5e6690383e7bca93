//! Where a snapshot was made: the processor, the kernel, and this program. Registers mean the same on no other.

use std::arch::x86_64::{__cpuid, CpuidResult};

use kvm_bindings::kvm_cpuid_entry2;

use super::SnapshotError;
use super::fields::{Reader, Writer};
use super::format::Kind;

/// Of this program: its version and a number made of its sources.
const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), "-", env!("CRN_VMM_BUILD"));
/// Texts, bytes.
const MAX_TEXT: usize = 512;
/// Leaves that KVM can give (KVM_MAX_CPUID_ENTRIES).
const MAX_LEAVES: usize = 256;
/// The leaf with frequencies: compared as such, in [`super::board`].
const LEAF_FREQUENCIES: u32 = 0x4000_0010;

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Vendor, signature and name.
    pub cpu: String,
    /// Release and version.
    pub kernel: String,
    /// Of `crn-vmm`.
    pub build: String,
    /// What the first vCPU's CPUID is.
    pub leaves: Vec<kvm_cpuid_entry2>,
}

impl Host {
    /// This one.
    #[must_use]
    pub fn here(leaves: &[kvm_cpuid_entry2]) -> Self {
        let uname = rustix::system::uname();
        Self {
            cpu: cpu(),
            kernel: format!(
                "{} {}",
                uname.release().to_string_lossy(),
                uname.version().to_string_lossy()
            ),
            build: BUILD.to_owned(),
            leaves: leaves.to_vec(),
        }
    }

    /// Whether a machine of this host can go on there.
    ///
    /// # Errors
    /// [`SnapshotError::Other`] with the first difference.
    pub fn check(&self, there: &Self) -> Result<(), SnapshotError> {
        let pairs = [
            ("build of crn-vmm", &self.build, &there.build),
            ("CPU model", &self.cpu, &there.cpu),
            ("kernel", &self.kernel, &there.kernel),
        ];
        for (what, made, here) in pairs {
            if made != here {
                return Err(SnapshotError::Other {
                    what,
                    made: made.clone(),
                    here: here.clone(),
                });
            }
        }
        let same = |one: &&kvm_cpuid_entry2| one.function != LEAF_FREQUENCIES;
        if self
            .leaves
            .iter()
            .filter(same)
            .eq(there.leaves.iter().filter(same))
        {
            Ok(())
        } else {
            Err(SnapshotError::CpuFeatures)
        }
    }

    /// As a section.
    pub fn write(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer
            .text(&self.cpu)
            .text(&self.kernel)
            .text(&self.build)
            .list(&self.leaves);
        writer.finish()
    }

    /// From a section.
    ///
    /// # Errors
    /// [`SnapshotError::Field`].
    pub fn read(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut reader = Reader::new(Kind::Host, bytes);
        let host = Self {
            cpu: reader.text("the CPU's name", MAX_TEXT)?,
            kernel: reader.text("the kernel's version", MAX_TEXT)?,
            build: reader.text("the build", MAX_TEXT)?,
            leaves: reader.list("the CPU's features", MAX_LEAVES)?,
        };
        reader.end()?;
        Ok(host)
    }
}

fn cpu() -> String {
    let text = |words: &[u32]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.trim_matches(['\0', ' ']).to_owned()
    };
    let vendor = __cpuid(0);
    let brand: Vec<u32> = if __cpuid(0x8000_0000).eax >= 0x8000_0004 {
        (0x8000_0002..=0x8000_0004)
            .flat_map(|leaf| {
                let CpuidResult { eax, ebx, ecx, edx } = __cpuid(leaf);
                [eax, ebx, ecx, edx]
            })
            .collect()
    } else {
        Vec::new()
    };
    let vendor = text(&[vendor.ebx, vendor.edx, vendor.ecx]);
    format!("{vendor} {:#x} {}", __cpuid(1).eax, text(&brand))
}
