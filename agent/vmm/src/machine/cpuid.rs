//! What a vCPU says about itself: the host's CPUID, made true for this machine.
//!
//! All vCPUs are cores of one package, one thread each. Left out: nested virtualization and performance counters.

use std::arch::x86_64::__cpuid;

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2,
};
use kvm_ioctls::{Cap, Kvm};

use crate::error::kvm;
use crate::{Error, Result};

/// Bits of leaf 1.
const ECX_VMX: u32 = 1 << 5;
const ECX_TSC_DEADLINE: u32 = 1 << 24;
const ECX_HYPERVISOR: u32 = 1 << 31;
const EDX_HTT: u32 = 1 << 28;
/// Bits of leaf 0x8000_0001, ECX (AMD).
const AMD_CMP_LEGACY: u32 = 1 << 1;
const AMD_SVM: u32 = 1 << 2;
const AMD_PERF_CORE: u32 = 1 << 23;
const AMD_PERF_NB: u32 = 1 << 24;
const AMD_PERF_LLC: u32 = 1 << 28;
/// KVM's signature leaf, its feature leaf, and the leaf with frequencies that hypervisors agreed upon.
const LEAF_HYPERVISOR: u32 = 0x4000_0000;
const LEAF_FREQUENCIES: u32 = 0x4000_0010;
/// The in-kernel local APIC's timer counts nanoseconds.
const APIC_BUS_KHZ: u32 = 1_000_000;

/// How many bits the host's physical addresses have, and so a guest's at most. Processors that do not say have 36.
#[must_use]
pub fn address_bits() -> u32 {
    if __cpuid(0x8000_0000).eax >= 0x8000_0008 {
        __cpuid(0x8000_0008).eax & 0xff
    } else {
        36
    }
}

/// What the host can give, before it is made true for one vCPU.
#[derive(Debug, Clone)]
pub struct Template {
    entries: Vec<kvm_cpuid_entry2>,
    vcpus: u32,
    amd: bool,
}

