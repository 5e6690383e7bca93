//! The boot bench: `crn-vmm` and QEMU's `microvm` start the same kernel and initramfs, alternating.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

use crn_protocol::control::ExitReason;

use super::measure::{Contestant, Measured, PLAN_PATH, Plan, Sample};
use super::report::{Value, median};
use crate::nested::{self, Clock, Command, Ending, Nested};

/// What the bench initramfs's `/init` prints first.
pub const MARKER: &str = "CRN-BENCH first-instruction";
/// Guest memory, MiB; one vCPU.
pub const GUEST_MIB: u64 = 128;
/// The goal for spawn to exit and spawn to marker, as a share of the reference's.
pub const GOAL: f64 = 0.30;
/// The guest's kernel command line, the same for both.
pub const CMDLINE: &str = "console=ttyS0 quiet panic=-1";

/// The argument that makes the bench measure instead of building the machine to measure in.
pub const MEASURE: &str = "measure";

pub(super) const REFERENCE: &str = "qemu-system-x86_64 -M microvm";
pub(super) const OURS: &str = "crn-vmm";
/// Of the package qemu-system-data; the quicker of the two firmwares a microvm can use.
const FIRMWARE: &str = "/usr/share/qemu/qboot.rom";
/// A boot takes seconds of real time; after so many without a result the machine hangs.
const STALL: Duration = Duration::from_secs(120);

/// What to boot with what.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The guest's ELF `vmlinux`.
    pub kernel: PathBuf,
    /// The bench initramfs.
    pub initramfs: PathBuf,
    /// Our VMM; `None` to run the reference alone.
    pub vmm: Option<PathBuf>,
    /// Timed boots of each.
    pub runs: u32,
    /// Machines given up for hung before the bench fails.
    pub retries: u32,
}

/// What came out.
#[derive(Debug)]
pub struct Outcome {
    /// Medians.
    pub values: Vec<Value>,
    /// Machines that hung and were thrown away with all they had measured.
    pub hung: u32,
}

/// Runs the bench, about a minute.
pub fn run(setup: &Setup) -> anyhow::Result<Outcome> {
    let (samples, hung) = setup.measure(&plan(setup.vmm.is_some(), setup.runs))?;
    Ok(Outcome {
        values: evaluate(&samples)?,
        hung,
    })
}

impl Setup {
    /// Carries a plan out in a machine whose clock counts instructions; the samples, and how many machines hung before.
    pub(super) fn measure(&self, plan: &Plan) -> anyhow::Result<(Vec<Sample>, u32)> {
        let own = std::env::current_exe().context("find the running program")?;
        let mut nested = Nested::new()
            .clock(Clock::Instructions)
            .timeout(Duration::from_secs(900))
            .stall(STALL)
            .file(&self.kernel, "/vmlinux")
            .file(&self.initramfs, "/initramfs")
            .init(&own)
            .program(&own, "/bin/crn-bench")
            .program(which("qemu-system-x86_64")?, "/bin/qemu-system-x86_64")
            .file(FIRMWARE, "/firmware/qboot.rom")
            .bytes(serde_json::to_vec(plan)?, PLAN_PATH);
        if let Some(vmm) = &self.vmm {
            nested = nested.program(vmm, "/bin/crn-vmm");
        }
        let measure = Command::new(["/bin/crn-bench", MEASURE]).timeout(Duration::from_secs(600));

        let mut hung = 0;
        let output = loop {
            match nested.run([measure.clone()]) {
                Ok(output) => break output,
                Err(nested::Error::Hung { .. }) if hung < self.retries => hung += 1,
                Err(error) => return Err(error).context(format!("after {hung} hung machines")),
            }
        };
        let measured = output.commands.first().context("no output")?;
        if measured.ending != Ending::Exited(0) {
            bail!(
                "measuring: {:?}: {}{}",
                measured.ending,
                measured.stdout_text(),
                measured.stderr_text()
            );
        }
        let samples = measured
            .stdout_text()
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("sample {line:?}")))
            .collect::<Result<_, _>>()?;
        Ok((samples, hung))
    }
}

fn plan(with_ours: bool, runs: u32) -> Plan {
    Plan {
        contestants: contestants(with_ours, CMDLINE, &[], &[]),
        runs,
        marker: MARKER.to_owned(),
        guest_mib: GUEST_MIB,
        disk_bytes: None,
    }
}

