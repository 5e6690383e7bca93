//! A number made of everything this program is built from: snapshots of another build are refused by it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let mut files = Vec::new();
    for place in ["src", "../protocol/src", "../../Cargo.lock"] {
        println!("cargo::rerun-if-changed={place}");
        collect(Path::new(place), &mut files)?;
    }
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.hash(&mut hasher);
        fs::read(&file)?.hash(&mut hasher);
    }
    for variable in ["PROFILE", "TARGET", "OPT_LEVEL"] {
        println!("cargo::rerun-if-env-changed={variable}");
        env::var(variable).unwrap_or_default().hash(&mut hasher);
    }
    println!("cargo::rustc-env=CRN_VMM_BUILD={:016x}", hasher.finish());
    Ok(())
}

/// All files in a place that may be one itself.
fn collect(place: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !place.is_dir() {
        files.push(place.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(place)? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}
