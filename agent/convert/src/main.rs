//! `crn-convert`: a qcow2 image on standard input, an empty file on standard output; both regular files.
//!
//! Exit status: 0 when the disk is written, 1 with one line on standard error that says why not.

#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::AsFd;
use std::process::ExitCode;

use clap::Parser;

/// Converts a qcow2 image to a raw disk.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// The largest disk accepted, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 40)]
    max_size: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.max_size) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut line = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                line = format!("{line}: {error}");
                cause = error.source();
            }
            eprintln!("crn-convert: {line}");
            ExitCode::FAILURE
        }
    }
}

fn run(max_size: u64) -> Result<(), Box<dyn std::error::Error>> {
    let duplicate = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map(File::from);
    let image = duplicate(std::io::stdin().as_fd())?;
    let disk = duplicate(std::io::stdout().as_fd())?;
    crn_convert::jail::enter(max_size)?;
    crn_convert::convert(&image, &disk, max_size)?;
    disk.sync_all()?;
    Ok(())
}