impl Template {
    /// Asks KVM.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn new(host: &Kvm, vcpus: u8, tsc_khz: Option<u32>) -> Result<Self> {
        let supported = host
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(kvm("list its CPUID"))?;
        let vendor = __cpuid(0);
        // "AuthenticAMD", "HygonGenuine".
        let amd = matches!(vendor.ebx, 0x6874_7541 | 0x6f67_7948);
        let deadline = host.check_extension(Cap::TscDeadlineTimer);
        let mut template = Self {
            entries: supported.as_slice().to_vec(),
            vcpus: u32::from(vcpus),
            amd,
        };
        template.common(deadline, tsc_khz);
        Ok(template)
    }

    /// What is the same for every vCPU.
    fn common(&mut self, tsc_deadline: bool, tsc_khz: Option<u32>) {
        let (vcpus, amd) = (self.vcpus, self.amd);
        for entry in &mut self.entries {
            match entry.function {
                1 => {
                    entry.ecx = (entry.ecx & !ECX_VMX) | ECX_HYPERVISOR;
                    if tsc_deadline {
                        entry.ecx |= ECX_TSC_DEADLINE;
                    }
                    entry.edx = if vcpus > 1 {
                        entry.edx | EDX_HTT
                    } else {
                        entry.edx & !EDX_HTT
                    };
                }
                // Deterministic cache parameters: the last level is shared by all, the others by nobody.
                4 if entry.eax & 0x1f != 0 => {
                    let level = entry.eax >> 5 & 7;
                    let sharing = if level >= 3 { vcpus - 1 } else { 0 };
                    entry.eax = entry.eax & 0x3fff | sharing << 14 | (vcpus - 1).min(63) << 26;
                }
                // Performance counters.
                0xa | 0x8000_0022 => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
                LEAF_HYPERVISOR if tsc_khz.is_some() => entry.eax = entry.eax.max(LEAF_FREQUENCIES),
                0x8000_0001 => {
                    entry.ecx &=
                        !(AMD_SVM | AMD_CMP_LEGACY | AMD_PERF_CORE | AMD_PERF_NB | AMD_PERF_LLC);
                    if amd && vcpus > 1 {
                        entry.ecx |= AMD_CMP_LEGACY;
                    }
                }
                // The number of cores and how many bits of the APIC id number them.
                0x8000_0008 if amd => {
                    entry.ecx = entry.ecx & !0xf0ff | (vcpus - 1) | core_bits(vcpus) << 12
                }
                0x8000_000a => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
                0x8000_001d if entry.eax & 0x1f != 0 => {
                    let level = entry.eax >> 5 & 7;
                    let sharing = if level >= 3 { vcpus - 1 } else { 0 };
                    entry.eax = entry.eax & !(0xfff << 14) | sharing << 14;
                }
                _ => {}
            }
        }
        if let Some(khz) = tsc_khz {
            self.entries
                .retain(|entry| entry.function != LEAF_FREQUENCIES);
            self.entries.push(kvm_cpuid_entry2 {
                function: LEAF_FREQUENCIES,
                eax: khz,
                ebx: APIC_BUS_KHZ,
                ..Default::default()
            });
        }
        // Topology leaves are written anew, for each vCPU. 0x1f only where the host counts as far; AMD's own (its
        // Architecture Programmer's Manual, volume 3, E.4.24) would speak of the host's cores.
        self.entries
            .retain(|entry| !matches!(entry.function, 0xb | 0x1f | 0x8000_0026));
        let highest = self
            .entries
            .iter()
            .find(|entry| entry.function == 0)
            .map_or(0, |entry| entry.eax);
        for function in [0xb, 0x1f] {
            if function <= highest {
                for index in 0..3 {
                    self.entries.push(kvm_cpuid_entry2 {
                        function,
                        index,
                        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                        ..Default::default()
                    });
                }
            }
        }
    }

    /// The CPUID of the vCPU with this APIC id.
    ///
    /// # Errors
    /// [`Error::Kvm`] when there are more entries than KVM takes.
    pub fn vcpu(&self, apic_id: u32) -> Result<CpuId> {
        let mut entries = self.entries.clone();
        for entry in &mut entries {
            match entry.function {
                1 => {
                    entry.ebx =
                        entry.ebx & 0xffff | self.vcpus.next_power_of_two() << 16 | apic_id << 24
                }
                0xb | 0x1f => {
                    (entry.eax, entry.ebx, entry.ecx) = match entry.index {
                        // One thread a core; then all cores of the package; then the end.
                        0 => (0, 1, 1 << 8),
                        1 => (core_bits(self.vcpus), self.vcpus, 2 << 8 | 1),
                        index => (0, 0, index),
                    };
                    entry.edx = apic_id;
                }
                // One thread a core, one node a package.
                0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (apic_id, apic_id & 0xff, 0),
                _ => {}
            }
        }
        CpuId::from_entries(&entries).map_err(|_| {
            Error::Kvm(
                "take so many CPUID entries",
                std::io::ErrorKind::InvalidInput.into(),
            )
        })
    }
}

