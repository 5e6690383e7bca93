//! What a process has used so far, as the kernel counts it.

use std::fs;

use anyhow::Context;

/// Bytes of memory in use.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// At most since it started.
    pub peak: u64,
}

/// CPU time of all threads, seconds.
pub fn cpu(pid: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, which may hold anything, ends with the last parenthesis.
    let fields: Vec<&str> = text
        .rsplit_once(')')
        .context("no name in stat")?
        .1
        .split_ascii_whitespace()
        .collect();
    // utime and stime are fields 14 and 15 of proc(5).
    let ticks = |index: usize| -> anyhow::Result<u64> {
        Ok(fields.get(index).context("short stat")?.parse()?)
    };
    let hertz = rustix::param::clock_ticks_per_second();
    Ok((ticks(11)? + ticks(12)?) as f64 / hertz as f64)
}

/// Memory of the process.
pub fn memory(pid: u32) -> anyhow::Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let bytes = |name: &str| -> anyhow::Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_ascii_whitespace().next());
        Ok(kib
            .with_context(|| format!("no {name} in status"))?
            .parse::<u64>()?
            << 10)
    };
    Ok(Memory {
        resident: bytes("VmRSS:")?,
        peak: bytes("VmHWM:")?,
    })
}
