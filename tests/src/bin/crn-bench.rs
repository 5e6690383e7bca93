//! The boot bench: prints a table and writes `target/bench/boot.json`.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use crn_tests::bench::{boot, report};

/// Measures boots of crn-vmm and of QEMU's microvm in one machine whose clock counts instructions.
#[derive(Parser)]
struct Arguments {
    /// The guest kernel, as printed by kernel-config/build.sh.
    #[arg(long)]
    kernel: PathBuf,
    /// The bench initramfs, as made by guest-init/build-initramfs.sh.
    #[arg(long)]
    initramfs: PathBuf,
    /// Our VMM, a release build; without it the reference runs alone.
    #[arg(long)]
    vmm: Option<PathBuf>,
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
    let arguments = Arguments::parse();
    let setup = boot::Setup {
        kernel: arguments.kernel,
        initramfs: arguments.initramfs,
        vmm: arguments.vmm,
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
