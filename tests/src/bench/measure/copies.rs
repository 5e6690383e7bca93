//! Machines as the agent starts them: confined, over a control socket; and copies of one snapshot.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crn_protocol::control::Request;

use super::entry::Entries;
use super::monitor::{Board, Monitor, SETTLED, Snapshot};
use super::{Measured, Plan, await_marker, monotonic};

/// Copies that run at once.
pub const COPIES: u32 = 50;
/// Machines that are started at once.
pub const AT_ONCE: u32 = 20;
/// A guest that stays when it is up.
const BOARD: Board = Board {
    initramfs: "/initramfs",
    cmdline: "console=ttyS0 quiet panic=-1 crn.wait",
    disks: &[],
};

/// One of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A new process and a kernel, to the first entry of the guest.
    Launch,
    /// A new process and a snapshot.
    Restore,
    /// A process that waits and a snapshot.
    RestoreReserve,
    /// What copies take of the host's memory.
    Memory,
    /// A start beside no other, to the guest's first words.
    Alone,
    /// Many starts at once.
    AtOnce,
}

impl Step {
    /// What its result is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Restore => "restore",
            Self::RestoreReserve => "restore, in reserve",
            Self::Memory => "memory",
            Self::Alone => "alone",
            Self::AtOnce => "at once",
        }
    }

    /// Measures: nanoseconds, and KiB a copy of [`Step::Memory`].
    pub fn measure(self, plan: &Plan, vmm: &str, snapshot: &Snapshot) -> Result<Measured> {
        let value = match self {
            Self::Launch => {
                let entries = Entries::watch()?;
                let started = monotonic()?;
                let mut monitor = Monitor::start(vmm, 0)?;
                monitor.launch(plan.guest_mib, &BOARD)?;
                monitor.entered(entries, started)?
            }
            Self::Restore => {
                let entries = Entries::watch()?;
                let started = monotonic()?;
                let mut monitor = Monitor::start(vmm, 0)?;
                monitor.restore(plan.guest_mib, &BOARD, snapshot)?;
                monitor.entered(entries, started)?
            }
            Self::RestoreReserve => {
                let mut monitor = Monitor::start(vmm, 0)?;
                monitor.ask(Request::Status, &[])?;
                let entries = Entries::watch()?;
                let started = monotonic()?;
                monitor.restore(plan.guest_mib, &BOARD, snapshot)?;
                monitor.entered(entries, started)?
            }
            Self::Memory => each_copy(plan, vmm, snapshot)?,
            Self::Alone => slowest(plan, vmm, 1)?,
            Self::AtOnce => slowest(plan, vmm, AT_ONCE)?,
        };
        Ok(Measured::Named {
            name: self.name().to_owned(),
            value,
        })
    }
}

/// KiB that the host has less for each copy but the first.
fn each_copy(plan: &Plan, vmm: &str, snapshot: &Snapshot) -> Result<u64> {
    let mut copies = Vec::new();
    let mut first = 0;
    for number in 0..COPIES {
        let mut monitor = Monitor::start(vmm, number)?;
        monitor.restore(plan.guest_mib, &BOARD, snapshot)?;
        copies.push(monitor);
        if number == 0 {
            std::thread::sleep(SETTLED);
            first = available_kib()?;
        }
    }
    std::thread::sleep(SETTLED);
    let taken = first.saturating_sub(available_kib()?);
    for copy in copies {
        copy.end()?;
    }
    Ok(taken / u64::from(COPIES - 1))
}

/// Starts so many machines at once; nanoseconds until the last guest has said its first words.
fn slowest(plan: &Plan, vmm: &str, count: u32) -> Result<u64> {
    let started = Instant::now();
    let one = |number| -> Result<(Monitor, Duration)> {
        let mut monitor = Monitor::start(vmm, number)?;
        let mut console = monitor.launch(plan.guest_mib, &BOARD)?;
        await_marker(&mut console, &plan.marker, || {})?;
        Ok((monitor, started.elapsed()))
    };
    std::thread::scope(|scope| {
        let starts: Vec<_> = (0..count)
            .map(|number| scope.spawn(move || one(number)))
            .collect();
        let mut slowest = Duration::ZERO;
        for start in starts {
            let Ok(started) = start.join() else {
                bail!("a start panicked");
            };
            let (monitor, took) = started?;
            slowest = slowest.max(took);
            monitor.end()?;
        }
        Ok(u64::try_from(slowest.as_nanos())?)
    })
}

fn available_kib() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.context("no MemAvailable")?.parse()?)
}

/// A snapshot of a guest that is up and has nothing to do.
pub fn snapshot(plan: &Plan, vmm: &str) -> Result<Snapshot> {
    let mut monitor = Monitor::start(vmm, 0)?;
    let mut console = monitor.launch(plan.guest_mib, &BOARD)?;
    await_marker(&mut console, &plan.marker, || {})?;
    monitor.snapshot()
}
