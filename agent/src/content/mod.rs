//! The content-addressed cache. A file is hashed while it streams to another name and gets its own only when the hash is
//! the one asked for; nothing else ever stands under that name.
//!
//! `cache/<hash>` are whole files, `cache/<hash>.raw` disks made from them ([`raw`]), `cache/partial/` has what has come of
//! others ([`download`]), `cache/tmp/` is emptied at every start. One download for each hash at a time, whoever asks.
//!
//! A machine that uses a file keeps a hard link to it among its disks ([`Cached::link_into`]), so the file system counts
//! the users, whatever crashes in between. [`Cache::sweep`] takes away what nobody has used for long enough ([`unused`]).

mod download;
mod hasher;
pub mod raw;
mod squashfs;
pub mod unused;

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use aleph_message::ItemHash;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

use self::download::{Download, Limits};
use self::raw::Converter;
use self::unused::{Keep, Unused};
use crate::intake::ccn::CcnError;
use crate::intake::ccns::Ccns;

/// Attempts in a row that brought nothing, of each node, before a failure is reported.
const ATTEMPTS: u32 = 4;
/// The wait after the first failure; doubled after each further one.
const BACKOFF: Duration = Duration::from_millis(500);
/// A download that stands still this long is taken up with the next node.
const STALL: Duration = Duration::from_secs(20);
/// What has come of a file that nobody has asked for since is kept this long.
const PARTIAL: Duration = Duration::from_secs(24 * 3600);

/// A file in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    /// Where it stands; read-only, shared by all that use it.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// While it lives, the file stays.
    hold: Arc<Hold>,
}

/// See [`Cached`].
#[derive(Debug, PartialEq, Eq)]
struct Hold;

impl Cached {
    /// Makes the file stay for as long as `dir` does. Blocks.
    ///
    /// # Errors
    /// link(2)'s.
    pub fn link_into(&self, dir: &Path) -> io::Result<()> {
        let name = self.path.file_name().unwrap_or_default();
        match std::fs::hard_link(&self.path, dir.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }
}

/// Why a file is not in the cache.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The node did not give it.
    #[error("file {hash} cannot be fetched")]
    Fetch {
        /// The file.
        hash: String,
        /// Why.
        #[source]
        source: CcnError,
    },
    /// The node does not have it.
    #[error("file {hash} is not known to the core channel node")]
    Unknown {
        /// The file.
        hash: String,
    },
    /// The stream broke off.
    #[error("the download of file {hash} broke off: {detail}")]
    Broken {
        /// The file.
        hash: String,
        /// Why.
        detail: String,
    },
    /// Next to nothing comes.
    #[error("the download of file {hash} brought {bytes} bytes in {during:?}")]
    Slow {
        /// The file.
        hash: String,
        /// How little.
        bytes: u64,
        /// In how long.
        during: Duration,
    },
    /// What came is something else.
    #[error("what was received as file {hash} is {got}: it is corrupt")]
    Corrupt {
        /// The file.
        hash: String,
        /// The hash of what came.
        got: String,
    },
    /// It is longer than this node takes.
    #[error("file {hash} is longer than {limit} bytes, the most this node takes")]
    TooLarge {
        /// The file.
        hash: String,
        /// The configured limit.
        limit: u64,
    },
    /// Its hash is of a kind this node cannot check.
    #[error("file {hash} cannot be verified by this node: {why}")]
    Unverifiable {
        /// The file.
        hash: String,
        /// What is not supported.
        why: String,
    },
    /// It is a disk image that cannot be used.
    #[error("the disk image {hash} is refused: {reason}")]
    Image {
        /// The file.
        hash: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The cache's own disk failed.
    #[error("file {hash} cannot be stored")]
    Disk {
        /// The file.
        hash: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ContentError {
    /// Whether asking again may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        !matches!(
            self,
            Self::TooLarge { .. } | Self::Unverifiable { .. } | Self::Image { .. }
        )
    }
}

type Flight = Shared<BoxFuture<'static, Result<u64, Arc<ContentError>>>>;

/// The cache; clones share it.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    sources: Ccns,
    converter: Converter,
    limits: Limits,
    flights: Mutex<HashMap<String, Flight>>,
    holds: Mutex<HashMap<String, Weak<Hold>>>,
}

