//! The kernel's tracepoints (Documentation/trace/events.rst). The buffer keeps what came first.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};

const TRACING: &str = "/sys/kernel/tracing";

/// Begins with an empty buffer and the monotonic clock.
///
/// # Errors
/// When the kernel has no tracing.
pub fn begin() -> Result<()> {
    if !Path::new(TRACING).join("trace").exists() {
        mount("tracefs", TRACING, "tracefs", MountFlags::empty(), None).context("mount tracefs")?;
    }
    set("options/overwrite", "0")?;
    set("trace_clock", "mono")?;
    // Empties it.
    set("trace", "")
}

/// Writes one of the control files.
///
/// # Errors
/// write(2)'s.
pub fn set(file: &str, value: &str) -> Result<()> {
    fs::write(Path::new(TRACING).join(file), value).with_context(|| format!("write {file}"))
}

/// What has been traced.
///
/// # Errors
/// read(2)'s.
pub fn read() -> Result<String> {
    fs::read_to_string(Path::new(TRACING).join("trace")).context("read the trace")
}