/// Bits of the APIC id that number `vcpus` cores.
const fn core_bits(vcpus: u32) -> u32 {
    vcpus.next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(vcpus: u32, amd: bool) -> Template {
        let leaf = |function, index, eax, ebx, ecx, edx| kvm_cpuid_entry2 {
            function,
            index,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        };
        let mut template = Template {
            entries: vec![
                leaf(0, 0, 0x1f, 0, 0, 0),
                leaf(1, 0, 0, 0xff08_0800, ECX_VMX, 0),
                leaf(4, 0, 0xfc00_0121, 0, 0, 0),
                leaf(4, 3, 0xfc00_c163, 0, 0, 0),
                leaf(0xa, 0, 7, 7, 7, 7),
                leaf(LEAF_HYPERVISOR, 0, 0x4000_0001, 0, 0, 0),
                leaf(0x8000_0001, 0, 0, 0, AMD_SVM | AMD_PERF_CORE, 0),
                leaf(0x8000_0008, 0, 48, 0, 0x4fff, 0),
                leaf(0x8000_001e, 0, 9, 9, 9, 9),
                leaf(0x8000_0026, 0, 9, 9, 9, 9),
            ],
            vcpus,
            amd,
        };
        template.common(true, Some(2_000_000));
        template
    }

    fn find(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        *cpuid
            .as_slice()
            .iter()
            .find(|entry| entry.function == function && entry.index == index)
            .unwrap()
    }

    #[test]
    fn topology_is_one_package_of_single_threaded_cores() {
        let cpuid = template(6, true).vcpu(5).unwrap();
        assert_eq!(find(&cpuid, 1, 0).ebx, 5 << 24 | 8 << 16 | 0x0800);
        let (threads, cores) = (find(&cpuid, 0xb, 0), find(&cpuid, 0xb, 1));
        assert_eq!(
            (threads.eax, threads.ebx, threads.ecx, threads.edx),
            (0, 1, 0x100, 5)
        );
        assert_eq!(
            (cores.eax, cores.ebx, cores.ecx, cores.edx),
            (3, 6, 0x201, 5)
        );
        assert_eq!(find(&cpuid, 0xb, 2).ebx, 0);
        assert_eq!(find(&cpuid, 4, 0).eax >> 14 & 0xfff, 0);
        assert_eq!(find(&cpuid, 4, 3).eax >> 14 & 0xfff, 5);
        assert_eq!(find(&cpuid, 4, 0).eax >> 26, 5);
        assert_eq!(find(&cpuid, 0x8000_0008, 0).ecx & 0xf0ff, 3 << 12 | 5);
        assert_eq!(
            (
                find(&cpuid, 0x8000_001e, 0).eax,
                find(&cpuid, 0x8000_001e, 0).ebx
            ),
            (5, 5)
        );
    }

    #[test]
    fn sixty_four_vcpus_are_one_package_and_each_knows_its_number() {
        let template = template(64, true);
        for id in [0, 1, 31, 32, 63] {
            let cpuid = template.vcpu(id).unwrap();
            assert_eq!(find(&cpuid, 1, 0).ebx, id << 24 | 64 << 16 | 0x0800);
            for leaf in [0xb, 0x1f] {
                let cores = find(&cpuid, leaf, 1);
                assert_eq!((cores.eax, cores.ebx, cores.edx), (6, 64, id));
                assert_eq!(find(&cpuid, leaf, 0).edx, id);
            }
            assert_eq!(find(&cpuid, 4, 3).eax >> 14 & 0xfff, 63, "shared by all");
            assert_eq!(find(&cpuid, 4, 0).eax >> 26, 63);
            assert_eq!(find(&cpuid, 0x8000_0008, 0).ecx & 0xf0ff, 6 << 12 | 63);
            assert_eq!(find(&cpuid, 0x8000_001e, 0).eax, id);
        }
    }

    #[test]
    fn what_a_guest_must_not_have_is_gone_and_what_it_needs_is_there() {
        let cpuid = template(1, false).vcpu(0).unwrap();
        let one = find(&cpuid, 1, 0);
        assert_eq!(one.ecx & ECX_VMX, 0);
        assert_eq!(
            one.ecx & (ECX_HYPERVISOR | ECX_TSC_DEADLINE),
            ECX_HYPERVISOR | ECX_TSC_DEADLINE
        );
        assert_eq!(one.edx & EDX_HTT, 0);
        assert_eq!(find(&cpuid, 0xa, 0).eax, 0);
        assert_eq!(find(&cpuid, 0x8000_0001, 0).ecx, 0);
        assert_eq!(find(&cpuid, LEAF_HYPERVISOR, 0).eax, LEAF_FREQUENCIES);
        assert_eq!(find(&cpuid, LEAF_FREQUENCIES, 0).eax, 2_000_000);
    }
}