impl Cache {
    /// Opens the cache in `dir` and takes away what an interrupted conversion left. Blocks; meant for the start.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(
        dir: &Path,
        sources: impl Into<Ccns>,
        converter: Converter,
        max_bytes: u64,
    ) -> io::Result<Self> {
        let temporary = dir.join("tmp");
        match std::fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(&temporary)?;
        std::fs::create_dir_all(dir.join("partial"))?;
        let inner = Inner {
            dir: dir.to_owned(),
            sources: sources.into(),
            converter,
            limits: Limits {
                bytes: max_bytes,
                stall: STALL,
                backoff: BACKOFF,
            },
            flights: Mutex::default(),
            holds: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The file with this hash, from the cache or fetched, verified.
    ///
    /// # Errors
    /// [`ContentError`], after the retries that could help. Shared by all that waited for the same file.
    pub async fn get(&self, hash: &ItemHash) -> Result<Cached, Arc<ContentError>> {
        self.entry(hash.to_string()).await
    }

    /// How many bytes of a file that is being fetched are here.
    pub async fn arrived(&self, hash: &ItemHash) -> u64 {
        let name = hash.as_str();
        for path in [
            self.inner.dir.join("partial").join(name),
            self.inner.dir.join(name),
        ] {
            if let Ok(metadata) = tokio::fs::metadata(&path).await {
                return metadata.len();
            }
        }
        0
    }

    /// A file of the cache as a raw disk: itself, or, if it is a qcow2 image, what that was converted to.
    ///
    /// # Errors
    /// [`ContentError::Image`] for an image that is refused.
    pub async fn raw(&self, file: &Cached) -> Result<Cached, Arc<ContentError>> {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        match raw::is_qcow2(&file.path).await {
            Ok(false) => Ok(file.clone()),
            Ok(true) => self.entry(format!("{name}{}", raw::SUFFIX)).await,
            Err(source) => Err(Arc::new(ContentError::Disk {
                hash: name.into_owned(),
                source,
            })),
        }
    }

    /// Whether a file of the cache is a squashfs that a guest can mount.
    ///
    /// # Errors
    /// [`ContentError::Image`] for one that is refused.
    pub async fn squashfs(&self, file: &Cached) -> Result<(), Arc<ContentError>> {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        match squashfs::check(&file.path, file.bytes).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refusal)) => Err(Arc::new(ContentError::Image {
                hash: name.into_owned(),
                reason: refusal.to_string(),
            })),
            Err(source) => Err(Arc::new(ContentError::Disk {
                hash: name.into_owned(),
                source,
            })),
        }
    }

    async fn entry(&self, key: String) -> Result<Cached, Arc<ContentError>> {
        let path = self.inner.dir.join(&key);
        // Before the look: what is held from here on is not swept away after it.
        let hold = self.inner.hold(&key);
        if let Ok(metadata) = tokio::fs::metadata(&path).await {
            return Ok(Cached {
                path,
                bytes: metadata.len(),
                hold,
            });
        }
        let flight = {
            let mut flights = self.inner.flights();
            flights
                .entry(key.clone())
                .or_insert_with(|| Arc::clone(&self.inner).take_off(key))
                .clone()
        };
        let bytes = flight.await?;
        Ok(Cached { path, bytes, hold })
    }

    /// What becomes of each file that no machine has a link to and nobody holds, the longest unused first. Blocks.
    ///
    /// # Errors
    /// What the file system says.
    pub fn unused(&self, keep: Keep) -> io::Result<Vec<Unused>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.inner.dir)? {
            let entry = entry?;
            let (metadata, name) = (entry.metadata()?, entry.file_name());
            let Some(name) = name.to_str() else {
                continue;
            };
            if metadata.is_file() && metadata.nlink() == 1 && !self.inner.is_held(name) {
                found.push((name.to_owned(), metadata.len(), metadata.ctime()));
            }
        }
        Ok(unused::plan(found, keep, unused::now()))
    }

    /// Carries out [`Cache::unused`], of which more may be in use again by now. Returns how many files went. Blocks.
    ///
    /// # Errors
    /// What the file system says; what was not looked at stays until the next time.
    pub fn sweep(&self, keep: Keep) -> io::Result<usize> {
        let mut gone = 0;
        for file in self.unused(keep)?.into_iter().filter(|file| file.goes) {
            let path = self.inner.dir.join(&file.name);
            // Nobody can begin to hold it while it is looked at.
            let mut holds = self.inner.holds();
            holds.retain(|_, hold| hold.strong_count() > 0);
            if !holds.contains_key(&file.name) && std::fs::metadata(&path)?.nlink() == 1 {
                std::fs::remove_file(&path)?;
                tracing::debug!(file = file.name, "gone: {}", file.reason);
                gone += 1;
            }
        }
        self.sweep_partial()?;
        Ok(gone)
    }

    /// Takes away what came of files that nobody has asked for in a long time.
    fn sweep_partial(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(self.inner.dir.join("partial"))? {
            let entry = entry?;
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            let key = entry.file_name();
            let flights = self.inner.flights();
            let wanted = key.to_str().is_some_and(|key| flights.contains_key(key));
            if age > PARTIAL && !wanted {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl Inner {
    fn flights(&self) -> MutexGuard<'_, HashMap<String, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self) -> MutexGuard<'_, HashMap<String, Weak<Hold>>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_held(&self, key: &str) -> bool {
        self.holds()
            .get(key)
            .is_some_and(|hold| hold.strong_count() > 0)
    }

    fn hold(&self, key: &str) -> Arc<Hold> {
        let mut holds = self.holds();
        if let Some(hold) = holds.get(key).and_then(Weak::upgrade) {
            return hold;
        }
        let hold = Arc::new(Hold);
        holds.insert(key.to_owned(), Arc::downgrade(&hold));
        hold
    }

    /// Starts a download that goes on even when nobody waits for it any more.
    fn take_off(self: Arc<Self>, key: String) -> Flight {
        let task = tokio::spawn(async move {
            let result = self.fetch(&key).await.map_err(Arc::new);
            self.flights().remove(&key);
            result
        });
        async move {
            task.await.unwrap_or_else(|error| {
                Err(Arc::new(ContentError::Broken {
                    hash: String::new(),
                    detail: error.to_string(),
                }))
            })
        }
        .boxed()
        .shared()
    }

    async fn fetch(&self, key: &str) -> Result<u64, ContentError> {
        let path = self.dir.join(key);
        // A download may have landed between the caller's look and this one.
        if let Ok(metadata) = tokio::fs::metadata(&path).await {
            return Ok(metadata.len());
        }
        let Some(image) = key.strip_suffix(raw::SUFFIX) else {
            let (nodes, partial) = (self.sources.nodes(), self.dir.join("partial"));
            let download = Download::open(key, nodes, &partial, self.limits).await?;
            return download.run(&path, &self.dir).await;
        };
        let mut attempt = 1;
        loop {
            match self.converter.convert(&self.dir, image, &path).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) if attempt < ATTEMPTS && error.is_transient() => {
                    tracing::warn!(file = key, attempt, "{}", crate::chain(&error));
                    tokio::time::sleep(BACKOFF * 2u32.pow(attempt - 1)).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Gives a file that is durable its name in `dir`, durably.
async fn publish(temporary: &Path, path: &Path, dir: &Path) -> io::Result<()> {
    tokio::fs::rename(temporary, path).await?;
    tokio::fs::File::open(dir).await?.sync_all().await
}

/// A file that goes when it is dropped, unless it was renamed before.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already after the rename; at worst the next start takes it away.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests;
