//! Starts VMMs in turn and measures each boot from outside the process. Runs inside the nested machine.

mod answer;
mod entry;
mod memory;
mod peer;

use std::fs;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use command_fds::{CommandFdExt, FdMapping};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::tap;

/// Where the plan stands in the machine.
pub const PLAN_PATH: &str = "/bench-plan.json";

/// Everything [`run`] needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Those who boot, in turn.
    pub contestants: Vec<Contestant>,
    /// Timed boots of each.
    pub runs: u32,
    /// The guest's first words on its console, which is the VMM's standard output.
    pub marker: String,
    /// MiB of guest memory, to tell the guest's mapping from the VMM's own.
    pub guest_mib: u64,
    /// What to measure.
    pub task: Task,
}

/// What to measure.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Task {
    /// Boots, what memory they take, and when they first enter the guest.
    Boot,
    /// What guests say of a disk of so many bytes at [`DISK_PATH`].
    Disk {
        /// Its size.
        bytes: u64,
    },
    /// What guests say of a network.
    Network,
    /// When sshd answers at [`ANSWERS`]; each contestant is started once.
    Answer,
    /// What memory boots take, with a disk of so many bytes at [`DISK_PATH`].
    Memory {
        /// Its size.
        bytes: u64,
    },
}

/// The disk of the plan.
pub const DISK_PATH: &str = "/bench-disk.raw";
/// The first of the descriptors by which a contestant finds its TAP devices.
pub const TAP_FD: i32 = 10;
/// Where a guest's sshd is to answer: behind the first TAP device, at the MAC address 02:00:00:00:00:01.
pub const ANSWERS: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 2);
/// What each of a guest's own measurements begins with.
const REPORT: &str = "CRN-BENCH measured ";

/// One VMM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Contestant {
    /// What it is called in the report.
    pub name: String,
    /// Program path and arguments.
    pub argv: Vec<String>,
    /// The exit statuses of a boot that went well.
    pub exit_codes: Vec<i32>,
    /// How many TAP devices it gets, from [`TAP_FD`] on; the host is 10.9.9.1 on the first, 10.9.10.1 on the next.
    pub taps: u8,
}

/// One boot; [`run`] prints each as a JSON line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Whose.
    pub contestant: String,
    /// What was measured.
    pub measured: Measured,
}

/// Times and footprints come from different boots: looking at a process's memory takes time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Measured {
    /// The first boot of each fills caches and is not counted.
    WarmUp,
    /// Nanoseconds since before the fork.
    Times {
        /// Until the marker had been read.
        marker_ns: u64,
        /// Until the process had been waited for.
        exit_ns: u64,
    },
    /// What a guest measured itself.
    Operations {
        /// Their kind.
        name: String,
        /// How many.
        count: u64,
        /// All of them together.
        ns: u64,
    },
    /// Nanoseconds from before the fork until a vCPU first entered the guest.
    Entered {
        /// Nanoseconds.
        ns: u64,
    },
    /// Nanoseconds from before the fork until sshd had said who it is.
    Answered {
        /// Nanoseconds.
        ns: u64,
    },
    /// When the marker began to appear.
    Footprint {
        /// Resident pages of all mappings but the guest's memory, KiB.
        resident_kib: u64,
        /// The part of it no other process can share, KiB.
        private_kib: u64,
        /// Exits from the guest so far, those the kernel handled included; `None` without debugfs.
        exits: Option<u64>,
    },
}

