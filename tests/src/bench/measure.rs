//! Starts VMMs in turn and measures each boot from outside the process. Runs inside the nested machine.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

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
    /// Bytes of a disk to make at [`DISK_PATH`]; then the guests' own measurements are what counts.
    pub disk_bytes: Option<u64>,
}

/// The disk of the plan.
pub const DISK_PATH: &str = "/bench-disk.raw";
/// What each of a guest's own measurements begins with.
const REPORT: &str = "CRN-BENCH disk ";

/// One VMM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Contestant {
    /// What it is called in the report.
    pub name: String,
    /// Program path and arguments.
    pub argv: Vec<String>,
    /// The exit statuses of a boot that went well.
    pub exit_codes: Vec<i32>,
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
    Disk {
        /// The kind of operation.
        name: String,
        /// How many.
        operations: u64,
        /// All of them together.
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
    if let Some(bytes) = plan.disk_bytes {
        make_disk(bytes).context("make the disk")?;
    }
    for contestant in &plan.contestants {
        boot(&plan, contestant).with_context(|| format!("warm {} up", contestant.name))?;
        print(contestant, Measured::WarmUp)?;
    }
    for _ in 0..plan.runs {
        for contestant in &plan.contestants {
            let (times, said) =
                boot(&plan, contestant).with_context(|| format!("boot {}", contestant.name))?;
            if plan.disk_bytes.is_none() {
                print(contestant, times)?;
            }
            for measured in reports(&said) {
                print(contestant, measured)?;
            }
        }
    }
    if plan.disk_bytes.is_some() {
        return Ok(());
    }
    for contestant in &plan.contestants {
        let measured = footprint(&plan, contestant)
            .with_context(|| format!("footprint of {}", contestant.name))?;
        print(contestant, measured)?;
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
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
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
        Some(Measured::Disk {
            name: words.next()?.to_owned(),
            operations: words.next()?.parse().ok()?,
            ns: words.next()?.parse().ok()?,
        })
    })
}

/// Boots once; the times, and what the guest said after the marker.
fn boot(plan: &Plan, contestant: &Contestant) -> anyhow::Result<(Measured, String)> {
    let started = Instant::now();
    let mut child = start(contestant)?;
    let mut console = child.stdout.take().context("no pipe")?;
    await_marker(&mut console, &plan.marker, || {})?;
    let marker = started.elapsed();
    let mut said = Vec::new();
    console.read_to_end(&mut said)?;
    let status = child.wait()?;
    let exit = started.elapsed();
    if !status
        .code()
        .is_some_and(|code| contestant.exit_codes.contains(&code))
    {
        bail!("{status}");
    }
    let times = Measured::Times {
        marker_ns: u64::try_from(marker.as_nanos())?,
        exit_ns: u64::try_from(exit.as_nanos())?,
    };
    Ok((times, String::from_utf8_lossy(&said).into_owned()))
}

fn footprint(plan: &Plan, contestant: &Contestant) -> anyhow::Result<Measured> {
    let mut child = start(contestant)?;
    let mut console = child.stdout.take().context("no pipe")?;
    let pid = Pid::from_child(&child);
    let mut last = None;
    await_marker(&mut console, &plan.marker, || {
        // Stopped, lest it exits under our eyes; the last look that found it alive counts.
        let _ = kill_process(pid, Signal::STOP);
        if let Some(memory) = memory_beyond(child.id(), plan.guest_mib * 1024) {
            last = Some((memory, exits(child.id())));
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

fn memory_beyond(pid: u32, guest_kib: u64) -> Option<(u64, u64)> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    // An exited process has none.
    (!smaps.is_empty()).then(|| sum_beyond(&smaps, guest_kib))
}

/// Sums `Rss` and the `Private_*` pages over all mappings but the guest's memory: those of at least three quarters of
/// its size (the rest may be mapped on its own, around a hole). Values in KiB.
fn sum_beyond(smaps: &str, guest_kib: u64) -> (u64, u64) {
    let (mut resident, mut private) = (0, 0);
    let mut is_guest = false;
    for line in smaps.lines() {
        let Some((field, value)) = line.split_once(':') else {
            continue;
        };
        let kib = || {
            value
                .trim()
                .trim_end_matches(" kB")
                .parse::<u64>()
                .unwrap_or(0)
        };
        match field {
            // The first field of each mapping.
            "Size" => is_guest = kib() >= guest_kib * 3 / 4,
            "Rss" if !is_guest => resident += kib(),
            "Private_Clean" | "Private_Dirty" if !is_guest => private += kib(),
            _ => {}
        }
    }
    (resident, private)
}

/// KVM's own counter: `/sys/kernel/debug/kvm/<pid>-<fd>/exits`.
fn exits(pid: u32) -> Option<u64> {
    let prefix = format!("{pid}-");
    let machine = fs::read_dir(Path::new("/sys/kernel/debug/kvm"))
        .ok()?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))?;
    fs::read_to_string(machine.path().join("exits"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_memory_is_left_out_of_the_sum() {
        let smaps = "\
55d0c8a00000-55d0c8a21000 r--p 00000000 fe:00 1234 /usr/bin/vmm
Size:                132 kB
Rss:                 100 kB
Private_Clean:        40 kB
Private_Dirty:         4 kB
7f0000000000-7f0008000000 rw-p 00000000 00:00 0
Size:             131072 kB
Rss:               20000 kB
Private_Clean:         0 kB
Private_Dirty:     20000 kB
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0 [stack]
Size:                132 kB
Rss:                  12 kB
Private_Dirty:        12 kB
";
        assert_eq!(sum_beyond(smaps, 128 * 1024), (112, 56));
    }

    #[test]
    fn a_guests_own_measurements_are_found_among_what_it_says() {
        let said =
            "\r\nCRN-BENCH disk read-1m 64 1000\r\nCRN-BENCH disk broken\nreboot: Power down\n";
        let found: Vec<Measured> = reports(said).collect();
        let expected = Measured::Disk {
            name: "read-1m".to_owned(),
            operations: 64,
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
