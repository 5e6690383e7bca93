//! `ccn-lite backup`: a copy of everything, made while the node serves.
//!
//! First the database, then the files it names: those are never changed, only collected when nothing holds them any more.
//! One that is collected in between is left out with a warning. The copy is a data directory of its own: `serve` with it,
//! and the node is back.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::config::Config;
use crate::files::Blobs;
use crate::store::{files, maintain};

/// What to copy and where to.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Configuration file of the node.
    #[arg(long)]
    config: PathBuf,
    /// The copy's directory; made, and must not exist.
    target: PathBuf,
    /// Copy the database and the key only.
    #[arg(long)]
    skip_files: bool,
}

/// Copies the data of a node.
///
/// # Errors
/// When something cannot be read or written; then there is no directory of the given name.
pub fn run(args: &BackupArgs) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    let target = &args.target;
    anyhow::ensure!(!target.exists(), "{} is there already", target.display());
    let parent = match target.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // Under its name only when it is complete.
    let partial = tempfile::Builder::new()
        .prefix(".backup-")
        .tempdir_in(parent)
        .with_context(|| format!("cannot write to {}", parent.display()))?;
    copy(&config.data_dir, partial.path(), !args.skip_files)?;
    let partial = partial.keep();
    fs::rename(&partial, target)
        .with_context(|| format!("cannot name the copy {}", target.display()))?;
    File::open(parent)?.sync_all()?;
    Ok(())
}

fn copy(source: &Path, target: &Path, with_files: bool) -> anyhow::Result<()> {
    let database = target.join("ccn-lite.sqlite");
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(
        "{msg} {wide_bar} {pos}/{len}",
    )?);
    bar.set_message("database");
    let conn = maintain::open(&source.join("ccn-lite.sqlite"))?;
    maintain::backup(&conn, &database, |left, all| {
        bar.set_length(u64::from(all.unsigned_abs()));
        bar.set_position(u64::from((all - left).unsigned_abs()));
    })
    .context("cannot copy the database")?;
    for name in ["node.key", "address"] {
        copy_synced(&source.join(name), &target.join(name))
            .with_context(|| format!("cannot copy {name}"))?;
    }
    if with_files {
        bar.set_message("files");
        copy_files(&maintain::open(&database)?, source, target, &bar)?;
    }
    bar.finish_and_clear();
    for dir in [target, &target.join("files")] {
        match File::open(dir) {
            Ok(dir) => dir.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_files(
    copied: &rusqlite::Connection,
    source: &Path,
    target: &Path,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let from = Blobs::at(&source.join("files"));
    let to = Blobs::at(&target.join("files"));
    let known = files::all(copied)?;
    bar.set_length(known.len() as u64);
    bar.set_position(0);
    let live = maintain::open(&source.join("ccn-lite.sqlite"))?;
    for (hash, _, _) in known {
        let path = to.path(&hash);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut found = false;
        for (from, to) in [
            (from.path(&hash), path),
            (from.archive_path(&hash), to.archive_path(&hash)),
        ] {
            match copy_synced(&from, &to) {
                Ok(()) => found = true,
                // Few files have an archive, and directories are nothing else.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot copy file {hash}"));
                }
            }
        }
        if !found {
            let collected = files::get(&live, &hash)?.is_none();
            anyhow::ensure!(collected, "file {hash} is known and missing");
            tracing::warn!(file = hash, "was collected while the copy was made");
        }
        bar.inc(1);
    }
    Ok(())
}

/// Copies contents and permissions; afterwards they survive power loss.
fn copy_synced(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    File::open(to)?.sync_all()
}
