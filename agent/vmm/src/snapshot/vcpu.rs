//! A vCPU's registers.

use std::io;

use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;

use super::SnapshotError;
use super::fields::{Reader, Writer};
use super::format::Kind;
use crate::error::kvm;
use crate::{Error, Result};

/// MSRs of one vCPU at most (KVM_MAX_MSR_ENTRIES).
const MAX_MSRS: usize = 256;
const MSR_TSC: u32 = 0x10;
const MSR_TSC_DEADLINE: u32 = 0x6e0;

/// See the module.
#[derive(Debug)]
pub struct Vcpu {
    mp_state: kvm_mp_state,
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: Box<kvm_xsave>,
    xcrs: kvm_xcrs,
    debug: kvm_debugregs,
    lapic: kvm_lapic_state,
    msrs: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
}

impl Vcpu {
    /// Of a vCPU outside the guest with nothing left to complete, and these MSRs as far as it has them.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn save(vcpu: &VcpuFd, msrs: &[u32]) -> Result<Self> {
        // This first: KVM carries out a start that another vCPU has asked for.
        let mp_state = vcpu
            .get_mp_state()
            .map_err(kvm("tell whether a vCPU runs"))?;
        Ok(Self {
            mp_state,
            regs: vcpu
                .get_regs()
                .map_err(kvm("tell a vCPU's general registers"))?,
            sregs: vcpu.get_sregs().map_err(kvm("tell a vCPU's segments"))?,
            xsave: Box::new(
                vcpu.get_xsave()
                    .map_err(kvm("tell a vCPU's extended state"))?,
            ),
            xcrs: vcpu
                .get_xcrs()
                .map_err(kvm("tell a vCPU's extended control registers"))?,
            debug: vcpu
                .get_debug_regs()
                .map_err(kvm("tell a vCPU's debug registers"))?,
            lapic: vcpu.get_lapic().map_err(kvm("tell a local APIC"))?,
            msrs: read_msrs(vcpu, msrs)?,
            events: vcpu
                .get_vcpu_events()
                .map_err(kvm("tell a vCPU's pending events"))?,
        })
    }

    /// Into a new vCPU whose CPUID has been set.
    ///
    /// # Errors
    /// [`Error::Kvm`]: KVM does not take what is no state of a vCPU.
    pub fn restore(&self, vcpu: &VcpuFd) -> Result<()> {
        vcpu.set_mp_state(self.mp_state)
            .map_err(kvm("take whether a vCPU runs"))?;
        vcpu.set_regs(&self.regs)
            .map_err(kvm("take a vCPU's general registers"))?;
        vcpu.set_sregs(&self.sregs)
            .map_err(kvm("take a vCPU's segments"))?;
        // SAFETY: this process has not asked for dynamically enabled state, without which KVM reads no more than the
        // 4096 bytes of the structure.
        unsafe { vcpu.set_xsave(&self.xsave) }.map_err(kvm("take a vCPU's extended state"))?;
        // A host without XSAVE has none, and does not even take that.
        if self.xcrs.nr_xcrs > 0 {
            vcpu.set_xcrs(&self.xcrs)
                .map_err(kvm("take a vCPU's extended control registers"))?;
        }
        vcpu.set_debug_regs(&self.debug)
            .map_err(kvm("take a vCPU's debug registers"))?;
        // Before the MSRs: one of them is the deadline of its timer.
        vcpu.set_lapic(&self.lapic)
            .map_err(kvm("take a local APIC"))?;
        write_msrs(vcpu, self.msrs.clone())?;
        vcpu.set_vcpu_events(&self.events)
            .map_err(kvm("take a vCPU's pending events"))?;
        // The guest's watchdogs are told that the time away was no hang; one without kvm-clock cannot be told.
        let _ = vcpu.kvmclock_ctrl();
        Ok(())
    }

    /// As a section.
    pub fn write(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer
            .plain(&self.mp_state)
            .plain(&self.regs)
            .plain(&self.sregs)
            .plain(&*self.xsave)
            .plain(&self.xcrs)
            .plain(&self.debug)
            .plain(&self.lapic)
            .list(&self.msrs)
            .plain(&self.events);
        writer.finish()
    }

    /// From a section.
    ///
    /// # Errors
    /// [`SnapshotError::Field`].
    pub fn read(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut reader = Reader::new(Kind::Vcpu, bytes);
        let vcpu = Self {
            mp_state: reader.plain("whether it runs")?,
            regs: reader.plain("its general registers")?,
            sregs: reader.plain("its segments")?,
            xsave: Box::new(reader.plain("its extended state")?),
            xcrs: reader.plain("its extended control registers")?,
            debug: reader.plain("its debug registers")?,
            lapic: reader.plain("its local APIC")?,
            msrs: reader.list("its MSRs", MAX_MSRS)?,
            events: reader.plain("its pending events")?,
        };
        reader.end()?;
        Ok(vcpu)
    }
}

