//! When a process first enters its guest, by KVM's own tracepoint. The kernel's buffer keeps what came first.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};

const TRACING: &str = "/sys/kernel/tracing";
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
        if !Path::new(TRACING).join("trace").exists() {
            mount("tracefs", TRACING, "tracefs", MountFlags::empty(), None)
                .context("mount tracefs")?;
        }
        set("options/overwrite", "0")?;
        set("trace_clock", "mono")?;
        // Empties the buffer.
        set("trace", "")?;
        set("events/kvm/kvm_entry/enable", "1")?;
        Ok(Self(()))
    }

    /// Waits for the first entry of a vCPU since it is watched; nanoseconds of the monotonic clock.
    ///
    /// # Errors
    /// When there is none for [`PATIENCE`].
    pub fn first(self) -> Result<u64> {
        let started = Instant::now();
        let found = loop {
            let trace =
                fs::read_to_string(Path::new(TRACING).join("trace")).context("read the trace")?;
            match first_entry(&trace) {
                None if started.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
                found => break found,
            }
        };
        set("events/kvm/kvm_entry/enable", "0")?;
        found.context("no vCPU was entered")
    }
}

fn set(file: &str, value: &str) -> Result<()> {
    fs::write(Path::new(TRACING).join(file), value).with_context(|| format!("write {file}"))
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
