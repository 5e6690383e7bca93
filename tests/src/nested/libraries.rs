//! Programs of the host and what they need to run elsewhere.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::cpio::Archive;

/// The shared libraries of a program, where it looks for them and where they are; none if it is static.
pub fn shared_libraries(program: &Path) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let result = std::process::Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        .output()
        .context("run ldd")?;
    let text = String::from_utf8_lossy(&result.stdout);
    if !result.status.success() {
        let text = format!("{text}{}", String::from_utf8_lossy(&result.stderr));
        anyhow::ensure!(
            text.contains("not a dynamic executable"),
            "ldd {}: {}",
            program.display(),
            text.trim()
        );
        return Ok(BTreeMap::new());
    }
    let mut libraries = BTreeMap::new();
    for line in text.lines() {
        // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, or `/lib64/ld-linux-x86-64.so.2 (0x…)`.
        let path = line.split_once("=> ").map_or(line, |(_, path)| path).trim();
        anyhow::ensure!(
            !path.starts_with("not found"),
            "{}: {}",
            program.display(),
            line.trim()
        );
        if let Some((path, _)) = path.split_once(" (")
            && path.starts_with('/')
        {
            libraries.insert(path.to_owned(), PathBuf::from(path));
        }
    }
    Ok(libraries)
}

/// Copies a file of the host into the archive.
pub fn add_file<W: Write>(
    archive: &mut Archive<W>,
    guest: &str,
    host: &Path,
) -> anyhow::Result<()> {
    let file = File::open(host).with_context(|| format!("open {}", host.display()))?;
    let size = file.metadata()?.len();
    archive
        .file(guest, size, file)
        .with_context(|| format!("copy {}", host.display()))
}
