//! Starts VMMs in turn and measures each boot from outside the process. Runs inside the nested machine.

mod answer;
pub mod copies;
mod entry;
mod memory;
mod monitor;
mod peer;
pub mod program;

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use command_fds::{CommandFdExt, FdMapping};
use kvm_ioctls::Kvm;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
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
    /// Measurements that an earlier machine has finished, of those the plan comes to.
    pub finished: usize,
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
    /// Starts as the agent makes them, from kernels and snapshots.
    Copies,
    /// A program that goes on from a snapshot, until it answers.
    Program,
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

/// What [`run`] prints, each as a JSON line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// A first boot, which fills caches, is over.
    WarmedUp,
    /// A measurement's result; some have several.
    Sample(Sample),
    /// A measurement is finished.
    Finished,
}

/// What was measured of one boot.
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
    /// What [`copies`] and [`program`] measure, by its name.
    Named {
        /// Of the measurement.
        name: String,
        /// Nanoseconds or KiB.
        value: u64,
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
    // As on the appliance: see its kernel's command line.
    mount(
        "cgroup2",
        "/sys/fs/cgroup",
        "cgroup2",
        MountFlags::empty(),
        Some(c"favordynmods"),
    )
    .context("mount the control groups")?;
    match plan.task {
        Task::Disk { bytes } | Task::Memory { bytes } => {
            make_disk(bytes).context("make the disk")?;
        }
        Task::Network => peer::serve().context("serve the guests")?,
        Task::Boot | Task::Answer | Task::Copies | Task::Program => {}
    }
    // A host's first machine waits for the hardware to be switched on, some 12 ms; only an empty node's does.
    let _another = Kvm::new()
        .and_then(|kvm| kvm.create_vm())
        .context("make a machine that stands beside")?;
    let steps = steps(&plan);
    let vmm = plan.contestants.first().and_then(|one| one.argv.first());
    let snapshot = match (plan.task, vmm) {
        (Task::Copies, Some(vmm)) => Some(copies::snapshot(&plan, vmm)?),
        (Task::Program, Some(vmm)) => Some(program::snapshot(&plan, vmm)?),
        _ => None,
    };
    if plan.task.warms_up() {
        for contestant in &plan.contestants {
            boot(&plan, contestant, |_| Ok(()))?;
            print(&Report::WarmedUp)?;
        }
    }
    for (step, contestant) in steps.into_iter().skip(plan.finished) {
        let tell = |measured| {
            print(&Report::Sample(Sample {
                contestant: contestant.name.clone(),
                measured,
            }))
        };
        match step {
            Step::Times => tell(boot(&plan, contestant, |_| Ok(()))?)?,
            Step::Entry => tell(entered(contestant)?)?,
            Step::Footprint => tell(footprint(&plan, contestant)?)?,
            Step::Answer => tell(answer::measure(contestant)?)?,
            Step::Copies(step) => {
                let (Some(vmm), Some(snapshot)) = (vmm, &snapshot) else {
                    bail!("{}: nothing to copy", contestant.name);
                };
                tell(step.measure(&plan, vmm, snapshot)?)?;
            }
            Step::Program(step) => {
                let (Some(vmm), Some(snapshot)) = (vmm, &snapshot) else {
                    bail!("{}: no program to go on with", contestant.name);
                };
                for measured in step.measure(&plan, vmm, snapshot)? {
                    tell(measured)?;
                }
            }
            Step::Listen => {
                let mut count = 0;
                boot(&plan, contestant, |line| {
                    let Some(measured) = operations(line) else {
                        return Ok(());
                    };
                    count += 1;
                    tell(measured)
                })?;
                if count == 0 {
                    bail!("{}: the guest measured nothing", contestant.name);
                }
            }
        }
        print(&Report::Finished)?;
    }
    Ok(())
}

impl Task {
    /// Whether first boots are left out of what is measured.
    fn warms_up(self) -> bool {
        matches!(self, Task::Boot | Task::Disk { .. } | Task::Network)
    }
}

/// What is done with one started contestant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It is timed.
    Times,
    /// Its first entry of the guest is timed.
    Entry,
    /// Its memory is looked at.
    Footprint,
    /// Its guest measures.
    Listen,
    /// Its sshd is waited for.
    Answer,
    /// It is started, or copied.
    Copies(copies::Step),
    /// A program in it goes on.
    Program(program::Step),
}

