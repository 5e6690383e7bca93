//! `crn-image`: packs what the recipes in `images/` assemble.
//!
//! In: a directory made by a recipe (trusted). Out: one image file, written beside its destination and renamed into
//! place when it is complete.
#![forbid(unsafe_code)]

mod squashfs;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Packs the images a node runs.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Packs a directory into a squashfs image (zstd).
    ///
    /// Owners, modes, symbolic links and extended attributes are kept; device nodes, FIFOs and sockets are left out
    /// (each is named on stderr). The same directory gives the same image.
    Squashfs {
        /// The directory that becomes the image's root.
        source: PathBuf,
        /// The image file; replaced when it exists.
        output: PathBuf,
        /// Time stamp of the image and the latest of any file in it, in Unix seconds.
        #[arg(long, env = "SOURCE_DATE_EPOCH", default_value_t = 1_750_000_000)]
        epoch: u32,
    },
}

fn main() -> ExitCode {
    let Command::Squashfs {
        source,
        output,
        epoch,
    } = Cli::parse().command;
    match squashfs::pack(&source, &output, epoch) {
        Ok(packed) => {
            eprintln!(
                "{}: {} files, {} directories, {} links, {:.1} MiB of content in {:.1} MiB",
                output.display(),
                packed.files,
                packed.directories,
                packed.symlinks,
                mebibytes(packed.content_bytes),
                mebibytes(packed.image_bytes),
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprint!("crn-image: {error}");
            let mut cause = error.source();
            while let Some(next) = cause {
                eprint!(": {next}");
                cause = next.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