#[cfg(test)]
impl Vcpu {
    /// One that no KVM would take.
    pub(super) fn zeroed() -> Self {
        use zerocopy::FromZeros;
        Self {
            mp_state: kvm_mp_state::new_zeroed(),
            regs: kvm_regs::new_zeroed(),
            sregs: kvm_sregs::new_zeroed(),
            xsave: Box::new(kvm_xsave::new_zeroed()),
            xcrs: kvm_xcrs::new_zeroed(),
            debug: kvm_debugregs::new_zeroed(),
            lapic: kvm_lapic_state::new_zeroed(),
            msrs: vec![kvm_msr_entry::new_zeroed()],
            events: kvm_vcpu_events::new_zeroed(),
        }
    }
}

fn entries(msrs: &[kvm_msr_entry]) -> Result<Msrs> {
    Msrs::from_entries(msrs)
        .map_err(|_| Error::Kvm("take so many MSRs", io::ErrorKind::InvalidInput.into()))
}

fn read_msrs(vcpu: &VcpuFd, indices: &[u32]) -> Result<Vec<kvm_msr_entry>> {
    let mut found = Vec::with_capacity(indices.len());
    let mut wanted: Vec<kvm_msr_entry> = indices
        .iter()
        .map(|index| kvm_msr_entry {
            index: *index,
            ..Default::default()
        })
        .collect();
    // KVM lists MSRs that this vCPU does not have, and stops at the first of them.
    while !wanted.is_empty() {
        let mut msrs = entries(&wanted)?;
        let count = vcpu
            .get_msrs(&mut msrs)
            .map_err(kvm("tell a vCPU's MSRs"))?;
        found.extend(msrs.as_slice().iter().take(count).copied());
        wanted.drain(..(count + 1).min(wanted.len()));
    }
    Ok(found)
}

fn write_msrs(vcpu: &VcpuFd, mut msrs: Vec<kvm_msr_entry>) -> Result<()> {
    let now = msrs
        .iter()
        .find(|msr| msr.index == MSR_TSC)
        .map_or(0, |msr| msr.data);
    for msr in &mut msrs {
        // A timer that had run out and not been told has no deadline any more: it is told now.
        if msr.index == MSR_TSC_DEADLINE && msr.data == 0 {
            msr.data = now.max(1);
        }
    }
    // The clock first, what refers to it last.
    msrs.sort_by_key(|msr| match msr.index {
        MSR_TSC => 0,
        MSR_TSC_DEADLINE => 2,
        _ => 1,
    });
    let mut rest = msrs.as_slice();
    while !rest.is_empty() {
        let count = vcpu
            .set_msrs(&entries(rest)?)
            .map_err(kvm("take a vCPU's MSRs"))?;
        let (_, refused) = rest.split_at(count.min(rest.len()));
        let Some((refused, after)) = refused.split_first() else {
            break;
        };
        // Some can only be read; those have to be as they were.
        let here = read_msrs(vcpu, &[refused.index])?;
        if here.first().is_none_or(|msr| msr.data != refused.data) {
            return Err(SnapshotError::Msr(refused.index).into());
        }
        rest = after;
    }
    Ok(())
}