/// The plan's measurements in their order: the contestants in turn, as often as each is measured.
fn steps(plan: &Plan) -> Vec<(Step, &Contestant)> {
    let once = |step| plan.contestants.iter().map(move |one| (step, one));
    let often = |step| (0..plan.runs).flat_map(move |_| once(step));
    match plan.task {
        Task::Boot => often(Step::Times)
            .chain(often(Step::Entry))
            .chain(once(Step::Footprint))
            .collect(),
        Task::Disk { .. } | Task::Network => often(Step::Listen).collect(),
        Task::Memory { .. } => once(Step::Footprint).collect(),
        Task::Answer => once(Step::Answer).collect(),
        Task::Copies => {
            use copies::Step::{Alone, AtOnce, Launch, Memory, Restore, RestoreReserve};
            let times = [Launch, Restore, RestoreReserve, Alone].map(Step::Copies);
            let sums = [Memory, AtOnce].map(Step::Copies);
            times
                .into_iter()
                .flat_map(often)
                .chain(sums.into_iter().flat_map(once))
                .collect()
        }
        Task::Program => [program::Step::Reserve, program::Step::New]
            .into_iter()
            .flat_map(|step| often(Step::Program(step)))
            .collect(),
    }
}

fn print(report: &Report) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(report)?;
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

/// What a guest has measured, if that is what the line says.
fn operations(line: &str) -> Option<Measured> {
    let mut words = line.strip_prefix(REPORT)?.split_whitespace();
    Some(Measured::Operations {
        name: words.next()?.to_owned(),
        count: words.next()?.parse().ok()?,
        ns: words.next()?.parse().ok()?,
    })
}

/// Boots once, handing each line that the guest says after the marker to `on_line`; the times.
fn boot(
    plan: &Plan,
    contestant: &Contestant,
    mut on_line: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Measured> {
    let started = Instant::now();
    let mut child = start(contestant)?;
    let mut console = child.stdout.take().context("no pipe")?;
    await_marker(&mut console, &plan.marker, || {})
        .with_context(|| format!("boot {}", contestant.name))?;
    let marker = started.elapsed();
    let mut said = String::new();
    for line in BufReader::new(console).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        on_line(line.trim())?;
        said.push_str(&line);
    }
    let status = child.wait()?;
    let exit = started.elapsed();
    if !status
        .code()
        .is_some_and(|code| contestant.exit_codes.contains(&code))
    {
        bail!("{}: {status}: {said}", contestant.name);
    }
    Ok(Measured::Times {
        marker_ns: u64::try_from(marker.as_nanos())?,
        exit_ns: u64::try_from(exit.as_nanos())?,
    })
}

/// Nanoseconds of the clock that the kernel's traces have.
fn monotonic() -> anyhow::Result<u64> {
    let now = clock_gettime(ClockId::Monotonic);
    Ok(u64::try_from(now.tv_sec)? * 1_000_000_000 + u64::try_from(now.tv_nsec)?)
}

/// Starts one, watched by the kernel, and ends it when it has entered its guest.
fn entered(contestant: &Contestant) -> anyhow::Result<Measured> {
    let entries = entry::Entries::watch()?;
    let started = monotonic()?;
    let mut child = start(contestant)?;
    let entry = entries.first();
    kill_process_group(Pid::from_child(&child), Signal::KILL).context("end it")?;
    child.wait()?;
    let entry = entry.with_context(|| format!("start {}", contestant.name))?;
    Ok(Measured::Entered {
        ns: entry.saturating_sub(started),
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
        let expected = Measured::Operations {
            name: "read-1m".to_owned(),
            count: 64,
            ns: 1000,
        };
        assert_eq!(
            operations("CRN-BENCH measured read-1m 64 1000"),
            Some(expected)
        );
        assert_eq!(operations("CRN-BENCH measured broken"), None);
        assert_eq!(operations("reboot: Power down"), None);
    }

    #[test]
    fn contestants_take_turns_and_a_plan_goes_on_where_it_was() {
        let contestant = |name: &str| Contestant {
            name: name.to_owned(),
            argv: Vec::new(),
            exit_codes: Vec::new(),
            taps: 0,
        };
        let plan = Plan {
            contestants: vec![contestant("a"), contestant("b")],
            runs: 2,
            finished: 3,
            marker: String::new(),
            guest_mib: 128,
            task: Task::Boot,
        };
        let steps: Vec<_> = steps(&plan)
            .into_iter()
            .map(|(step, contestant)| (step, contestant.name.as_str()))
            .collect();
        assert_eq!(
            steps[..3],
            [(Step::Times, "a"), (Step::Times, "b"), (Step::Times, "a")]
        );
        assert_eq!(steps[4..6], [(Step::Entry, "a"), (Step::Entry, "b")]);
        assert_eq!(steps[8..], [(Step::Footprint, "a"), (Step::Footprint, "b")]);
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
