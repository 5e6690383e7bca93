//! When a process first enters its guest, by KVM's own tracepoint.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::trace;

const EVENT: &str = "events/kvm/kvm_entry/enable";
/// The longest a start takes, by the machine's clock.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks. Looking takes the time of the one looked at, and its start is over by then.
const PAUSE: Duration = Duration::from_millis(50);

/// The tracepoint, while it is watched.
#[derive(Debug)]
pub struct Entries(());

impl Entries {
    /// Begins to watch.
    ///
    /// # Errors
    /// When the kernel has no such tracepoint.
    pub fn watch() -> Result<Self> {
        trace::begin()?;
        trace::set(EVENT, "1")?;
        Ok(Self(()))
    }

    /// Waits for the first entry of a vCPU since it is watched; nanoseconds of the monotonic clock.
    ///
    /// # Errors
    /// When there is none for [`PATIENCE`].
    pub fn first(self) -> Result<u64> {
        let started = Instant::now();
        let found = loop {
            match first_entry(&trace::read()?) {
                None if started.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
                found => break found,
            }
        };
        trace::set(EVENT, "0")?;
        found.context("no vCPU was entered")
    }
}

/// `    vcpu0-71  [000] d..1.    12.345678: kvm_entry: vcpu 0, rip 0xfff0`, the moment in seconds.
fn first_entry(trace: &str) -> Option<u64> {
    let line = trace.lines().find(|line| line.contains(": kvm_entry:"))?;
    let (before, _) = line.split_once(": kvm_entry:")?;
    let (seconds, micros) = before.split_whitespace().last()?.split_once('.')?;
    let micros: u64 = format!("{micros:0<6}").get(..6)?.parse().ok()?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000_000 + micros * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_entries_is_read_from_the_trace() {
        let trace = "\
# tracer: nop
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
           vcpu0-71      [000] d..1.    12.345678: kvm_entry: vcpu 0, rip 0xfff0
           vcpu0-71      [000] d..1.    12.345690: kvm_entry: vcpu 0, rip 0xfff5
";
        assert_eq!(first_entry(trace), Some(12_345_678_000));
        assert_eq!(first_entry("# tracer: nop\n"), None);
    }
}