/// The reference, and ours if it takes part, each with further arguments.
pub(super) fn contestants(
    with_ours: bool,
    cmdline: &str,
    for_reference: &[&str],
    for_ours: &[&str],
) -> Vec<Contestant> {
    let memory = GUEST_MIB.to_string();
    let qemu = [
        "/bin/qemu-system-x86_64",
        "-M",
        "microvm,acpi=on,pit=off,pic=off,rtc=off,isa-serial=on,x-option-roms=off",
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-smp",
        "1",
        "-m",
        &memory,
        "-L",
        "/firmware",
        "-bios",
        "qboot.rom",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-serial",
        "stdio",
        "-kernel",
        "/vmlinux",
        "-initrd",
        "/initramfs",
        "-append",
        cmdline,
    ];
    let ours = [
        "/bin/crn-vmm",
        "run",
        "--kernel",
        "/vmlinux",
        "--initramfs",
        "/initramfs",
        "--memory",
        &memory,
        "--vcpus",
        "1",
        "--cmdline",
        cmdline,
    ];
    let contestant = |name: &str, argv: &[&str], further: &[&str], exit_codes: &[i32]| Contestant {
        name: name.to_owned(),
        argv: argv
            .iter()
            .chain(further)
            .map(|&word| word.to_owned())
            .collect(),
        exit_codes: exit_codes.to_vec(),
    };
    let mut contestants = vec![contestant(REFERENCE, &qemu, for_reference, &[0])];
    if with_ours {
        let codes =
            [ExitReason::PowerOff, ExitReason::Reset].map(|reason| i32::from(reason.code()));
        contestants.push(contestant(OURS, &ours, for_ours, &codes));
    }
    contestants
}

type Pick = fn(&Measured) -> Option<f64>;

fn evaluate(samples: &[Sample]) -> anyhow::Result<Vec<Value>> {
    let quantities: [(&str, &str, Option<f64>, Pick); 5] = [
        (
            "boot: spawn to first instruction",
            "virtual ms",
            Some(GOAL),
            |measured| match measured {
                Measured::Times { marker_ns, .. } => Some(milliseconds(*marker_ns)),
                _ => None,
            },
        ),
        (
            "boot: spawn to exit",
            "virtual ms",
            Some(GOAL),
            |measured| match measured {
                Measured::Times { exit_ns, .. } => Some(milliseconds(*exit_ns)),
                _ => None,
            },
        ),
        (
            "memory beyond the guest's",
            "KiB",
            None,
            |measured| match measured {
                Measured::Footprint { resident_kib, .. } => Some(*resident_kib as f64),
                _ => None,
            },
        ),
        (
            "memory beyond the guest's, private",
            "KiB",
            None,
            |measured| match measured {
                Measured::Footprint { private_kib, .. } => Some(*private_kib as f64),
                _ => None,
            },
        ),
        (
            "exits to first instruction",
            "exits",
            None,
            |measured| match measured {
                Measured::Footprint { exits, .. } => exits.map(|exits| exits as f64),
                _ => None,
            },
        ),
    ];
    let mut values = Vec::new();
    for (name, unit, goal, pick) in quantities {
        let of = |contestant: &str| {
            let picked = samples
                .iter()
                .filter(|sample| sample.contestant == contestant);
            median(picked.filter_map(|sample| pick(&sample.measured)).collect())
        };
        let Some(reference) = of(REFERENCE) else {
            continue;
        };
        values.push(Value {
            name: name.to_owned(),
            unit: unit.to_owned(),
            value: of(OURS),
            reference,
            reference_name: REFERENCE.to_owned(),
            goal,
        });
    }
    if values.is_empty() {
        bail!("nothing was measured");
    }
    Ok(values)
}

fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

fn which(program: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").context("PATH is not set")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
        .with_context(|| format!("{program} is not installed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_stand_beside_the_reference_and_warm_ups_do_not_count() {
        let times = |contestant: &str, milliseconds: u64| Sample {
            contestant: contestant.into(),
            measured: Measured::Times {
                marker_ns: milliseconds * 500_000,
                exit_ns: milliseconds * 1_000_000,
            },
        };
        let warm_up = Sample {
            contestant: OURS.into(),
            measured: Measured::WarmUp,
        };
        let samples = [
            warm_up,
            times(REFERENCE, 900),
            times(OURS, 250),
            times(OURS, 240),
            times(OURS, 900),
        ];

        let values = evaluate(&samples).unwrap();

        assert_eq!(values.len(), 2);
        assert_eq!((values[1].value, values[1].reference), (Some(250.0), 900.0));
        assert!(values[1].meets_goal());
    }
}
