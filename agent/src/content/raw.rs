//! Disks out of images: a qcow2 image is converted once, by a program that can do nothing else, and the raw disk kept
//! in the cache beside it as `<hash>.raw`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use super::{ContentError, Temporary};

/// What the name of a converted image ends in.
pub(super) const SUFFIX: &str = ".raw";
/// The first bytes of a qcow2 image.
const QCOW2_MAGIC: &[u8] = b"QFI\xfb";
/// A conversion that takes longer is given up.
const DEADLINE: Duration = Duration::from_secs(1800);
/// Bytes of the program's explanation that are kept.
const MAX_REASON: u64 = 4096;

/// The program, and the longest disk it may make.
#[derive(Debug, Clone)]
pub struct Converter {
    /// `crn-convert`.
    pub program: PathBuf,
    /// Bytes.
    pub max_bytes: u64,
}

/// Whether a published image is a qcow2 image. Never asked of a disk that a guest has written.
///
/// # Errors
/// open(2)'s and read(2)'s.
pub(super) async fn is_qcow2(path: &Path) -> io::Result<bool> {
    let mut magic = Vec::new();
    tokio::fs::File::open(path)
        .await?
        .take(QCOW2_MAGIC.len() as u64)
        .read_to_end(&mut magic)
        .await?;
    Ok(magic == QCOW2_MAGIC)
}

impl Converter {
    /// Makes `target` the disk of the image `hash` in `dir`; returns its length. `target` appears when it is complete.
    pub(super) async fn convert(
        &self,
        dir: &Path,
        hash: &str,
        target: &Path,
    ) -> Result<u64, ContentError> {
        let disk = |source| ContentError::Disk {
            hash: hash.to_owned(),
            source,
        };
        let image = std::fs::File::open(dir.join(hash)).map_err(disk)?;
        let temporary = Temporary(dir.join("tmp").join(format!("{hash}{SUFFIX}")));
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temporary.0)
            .map_err(disk)?;
        let mut child = Command::new(&self.program)
            .args(["--max-size", &self.max_bytes.to_string()])
            .env_clear()
            .stdin(image)
            .stdout(file)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(disk)?;
        let mut reason = String::new();
        let ending = tokio::time::timeout(DEADLINE, async {
            if let Some(errors) = child.stderr.take() {
                errors.take(MAX_REASON).read_to_string(&mut reason).await?;
            }
            child.wait().await
        })
        .await;
        let refused = |reason: String| ContentError::Image {
            hash: hash.to_owned(),
            reason,
        };
        match ending {
            Err(_) => return Err(refused(format!("not converted after {DEADLINE:?}"))),
            Ok(Err(error)) => return Err(disk(error)),
            Ok(Ok(status)) if status.code() == Some(1) => {
                let reason = reason.trim();
                let reason = reason.strip_prefix("crn-convert: ").unwrap_or(reason);
                return Err(refused(reason.to_owned()));
            }
            Ok(Ok(status)) if !status.success() => {
                return Err(refused(format!("the converter ended with {status}")));
            }
            Ok(Ok(_)) => {}
        }
        super::publish(&temporary.0, target, dir)
            .await
            .map_err(disk)?;
        let bytes = tokio::fs::metadata(target).await.map_err(disk)?.len();
        tracing::info!(file = hash, bytes, "converted to a raw disk");
        Ok(bytes)
    }
}
