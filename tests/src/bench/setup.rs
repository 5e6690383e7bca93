//! What all suites share: the nested machine they measure in, and those who are compared.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use crn_protocol::control::ExitReason;

use super::measure::{Contestant, PLAN_PATH, Plan, Report, Sample, Task};
use super::report::Value;
use crate::nested::{self, Clock, Command, Ending, Nested};

/// What the bench initramfs's `/init` prints first.
pub const MARKER: &str = "CRN-BENCH first-instruction";
/// Guest memory, MiB.
pub const GUEST_MIB: u64 = 128;
/// The guest's kernel command line, the same for both.
pub const CMDLINE: &str = "console=ttyS0 quiet panic=-1";
/// The argument that makes the bench measure instead of building the machine to measure in.
pub const MEASURE: &str = "measure";

pub(super) const REFERENCE: &str = "qemu-system-x86_64 -M microvm";
pub(super) const OURS: &str = "crn-vmm";
/// Of the package qemu-system-data; the quicker of the two firmwares a microvm can use.
const FIRMWARE: &str = "/usr/share/qemu/qboot.rom";
/// The longest a machine may run, by the host's clock.
const TIMEOUT: Duration = Duration::from_secs(3600);
/// The longest a plan takes, by the machine's clock.
const PATIENCE: Duration = Duration::from_secs(600);

/// What to boot with what.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The guest's ELF `vmlinux`.
    pub kernel: PathBuf,
    /// The bench initramfs.
    pub initramfs: PathBuf,
    /// The initramfs of an instance's first stage.
    pub first_stage: PathBuf,
    /// The runtime of Python programs.
    pub runtime: PathBuf,
    /// The directory of the stock images.
    pub stock: PathBuf,
    /// Our VMM; `None` to run the reference alone.
    pub vmm: Option<PathBuf>,
    /// Timed boots of each.
    pub runs: u32,
    /// A boot takes seconds of real time; after so long without a result the machine hangs.
    pub stall: Duration,
    /// Machines given up for hung before the bench fails.
    pub retries: u32,
}

/// What came out.
#[derive(Debug)]
pub struct Outcome {
    /// Medians.
    pub values: Vec<Value>,
    /// Machines that hung and were replaced.
    pub hung: u32,
}

impl Setup {
    /// A machine whose clock counts instructions, with both contestants and what they boot.
    ///
    /// # Errors
    /// When a program is not installed.
    pub(super) fn machine(&self) -> anyhow::Result<Nested> {
        let own = std::env::current_exe().context("find the running program")?;
        let mut nested = Nested::new()
            .clock(Clock::Instructions)
            .timeout(TIMEOUT)
            .stall(self.stall)
            .file(&self.kernel, "/vmlinux")
            .file(&self.initramfs, "/initramfs")
            .init(&own)
            .program(&own, "/bin/crn-bench")
            .program(which("qemu-system-x86_64")?, "/bin/qemu-system-x86_64")
            .file(FIRMWARE, "/firmware/qboot.rom");
        if let Some(vmm) = &self.vmm {
            nested = nested.program(vmm, "/bin/crn-vmm");
        }
        Ok(nested)
    }

    /// Carries a plan out; the samples, and how many machines hung on the way. What a machine has measured before it
    /// hangs counts, and the next one goes on from there.
    ///
    /// # Errors
    /// When a contestant fails, or more machines hang than are forgiven.
    pub(super) fn measure(
        &self,
        machine: Nested,
        plan: &Plan,
    ) -> anyhow::Result<(Vec<Sample>, u32)> {
        let measure = Command::new(["/bin/crn-bench", MEASURE]).timeout(PATIENCE);
        let (mut plan, mut machine) = (plan.clone(), machine);
        let (mut samples, mut hung) = (Vec::new(), 0);
        loop {
            machine = machine.bytes(serde_json::to_vec(&plan)?, PLAN_PATH);
            match machine.run([measure.clone()]) {
                Ok(output) => {
                    let measured = output.commands.first().context("no output")?;
                    if measured.ending != Ending::Exited(0) {
                        bail!(
                            "measuring: {:?}: {}{}",
                            measured.ending,
                            measured.stdout_text(),
                            measured.stderr_text()
                        );
                    }
                    take(&measured.stdout_text(), &mut plan, &mut samples)?;
                    return Ok((samples, hung));
                }
                Err(nested::Error::Hung { commands, .. }) if hung < self.retries => {
                    hung += 1;
                    for command in commands {
                        take(&command.stdout_text(), &mut plan, &mut samples)?;
                    }
                    eprintln!(
                        "a machine hung; {} measurements are finished",
                        plan.finished
                    );
                }
                Err(error) => return Err(error).context(format!("after {hung} hung machines")),
            }
        }
    }

    /// A plan with the bench kernel under both, each with further arguments.
    pub(super) fn plan(
        &self,
        task: Task,
        cmdline: &str,
        for_reference: &[&str],
        for_ours: &[&str],
    ) -> Plan {
        let mut contestants = vec![reference(cmdline, for_reference)];
        if self.vmm.is_some() {
            contestants.push(ours(OURS, cmdline, for_ours));
        }
        Plan {
            contestants,
            runs: self.runs,
            finished: 0,
            marker: MARKER.to_owned(),
            guest_mib: GUEST_MIB,
            task,
        }
    }
}

/// Takes down what a machine has reported; the last line of one that hung may be torn.
fn take(said: &str, plan: &mut Plan, samples: &mut Vec<Sample>) -> anyhow::Result<()> {
    let whole = said.rfind('\n').map_or("", |end| &said[..end]);
    for line in whole.lines() {
        match serde_json::from_str(line).with_context(|| format!("report {line:?}"))? {
            Report::WarmedUp => {}
            Report::Sample(sample) => samples.push(sample),
            Report::Finished => plan.finished += 1,
        }
    }
    Ok(())
}

fn reference(cmdline: &str, further: &[&str]) -> Contestant {
    let memory = GUEST_MIB.to_string();
    let argv = [
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
    contestant(REFERENCE, &argv, further, &[0])
}

/// Our VMM with the bench kernel.
pub(super) fn ours(name: &str, cmdline: &str, further: &[&str]) -> Contestant {
    let memory = GUEST_MIB.to_string();
    let argv = [
        "/bin/crn-vmm",
        "run",
        "--kernel",
        "/vmlinux",
        "--initramfs",
        "/initramfs",
        "--memory",
        &memory,
        "--cmdline",
        cmdline,
    ];
    let codes = [ExitReason::PowerOff, ExitReason::Reset].map(|reason| i32::from(reason.code()));
    contestant(name, &argv, further, &codes)
}

/// Started with these arguments.
pub(super) fn contestant(
    name: &str,
    argv: &[&str],
    further: &[&str],
    exit_codes: &[i32],
) -> Contestant {
    Contestant {
        name: name.to_owned(),
        argv: argv
            .iter()
            .chain(further)
            .map(|&word| word.to_owned())
            .collect(),
        exit_codes: exit_codes.to_vec(),
        taps: 0,
    }
}

/// Where a program of the host is.
pub(super) fn which(program: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").context("PATH is not set")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
        .with_context(|| format!("{program} is not installed"))
}