/// Reads the plan, measures, prints.
pub fn run() -> anyhow::Result<()> {
    let plan: Plan = serde_json::from_slice(&fs::read(PLAN_PATH).context("read the plan")?)
        .context("parse the plan")?;
    // For the exit counters only; without it they are missing from the report.
    let _ = mount(
        "debugfs",
        "/sys/kernel/debug",
        "debugfs",
        MountFlags::empty(),
        None,
    );
    match plan.task {
        Task::Boot => {
            warm_up(&plan)?;
            for contestant in turns(&plan) {
                let (times, _) = boot(&plan, contestant)?;
                print(contestant, times)?;
            }
            for contestant in turns(&plan) {
                print(contestant, entered(&plan, contestant)?)?;
            }
            for contestant in &plan.contestants {
                print(contestant, footprint(&plan, contestant)?)?;
            }
        }
        Task::Disk { bytes } => {
            make_disk(bytes).context("make the disk")?;
            warm_up(&plan)?;
            listen(&plan)?;
        }
        Task::Network => {
            peer::serve().context("serve the guests")?;
            warm_up(&plan)?;
            listen(&plan)?;
        }
        Task::Answer => {
            for contestant in &plan.contestants {
                print(contestant, answer::measure(contestant)?)?;
            }
        }
        Task::Memory { bytes } => {
            make_disk(bytes).context("make the disk")?;
            for contestant in &plan.contestants {
                print(contestant, footprint(&plan, contestant)?)?;
            }
        }
    }
    Ok(())
}

/// The contestants, one after the other, as often as each is measured.
fn turns(plan: &Plan) -> impl Iterator<Item = &Contestant> {
    (0..plan.runs).flat_map(|_| &plan.contestants)
}

fn warm_up(plan: &Plan) -> anyhow::Result<()> {
    for contestant in &plan.contestants {
        boot(plan, contestant)?;
        print(contestant, Measured::WarmUp)?;
    }
    Ok(())
}

/// Takes down what the guests measure.
fn listen(plan: &Plan) -> anyhow::Result<()> {
    for contestant in turns(plan) {
        let (_, said) = boot(plan, contestant)?;
        let mut count = 0;
        for measured in reports(&said) {
            print(contestant, measured)?;
            count += 1;
        }
        if count == 0 {
            bail!("{}: the guest measured nothing: {said}", contestant.name);
        }
    }
    Ok(())
}

fn print(contestant: &Contestant, measured: Measured) -> anyhow::Result<()> {
    let sample = Sample {
        contestant: contestant.name.clone(),
        measured,
    };
    let mut line = serde_json::to_vec(&sample)?;
    line.push(b'\n');
    Ok(io::stdout().write_all(&line)?)
}

fn start(contestant: &Contestant) -> anyhow::Result<Child> {
    let (program, arguments) = contestant.argv.split_first().context("empty command")?;
    let mut taps = Vec::new();
    for index in 0..contestant.taps {
        let address = Ipv4Addr::new(10, 9, 9 + index, 1);
        let opened = tap::open(&format!("tap{index}"), address, 1).context("make a TAP device")?;
        let child_fd = TAP_FD + i32::from(index);
        taps.extend(opened.into_iter().map(|parent_fd| FdMapping {
            parent_fd,
            child_fd,
        }));
    }
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .fd_mappings(taps)?
        .spawn()
        .with_context(|| format!("start {program}"))
}

/// Reads the console until the marker is complete, calling `on_bytes` after each read before that.
fn await_marker(
    console: &mut impl Read,
    marker: &str,
    mut on_bytes: impl FnMut(),
) -> anyhow::Result<()> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = console.read(&mut buffer)?;
        if length == 0 {
            bail!(
                "no marker on the console: {:?}",
                String::from_utf8_lossy(&seen)
            );
        }
        seen.extend_from_slice(&buffer[..length]);
        on_bytes();
        if seen
            .windows(marker.len())
            .any(|window| window == marker.as_bytes())
        {
            return Ok(());
        }
    }
}

/// A file without holes, so that reading and writing it is the same everywhere.
fn make_disk(bytes: u64) -> io::Result<()> {
    let mut file = fs::File::create(DISK_PATH)?;
    let block: Vec<u8> = (0..1 << 20).map(|n: u32| (n >> 3) as u8).collect();
    for _ in 0..bytes >> 20 {
        file.write_all(&block)?;
    }
    Ok(())
}

