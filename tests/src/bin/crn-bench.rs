//! The benches: prints a table of each and writes `target/bench/<suite>.json`. The same program is the measuring machine's
//! `/init` and measures there.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use crn_tests::bench::{
    agent, boot, ccn, copies, disk, measure, memory, net, program, report, setup, stock,
};
use crn_tests::nested;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Boots, and memory beyond the guest's.
    Boot,
    /// Confined starts from kernels and snapshots, and copies.
    Copies,
    /// A Python program from a snapshot to its answer.
    Program,
    /// Reads and writes of a disk.
    Disk,
    /// TCP between guest and host.
    Net,
    /// Memory beyond the guest's, of small and large machines.
    Memory,
    /// A stock image until its sshd answers.
    Stock,
    /// The core channel node.
    Ccn,
    /// The compute node's agent.
    Agent,
}

/// A suite in the nested machine.
type Run = fn(&setup::Setup) -> anyhow::Result<setup::Outcome>;

/// Measures crn-vmm and QEMU's microvm in one machine whose clock counts instructions, and ccn-lite and
/// crn-agent on this one.
#[derive(Parser)]
struct Arguments {
    /// Which suites; all of them by default.
    #[arg(value_enum)]
    suites: Vec<Suite>,
    /// The guest kernel, as made by kernel-config/build.sh.
    #[arg(long, default_value = "target/out/vmlinux")]
    kernel: PathBuf,
    /// The bench initramfs, as made by guest-init/build-initramfs.sh.
    #[arg(long, default_value = "target/out/bench-initramfs")]
    initramfs: PathBuf,
    /// The initramfs of an instance's first stage, as made by guest-init/build-initramfs.sh.
    #[arg(long, default_value = "target/out/initramfs")]
    first_stage: PathBuf,
    /// The runtime of Python programs, as made by images/runtimes/python/build.sh.
    #[arg(long, default_value = "target/out/python.squashfs")]
    runtime: PathBuf,
    /// The stock images, as made by images/instances/stock/build.sh.
    #[arg(long, default_value = "target/out/stock")]
    stock: PathBuf,
    /// Our VMM, a release build.
    #[arg(long, default_value = "target/out/staging/usr/bin/crn-vmm")]
    vmm: PathBuf,
    /// Our core channel node, a release build.
    #[arg(long, default_value = "target/out/staging/usr/bin/ccn-lite")]
    ccn: PathBuf,
    /// Our agent, a release build.
    #[arg(long, default_value = "target/out/staging/usr/bin/crn-agent")]
    agent: PathBuf,
    /// Machines the agent is measured with.
    #[arg(long, default_value_t = 200)]
    machines: usize,
    /// Messages the core channel node is measured with.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Run the reference alone.
    #[arg(long)]
    reference_only: bool,
    /// Timed boots of each.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Real seconds without a result after which a machine hangs; more on a busy host.
    #[arg(long, default_value_t = 120)]
    stall: u64,
    /// Hung machines to forgive.
    #[arg(long, default_value_t = 3)]
    retries: u32,
    /// Where the values go, a file for each suite.
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
    /// Fail when a goal is missed.
    #[arg(long)]
    strict: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    if nested::is_init() {
        nested::run_as_init();
    }
    if std::env::args().nth(1).as_deref() == Some(setup::MEASURE) {
        measure::run()?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(inside) = agent::inside() {
        return inside.map(|()| ExitCode::SUCCESS);
    }
    let arguments = Arguments::parse();
    let setup = setup::Setup {
        kernel: arguments.kernel,
        initramfs: arguments.initramfs,
        first_stage: arguments.first_stage,
        runtime: arguments.runtime,
        stock: arguments.stock,
        vmm: (!arguments.reference_only).then_some(arguments.vmm),
        runs: arguments.runs,
        stall: Duration::from_secs(arguments.stall),
        retries: arguments.retries,
    };
    let mut missed = false;
    let chosen = |suite: Suite| arguments.suites.is_empty() || arguments.suites.contains(&suite);
    if chosen(Suite::Agent) {
        let values = agent::run(&agent::Setup {
            agent: arguments.agent,
            vmm: setup.vmm.clone().unwrap_or_default(),
            ccn: arguments.ccn.clone(),
            machines: arguments.machines,
            directory: arguments.output.join("agent"),
        })?;
        report::save(&values, &arguments.output.join("agent.json"))?;
        println!("{}", report::table(&values));
        missed |= !values.iter().all(report::Value::meets_goal);
    }
    if chosen(Suite::Ccn) {
        let values = ccn::run(&ccn::Setup {
            program: arguments.ccn,
            messages: arguments.messages,
            directory: arguments.output.join("ccn"),
        })?;
        report::save(&values, &arguments.output.join("ccn.json"))?;
        println!("{}", report::table(&values));
        missed |= !values.iter().all(report::Value::meets_goal);
    }
    let suites: [(Suite, &str, Run); 7] = [
        (Suite::Boot, "boot", boot::run),
        (Suite::Copies, "copies", copies::run),
        (Suite::Program, "program", program::run),
        (Suite::Disk, "disk", disk::run),
        (Suite::Net, "net", net::run),
        (Suite::Memory, "memory", memory::run),
        (Suite::Stock, "stock", stock::run),
    ];
    for (_, name, run) in suites.into_iter().filter(|(suite, ..)| chosen(*suite)) {
        let outcome = run(&setup)?;
        report::save(
            &outcome.values,
            &arguments.output.join(name).with_extension("json"),
        )?;
        println!("{}", report::table(&outcome.values));
        if outcome.hung > 0 {
            println!("{} machines hung and were replaced\n", outcome.hung);
        }
        missed |= !outcome.values.iter().all(report::Value::meets_goal);
    }
    println!(
        "medians of {} boots; 1 virtual ms = 1,000,000 executed instructions",
        setup.runs
    );
    Ok(ExitCode::from(u8::from(arguments.strict && missed)))
}
