//! The boot bench: prints a table and writes `target/bench/boot.json`. The same program is the measuring machine's
//! `/init` and measures there.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use crn_tests::bench::{boot, measure, report};
use crn_tests::nested;

/// Measures boots of crn-vmm and of QEMU's microvm in one machine whose clock counts instructions.
#[derive(Parser)]
struct Arguments {
    /// The guest kernel, as made by kernel-config/build.sh.
    #[arg(long, default_value = "target/out/vmlinux")]
    kernel: PathBuf,
    /// The bench initramfs, as made by guest-init/build-initramfs.sh.
    #[arg(long, default_value = "target/out/bench-initramfs")]
    initramfs: PathBuf,
    /// Our VMM, a release build.
    #[arg(long, default_value = "target/out/staging/usr/bin/crn-vmm")]
    vmm: PathBuf,
    /// Run the reference alone.
    #[arg(long)]
    reference_only: bool,
    /// Timed boots of each.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Hung machines to forgive.
    #[arg(long, default_value_t = 3)]
    retries: u32,
    /// Where the values go.
    #[arg(long, default_value = "target/bench/boot.json")]
    output: PathBuf,
    /// Fail when a goal is missed.
    #[arg(long)]
    strict: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    if nested::is_init() {
        nested::run_as_init();
    }
    if std::env::args().nth(1).as_deref() == Some(boot::MEASURE) {
        measure::run()?;
        return Ok(ExitCode::SUCCESS);
    }
    let arguments = Arguments::parse();
    let setup = boot::Setup {
        kernel: arguments.kernel,
        initramfs: arguments.initramfs,
        vmm: (!arguments.reference_only).then_some(arguments.vmm),
        runs: arguments.runs,
        retries: arguments.retries,
    };
    let outcome = boot::run(&setup)?;
    report::save(&outcome.values, &arguments.output)?;
    print!("{}", report::table(&outcome.values));
    println!(
        "\nmedians of {} boots; 1 virtual ms = 1,000,000 executed instructions",
        setup.runs
    );
    if outcome.hung > 0 {
        println!("{} machines hung and were not counted", outcome.hung);
    }
    let missed = !outcome.values.iter().all(report::Value::meets_goal);
    Ok(ExitCode::from(u8::from(arguments.strict && missed)))
}