/// The measurements among what a guest has said.
fn reports(said: &str) -> impl Iterator<Item = Measured> {
    said.lines().filter_map(|line| {
        let mut words = line.strip_prefix(REPORT)?.split_whitespace();
        Some(Measured::Operations {
            name: words.next()?.to_owned(),
            count: words.next()?.parse().ok()?,
            ns: words.next()?.parse().ok()?,
        })
    })
}

/// Boots once; the times, and what the guest said after the marker.
fn boot(plan: &Plan, contestant: &Contestant) -> anyhow::Result<(Measured, String)> {
    let started = Instant::now();
    let mut child = start(contestant)?;
    let mut console = child.stdout.take().context("no pipe")?;
    await_marker(&mut console, &plan.marker, || {})
        .with_context(|| format!("boot {}", contestant.name))?;
    let marker = started.elapsed();
    let mut said = Vec::new();
    console.read_to_end(&mut said)?;
    let status = child.wait()?;
    let exit = started.elapsed();
    if !status
        .code()
        .is_some_and(|code| contestant.exit_codes.contains(&code))
    {
        bail!(
            "{}: {status}: {}",
            contestant.name,
            String::from_utf8_lossy(&said)
        );
    }
    let times = Measured::Times {
        marker_ns: u64::try_from(marker.as_nanos())?,
        exit_ns: u64::try_from(exit.as_nanos())?,
    };
    Ok((times, String::from_utf8_lossy(&said).into_owned()))
}

/// Boots once, watched by the kernel, which costs time once the guest runs.
fn entered(plan: &Plan, contestant: &Contestant) -> anyhow::Result<Measured> {
    let entries = entry::Entries::watch()?;
    let now = clock_gettime(ClockId::Monotonic);
    let started = u64::try_from(now.tv_sec)? * 1_000_000_000 + u64::try_from(now.tv_nsec)?;
    boot(plan, contestant)?;
    Ok(Measured::Entered {
        ns: entries.first()?.saturating_sub(started),
    })
}

fn footprint(plan: &Plan, contestant: &Contestant) -> anyhow::Result<Measured> {
    let mut child = start(contestant)?;
    let mut console = child.stdout.take().context("no pipe")?;
    let pid = Pid::from_child(&child);
    let mut last = None;
    await_marker(&mut console, &plan.marker, || {
        // Stopped, lest it exits under our eyes; the last look that found it alive counts.
        let _ = kill_process(pid, Signal::STOP);
        if let Some(memory) = memory::beyond(child.id(), plan.guest_mib * 1024) {
            last = Some((memory, memory::exits(child.id())));
        }
        let _ = kill_process(pid, Signal::CONT);
    })?;
    io::copy(&mut console, &mut io::sink())?;
    child.wait()?;
    let ((resident_kib, private_kib), exits) =
        last.context("it was gone before it could be looked at")?;
    Ok(Measured::Footprint {
        resident_kib,
        private_kib,
        exits,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_own_measurements_are_found_among_what_it_says() {
        let said = "\r\nCRN-BENCH measured read-1m 64 1000\r\nCRN-BENCH measured broken\nreboot: Power down\n";
        let found: Vec<Measured> = reports(said).collect();
        let expected = Measured::Operations {
            name: "read-1m".to_owned(),
            count: 64,
            ns: 1000,
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn the_marker_is_found_across_reads() {
        struct Bytes<'a>(std::slice::Iter<'a, u8>);
        impl Read for Bytes<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                Ok(self.0.next().map_or(0, |byte| {
                    buffer[0] = *byte;
                    1
                }))
            }
        }
        let mut reads = 0;
        await_marker(&mut Bytes(b"boot: hello\n".iter()), "hello", || reads += 1).unwrap();
        assert_eq!(reads, 11);
        assert!(await_marker(&mut &b"hel"[..], "hello", || {}).is_err());
    }
}
