//! Pages that a copy is about to touch are got ready for it in a few calls, instead of one by one as it faults on them:
//! copied where it is going to write, then entered into the page tables that KVM has for the guest.
//!
//! Nothing depends on it. A host that cannot do one or the other, or has no memory left for it, leaves that to the faults.

use crn_protocol::control::{Pages, WorkingSet};
use kvm_bindings::{KVM_CAP_PRE_FAULT_MEMORY, kvm_pre_fault_memory};
use kvm_ioctls::{Kvm, VcpuFd};
use rustix::mm::{Advice, madvise};
use vm_memory::{GuestAddress, GuestMemoryBackend};
use vmm_sys_util::ioctl::ioctl_with_mut_ref;

use crate::memory::Ram;
use crate::{Error, Result};

/// A page of guest memory, bytes.
const PAGE: u64 = 4096;
/// Runs of either kind: each costs a call or two.
const MOST_RUNS: usize = 65_536;

mod request {
    use kvm_bindings::{KVMIO, kvm_pre_fault_memory};

    vmm_sys_util::ioctl_iowr_nr!(KVM_PRE_FAULT_MEMORY, KVMIO, 0xd5, kvm_pre_fault_memory);
}

/// Has the host make these pages present, those that are going to be written as copies of their own.
///
/// # Errors
/// [`Error::Spec`] for pages that are not memory.
pub fn populate(ram: &Ram, set: &WorkingSet) -> Result<()> {
    each(
        ram,
        "working_set.written",
        &set.written,
        |address, bytes| {
            // SAFETY: the range is guest memory, which is mapped as long as `ram` is; nothing in it changes.
            unsafe { madvise(address.cast(), bytes, Advice::LinuxPopulateWrite) }
        },
    )?;
    each(ram, "working_set.read", &set.read, |address, bytes| {
        // SAFETY: as above.
        unsafe { madvise(address.cast(), bytes, Advice::LinuxPopulateRead) }
    })
}

/// Checks all runs and goes through them until one fails.
fn each(
    ram: &Ram,
    field: &str,
    runs: &[Pages],
    populate: impl Fn(*mut u8, usize) -> rustix::io::Result<()>,
) -> Result<()> {
    if runs.len() > MOST_RUNS {
        return Err(Error::spec(
            field,
            format!("has {} runs; {MOST_RUNS} are possible", runs.len()),
        ));
    }
    let mut failed = false;
    for run in runs {
        let (start, bytes) = (run.first.checked_mul(PAGE), u64::from(run.count) * PAGE);
        let slice = start.and_then(|start| {
            ram.get_slice(GuestAddress(start), usize::try_from(bytes).ok()?)
                .ok()
        });
        let Some(slice) = slice else {
            return Err(Error::spec(
                field,
                format!(
                    "has {} pages from {:#x} on, which are not memory",
                    run.count, run.first
                ),
            ));
        };
        if failed || bytes == 0 {
            continue;
        }
        if let Err(error) = populate(slice.ptr_guard_mut().as_ptr(), slice.len()) {
            tracing::debug!(%error, "a working set is not populated to its end");
            failed = true;
        }
    }
    Ok(())
}

/// Has KVM enter these pages, which have been checked, into the guest's page tables.
pub fn enter(host: &Kvm, vcpu: &VcpuFd, set: &WorkingSet) {
    if host.check_extension_raw(KVM_CAP_PRE_FAULT_MEMORY.into()) <= 0 {
        return;
    }
    for run in set.written.iter().chain(&set.read) {
        let mut range = kvm_pre_fault_memory {
            gpa: run.first * PAGE,
            size: u64::from(run.count) * PAGE,
            ..kvm_pre_fault_memory::default()
        };
        if range.size == 0 {
            continue;
        }
        // SAFETY: this is a vCPU, and the structure is the one that the request reads and writes (linux/kvm.h).
        let result =
            unsafe { ioctl_with_mut_ref(vcpu, request::KVM_PRE_FAULT_MEMORY(), &mut range) };
        if result < 0 {
            let error = std::io::Error::last_os_error();
            tracing::debug!(%error, "a working set is not entered to its end");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::devices::testing::ram;

    fn set(read: &[(u64, u32)], written: &[(u64, u32)]) -> WorkingSet {
        let pages = |runs: &[(u64, u32)]| {
            let pages = runs.iter().map(|&(first, count)| Pages { first, count });
            pages.collect()
        };
        WorkingSet {
            read: pages(read),
            written: pages(written),
        }
    }

    #[test]
    fn pages_beyond_memory_are_refused_by_name() {
        let ram = ram();
        let pages = ram.last_addr().0 / PAGE + 1;
        populate(&ram, &set(&[(0, 1), (pages - 1, 1)], &[(1, 3)])).unwrap();
        let error = populate(&ram, &set(&[(pages - 1, 2)], &[])).unwrap_err();
        assert!(error.to_string().contains("working_set.read"), "{error}");
        let error = populate(&ram, &set(&[], &[(pages, 1)])).unwrap_err();
        assert!(error.to_string().contains("working_set.written"), "{error}");
    }

    proptest! {
        #[test]
        fn any_run_is_got_ready_or_refused(first in any::<u64>(), near in 0u64..2048, count in any::<u32>()) {
            let ram = ram();
            let _ = populate(&ram, &set(&[(first, count)], &[(near, count % 16)]));
        }
    }
}
