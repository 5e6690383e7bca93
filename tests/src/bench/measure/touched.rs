//! Which pages a guest touches, by KVM's tracepoint for its page faults.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use crn_protocol::control::{Pages, WorkingSet};

use super::trace;

const EVENT: &str = "events/kvm/kvm_page_fault/enable";
/// Bytes of a page.
const PAGE: u64 = 4096;
/// In an error code: the guest wrote.
const WRITE: u64 = 2;

/// The tracepoint, while it is watched. There may be one guest only.
#[derive(Debug)]
pub struct Touched(());

impl Touched {
    /// Begins to watch.
    ///
    /// # Errors
    /// When the kernel has no such tracepoint.
    pub fn watch() -> Result<Self> {
        trace::begin()?;
        trace::set(EVENT, "1")?;
        Ok(Self(()))
    }

    /// The pages of memory, of which there are so many MiB, that have been touched since.
    ///
    /// # Errors
    /// When the trace cannot be read.
    pub fn stop(self, guest_mib: u64) -> Result<WorkingSet> {
        trace::set(EVENT, "0")?;
        let mut touched = BTreeMap::new();
        for line in trace::read()?.lines() {
            if let Some((page, written)) = fault(line)
                && page < (guest_mib << 20) / PAGE
            {
                *touched.entry(page).or_insert(false) |= written;
            }
        }
        let runs = |written: bool| {
            let pages = touched.iter().filter(move |(_, is)| **is == written);
            runs(pages.map(|(page, _)| *page))
        };
        let set = WorkingSet {
            read: runs(false),
            written: runs(true),
        };
        (!touched.is_empty())
            .then_some(set)
            .context("no page fault was traced")
    }
}

/// `… kvm_page_fault: vcpu 0 rip 0xffffffff81000000 address 0x0000000001a3f000 error_code 0x6`: page, whether written.
fn fault(line: &str) -> Option<(u64, bool)> {
    let (_, fault) = line.split_once(": kvm_page_fault:")?;
    let after = |word: &str| {
        let mut words = fault.split_whitespace().skip_while(|found| *found != word);
        u64::from_str_radix(words.nth(1)?.strip_prefix("0x")?, 16).ok()
    };
    Some((after("address")? / PAGE, after("error_code")? & WRITE != 0))
}

/// Ascending pages as runs.
fn runs(pages: impl Iterator<Item = u64>) -> Vec<Pages> {
    let mut runs: Vec<Pages> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some(last) if last.first + u64::from(last.count) == page => last.count += 1,
            _ => runs.push(Pages {
                first: page,
                count: 1,
            }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_the_trace_and_make_runs() {
        let line = "vcpu0-71 [000] d..1. 12.345678: kvm_page_fault: vcpu 0 rip 0xffffffff81000000 address 0x0000000001a3f123 error_code 0x100000006";
        assert_eq!(fault(line), Some((0x1a3f, true)));
        assert_eq!(
            fault("vcpu0-71 [000] d..1. 12.3: kvm_entry: vcpu 0, rip 0x1"),
            None
        );
        let found: Vec<(u64, u32)> = runs([1, 2, 3, 7, 9, 10].into_iter())
            .into_iter()
            .map(Into::into)
            .collect();
        assert_eq!(found, [(1, 3), (7, 1), (9, 2)]);
    }
}
