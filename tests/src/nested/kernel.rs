//! The machine's kernel: Debian's cloud kernel, fetched through the host's own apt and unpacked into the cache,
//! never installed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow, bail};

use crate::testbed::products;

/// Metapackage that depends on the newest cloud kernel of the host's distribution.
const METAPACKAGE: &str = "linux-image-cloud-amd64";

/// An unpacked kernel package.
#[derive(Debug)]
pub struct Kernel {
    /// The bzImage.
    pub image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The newest kernel apt offers; from the cache when it is there. With apt unable to answer, any cached one.
    pub fn fetch() -> anyhow::Result<Kernel> {
        let cache = products::cache().join("nested");
        fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
        let package = match newest_package() {
            Ok(package) => package,
            Err(error) => return any_cached(&cache).ok_or(error),
        };
        let directory = cache.join(&package.key);
        if !directory.is_dir() {
            unpack(&package.name, &cache, &directory)?;
        }
        Kernel::open(&directory)
    }

    fn open(directory: &Path) -> anyhow::Result<Kernel> {
        let image = find(&directory.join("boot"), &|name| {
            name.starts_with("vmlinuz-")
        })
        .with_context(|| format!("no kernel in {}", directory.display()))?;
        // Newer Debian keeps /lib in /usr.
        let modules = ["lib/modules", "usr/lib/modules"]
            .iter()
            .map(|path| directory.join(path))
            .find(|path| path.is_dir())
            .with_context(|| format!("no modules in {}", directory.display()))?;
        Ok(Kernel { image, modules })
    }

    /// The named modules and all they depend on, in the order of loading: name and uncompressed contents.
    pub fn modules(&self, wanted: &[String]) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in wanted {
            self.visit(&normal(name), &mut seen, &mut order)?;
        }
        order
            .into_iter()
            .map(|(name, path)| Ok((name, read_module(&path)?)))
            .collect()
    }

    fn visit(
        &self,
        name: &str,
        seen: &mut BTreeSet<String>,
        order: &mut Vec<(String, PathBuf)>,
    ) -> anyhow::Result<()> {
        if !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let path = find(&self.modules, &|file| {
            file.split_once(".ko")
                .is_some_and(|(stem, _)| normal(stem) == name)
        })
        .with_context(|| format!("the kernel has no module {name}"))?;
        let depends = output(Command::new("modinfo").args(["-F", "depends"]).arg(&path))?;
        for dependency in depends.trim().split(',').filter(|name| !name.is_empty()) {
            self.visit(&normal(dependency), seen, order)?;
        }
        order.push((name.to_owned(), path));
        Ok(())
    }
}

struct Package {
    name: String,
    key: String,
}

fn newest_package() -> anyhow::Result<Package> {
    let depends = output(Command::new("apt-cache").args(["depends", "--important", METAPACKAGE]))?;
    let name = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("apt knows no {METAPACKAGE}; run `apt-get update`"))?
        .to_owned();
    let show = output(Command::new("apt-cache").args(["show", "--no-all-versions", &name]))?;
    let version = show
        .lines()
        .find_map(|line| line.strip_prefix("Version: "))
        .with_context(|| format!("apt shows no version of {name}"))?;
    // Epochs and revisions may carry characters that do not belong in a file name.
    let key = format!("{name}_{version}").replace(
        |c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c),
        "-",
    );
    Ok(Package { name, key })
}

fn any_cached(cache: &Path) -> Option<Kernel> {
    let mut directories: Vec<PathBuf> = fs::read_dir(cache)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    directories.sort();
    directories
        .iter()
        .rev()
        .find_map(|directory| Kernel::open(directory).ok())
}

fn unpack(package: &str, cache: &Path, directory: &Path) -> anyhow::Result<()> {
    // In the cache, so that the finished tree can be renamed into place; two at once do the work twice, harmlessly.
    let work = tempfile::Builder::new()
        .prefix("unpack-")
        .tempdir_in(cache)
        .context("make a working directory")?;
    output(
        Command::new("apt-get")
            .args(["-qq", "download", package])
            .current_dir(work.path()),
    )?;
    let archive = find(work.path(), &|name| name.ends_with(".deb"))
        .with_context(|| format!("apt-get download left no {package}"))?;
    let tree = work.path().join("tree");
    output(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&tree))?;
    match fs::rename(&tree, directory) {
        Err(_) if directory.is_dir() => Ok(()),
        result => result.with_context(|| format!("rename into {}", directory.display())),
    }
}

fn read_module(path: &Path) -> anyhow::Result<Vec<u8>> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => return fs::read(path).with_context(|| format!("read {}", path.display())),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => bail!("{}: unknown compression", path.display()),
    };
    let result = Command::new(tool)
        .arg("-dc")
        .arg(path)
        .output()
        .with_context(|| format!("run {tool}"))?;
    if !result.status.success() {
        bail!("{tool} -dc {}: {}", path.display(), result.status);
    }
    Ok(result.stdout)
}

/// Module names are written with `-` in files and with `_` in the kernel.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn find(directory: &Path, matches: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    for entry in fs::read_dir(directory).ok()?.flatten() {
        let path = entry.path();
        if entry.file_type().ok()?.is_dir() {
            if let Some(found) = find(&path, matches) {
                return Some(found);
            }
        } else if entry.file_name().to_str().is_some_and(matches) {
            return Some(path);
        }
    }
    None
}

/// Standard output of a command that succeeds.
pub(super) fn output(command: &mut Command) -> anyhow::Result<String> {
    let result = command
        .env("LC_ALL", "C")
        .output()
        .with_context(|| format!("run {command:?}"))?;
    if !result.status.success() {
        return Err(anyhow!(
            "{command:?}: {}: {}",
            result.status,
            String::from_utf8_lossy(&result.stderr).trim()
        ));
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}
