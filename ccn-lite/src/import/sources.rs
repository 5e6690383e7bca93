//! Files that messages name, taken from directories the operator points to: hashed while they are copied, kept only when
//! they are what their name says.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aleph_message::ItemHash;

use crate::files::archive::ArchiveError;
use crate::files::cid::Cid;
use crate::files::{Blobs, UploadError, Uploaded};
use crate::kinds::store::GRACE_PERIOD;
use crate::node::Node;
use crate::store::{StoreError, files, now, pending};

const BUFFER: usize = 1 << 18;

/// Why a file that is there is not taken.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    #[error("its bytes do not have this hash")]
    Mismatch,
    #[error(transparent)]
    Upload(#[from] UploadError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("cannot copy it")]
    Io(#[from] io::Error),
}

/// A file that is now among the node's.
#[derive(Debug)]
struct Adopted {
    hash: String,
    size: u64,
    kind: &'static str,
}

/// Directories of files named by their hashes, as one flat directory or as the `files` of another node.
#[derive(Debug)]
pub struct Sources(Vec<PathBuf>);

impl Sources {
    /// Directories, looked at in this order.
    pub fn new(directories: Vec<PathBuf>) -> Self {
        Self(directories)
    }

    /// Makes those of `hashes` known to the node that it does not know and that are found; what is not found is no error.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn adopt(
        self: &std::sync::Arc<Self>,
        node: &Node,
        hashes: Vec<String>,
    ) -> Result<(), StoreError> {
        if self.0.is_empty() || hashes.is_empty() {
            return Ok(());
        }
        let unknown = node
            .store
            .read::<_, StoreError, _>(move |conn| {
                let mut unknown = Vec::new();
                for hash in hashes {
                    if files::get(conn, &hash)?.is_none() {
                        unknown.push(hash);
                    }
                }
                Ok(unknown)
            })
            .await?;
        let (sources, context) = (self.clone(), node.clone());
        let adopted = tokio::task::spawn_blocking(move || {
            let limit = context.config.limits.max_file_bytes;
            unknown
                .into_iter()
                .filter_map(|hash| sources.copy(&context.blobs, hash, limit))
                .collect::<Vec<_>>()
        })
        .await
        .map_err(|_| StoreError::Closed)?;
        if adopted.is_empty() {
            return Ok(());
        }
        node.store
            .write::<_, StoreError, _>(move |conn| {
                let now = now();
                for file in &adopted {
                    files::insert(conn, &file.hash, file.size, file.kind, now)?;
                    files::pin_grace(conn, &file.hash, now, now + GRACE_PERIOD)?;
                    pending::wake(conn, &file.hash, now)?;
                }
                Ok(())
            })
            .await
    }

    /// Copies `hash` from the first directory that has it rightly.
    fn copy(&self, blobs: &Blobs, hash: String, limit: u64) -> Option<Adopted> {
        for directory in &self.0 {
            let nested = Blobs::at(directory);
            let archives = [
                directory.join(format!("{hash}.car")),
                nested.archive_path(&hash),
            ];
            let plain = [directory.join(&hash), nested.path(&hash)];
            // What has an archive is more than its bytes.
            let found = archives
                .into_iter()
                .chain(plain)
                .find(|path| path.is_file());
            let Some(path) = found else { continue };
            match take(blobs, &path, &hash, limit) {
                Ok((size, kind)) => return Some(Adopted { hash, size, kind }),
                Err(error) => {
                    let error = anyhow::Error::new(error);
                    tracing::warn!(path = %path.display(), "not taken: {error:#}");
                }
            }
        }
        None
    }
}

fn upload(blobs: &Blobs, path: &Path, limit: u64, with_cid: bool) -> Result<Uploaded, SourceError> {
    let mut file = File::open(path)?;
    let mut upload = blobs.begin(limit, with_cid)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(upload.finish()?),
            read => upload.write(&buffer[..read])?,
        }
    }
}

/// Bytes and type of what was taken.
fn take(
    blobs: &Blobs,
    path: &Path,
    hash: &str,
    limit: u64,
) -> Result<(u64, &'static str), SourceError> {
    if path.extension().is_some_and(|extension| extension == "car") {
        let imported = blobs.import(&upload(blobs, path, limit, false)?, limit)?;
        if imported.root.to_string() != hash {
            return Err(SourceError::Mismatch);
        }
        let kind = if imported.is_directory {
            "directory"
        } else {
            "file"
        };
        let size = imported.size;
        blobs.publish_imported(imported)?;
        return Ok((size, kind));
    }
    let is_cid = hash.parse().is_ok_and(|hash: ItemHash| !hash.is_storage());
    let uploaded = upload(blobs, path, limit, is_cid)?;
    let fits = uploaded.name() == hash
        || match hash.parse::<Cid>() {
            Ok(cid) => uploaded.has_cid(&cid)?,
            Err(_) => false,
        };
    if !fits {
        return Err(SourceError::Mismatch);
    }
    let size = uploaded.size;
    blobs.publish(uploaded, hash)?;
    Ok((size, "file"))
}
