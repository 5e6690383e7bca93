//! One file from any of several nodes, resumed where it broke off, hashed while it streams.
//!
//! `partial/<hash>` is what has come so far. It outlives the agent: the next one hashes it again and goes on. It gets its
//! place in the cache only when the hash is the one asked for, so what a crash or a liar left in it is found out.
//!
//! Whoever sends something else than the file is found out too: bytes of several nodes are mixed only until that has gone
//! wrong once, then each node is tried alone. A node that fails is asked again after all that failed less.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter};
use tokio::time::Instant;

use super::hasher::Hasher;
use super::{ATTEMPTS, ContentError, publish};
use crate::intake::ccn::{Ccn, CcnError, Part};

/// Bytes collected before a write.
const BUFFER: usize = 1 << 20;
/// Less than this within [`Limits::stall`], and the next node is asked.
const SLOW: u64 = 64 * 1024;
/// Attempts at one file, whatever came of them: a node that gives a byte a time is not asked for ever.
const MOST_ATTEMPTS: u32 = 1000;

/// What is put up with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The longest file, in bytes.
    pub bytes: u64,
    /// How long a download may stand still, or bring next to nothing.
    pub stall: Duration,
    /// The wait before a node that failed is asked again; doubled after each further failure.
    pub backoff: Duration,
}

/// A download in progress.
pub(super) struct Download<'a> {
    key: &'a str,
    sources: Vec<Source<'a>>,
    limits: Limits,
    path: PathBuf,
    file: BufWriter<File>,
    hasher: Hasher,
    /// How much is in the file, and in the hasher.
    bytes: u64,
    origin: Origin,
    /// No bytes of one node behind those of another.
    alone: bool,
}

struct Source<'a> {
    node: &'a Ccn,
    /// Failures in a row.
    strikes: u32,
    /// What it has said is final.
    out: bool,
}

/// Who sent what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Nobody,
    One(usize),
    /// Several, or an earlier agent's.
    Several,
}

impl<'a> Download<'a> {
    /// Takes up what an earlier attempt left in `directory`.
    ///
    /// # Errors
    /// [`ContentError::Unverifiable`], [`ContentError::Disk`].
    pub async fn open(
        key: &'a str,
        nodes: &'a [Ccn],
        directory: &Path,
        limits: Limits,
    ) -> Result<Self, ContentError> {
        let disk = |source| ContentError::Disk {
            hash: key.to_owned(),
            source,
        };
        let mut hasher = Hasher::for_file(key)?;
        let path = directory.join(key);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .await
            .map_err(disk)?;
        let mut bytes = file.metadata().await.map_err(disk)?.len();
        if bytes > limits.bytes {
            file.set_len(0).await.map_err(disk)?;
            bytes = 0;
        }
        hash_again(&mut file, &mut hasher).await.map_err(disk)?;
        let sources = nodes.iter().map(|node| Source {
            node,
            strikes: 0,
            out: false,
        });
        Ok(Self {
            key,
            sources: sources.collect(),
            limits,
            path,
            file: BufWriter::with_capacity(BUFFER, file),
            hasher,
            bytes,
            origin: if bytes > 0 {
                Origin::Several
            } else {
                Origin::Nobody
            },
            alone: false,
        })
    }

    /// Fetches the file and gives it its name, `target` in `directory`. Returns its length.
    ///
    /// # Errors
    /// [`ContentError`], the last one when no node is left to ask.
    pub async fn run(mut self, target: &Path, directory: &Path) -> Result<u64, ContentError> {
        let mut last = None;
        let mut current = self.sources.len().saturating_sub(1);
        for attempt in 1..=MOST_ATTEMPTS {
            let Some(chosen) = self.choose(current) else {
                break;
            };
            current = chosen;
            let strikes = self.sources[current].strikes;
            if strikes > 0 {
                tokio::time::sleep(self.limits.backoff * 2u32.pow(strikes - 1)).await;
            }
            let before = self.bytes;
            let error = match self.attempt(current).await {
                Ok(()) => {
                    let file = self.file.get_ref();
                    file.sync_all().await.map_err(|source| self.disk(source))?;
                    publish(&self.path, target, directory)
                        .await
                        .map_err(|source| self.disk(source))?;
                    tracing::info!(file = self.key, bytes = self.bytes, "fetched and verified");
                    return Ok(self.bytes);
                }
                Err(error) => error,
            };
            tracing::warn!(file = self.key, attempt, "{}", crate::chain(&error));
            if matches!(error, ContentError::Disk { .. }) {
                // Most often it is full, and this is in the way of what would help.
                let _ = tokio::fs::remove_file(&self.path).await;
                return Err(error);
            }
            self.judge(current, before, &error).await?;
            // That one node lacks the file says less than what another one did.
            if !matches!(error, ContentError::Unknown { .. }) || last.is_none() {
                last = Some(error);
            }
        }
        let unknown = || ContentError::Unknown {
            hash: self.key.to_owned(),
        };
        Err(last.unwrap_or_else(unknown))
    }

    /// The node to ask after `current`: the one that failed least, and the next among equals; when bytes are not mixed,
    /// the one whose bytes they are as long as it goes on.
    fn choose(&self, current: usize) -> Option<usize> {
        if let (true, Origin::One(owner)) = (self.alone, self.origin)
            && self.sources[owner].strikes == 0
        {
            return Some(owner);
        }
        let count = self.sources.len();
        let order = (1..=count).map(|step| (current + step) % count);
        order
            .filter(|at| !self.sources[*at].out)
            .min_by_key(|at| self.sources[*at].strikes)
    }

    /// Draws the consequences of a failure.
    async fn judge(
        &mut self,
        at: usize,
        before: u64,
        error: &ContentError,
    ) -> Result<(), ContentError> {
        let origin = self.origin;
        let wrong = matches!(error, ContentError::Corrupt { .. });
        if wrong {
            self.forget().await?;
        }
        if wrong && origin == Origin::Several {
            // Nobody can say whose bytes were not right.
            self.alone = true;
            return Ok(());
        }
        let source = &mut self.sources[at];
        // A little is not enough to be asked first again.
        if self.bytes > before && !matches!(error, ContentError::Slow { .. }) {
            source.strikes = 0;
            return Ok(());
        }
        source.strikes += 1;
        source.out = source.strikes >= ATTEMPTS || !error.is_transient();
        Ok(())
    }

    /// Begins from nothing.
    async fn forget(&mut self) -> Result<(), ContentError> {
        self.hasher = Hasher::for_file(self.key)?;
        (self.bytes, self.origin) = (0, Origin::Nobody);
        let file = File::create(&self.path)
            .await
            .map_err(|source| self.disk(source))?;
        self.file = BufWriter::with_capacity(BUFFER, file);
        Ok(())
    }

    fn disk(&self, source: io::Error) -> ContentError {
        ContentError::Disk {
            hash: self.key.to_owned(),
            source,
        }
    }

    fn broken(&self, detail: String) -> ContentError {
        ContentError::Broken {
            hash: self.key.to_owned(),
            detail,
        }
    }

    /// Asks one node for what is missing; good when all of it is there and the hash is right.
    async fn attempt(&mut self, at: usize) -> Result<(), ContentError> {
        let own = matches!(self.origin, Origin::One(owner) if owner == at);
        if self.alone && !own && self.bytes > 0 {
            self.forget().await?;
        }
        let hash = || self.key.to_owned();
        let part = match self.sources[at].node.file(self.key, self.bytes).await {
            Ok(part) => part.ok_or_else(|| ContentError::Unknown { hash: hash() })?,
            // There is nothing behind what is here: it may be all of it.
            Err(CcnError::Status { status, .. })
                if status == StatusCode::RANGE_NOT_SATISFIABLE && self.bytes > 0 =>
            {
                self.mix(at);
                return self.verify();
            }
            Err(source) => {
                return Err(ContentError::Fetch {
                    hash: hash(),
                    source,
                });
            }
        };
        if part.total.is_some_and(|total| total > self.limits.bytes) {
            return Err(ContentError::TooLarge {
                hash: hash(),
                limit: self.limits.bytes,
            });
        }
        if part.start > self.bytes {
            return Err(self.broken(format!(
                "byte {} was asked for and {} came",
                self.bytes, part.start
            )));
        }
        self.mix(at);
        let total = part.total;
        let received = self.receive(part).await;
        // What came, came: the next attempt goes on behind it.
        self.file
            .flush()
            .await
            .map_err(|source| self.disk(source))?;
        received?;
        if total.is_some_and(|total| total != self.bytes) {
            return Err(self.broken(format!(
                "{} bytes came of {}",
                self.bytes,
                total.unwrap_or_default()
            )));
        }
        self.verify()
    }

    /// Remembers that one more node has a part in what is there.
    fn mix(&mut self, at: usize) {
        self.origin = match self.origin {
            Origin::Nobody => Origin::One(at),
            Origin::One(owner) if owner == at => Origin::One(at),
            _ => Origin::Several,
        };
    }

    /// Whether what is there is the file.
    fn verify(&mut self) -> Result<(), ContentError> {
        let hasher = std::mem::replace(&mut self.hasher, Hasher::for_file(self.key)?);
        let got = hasher.finish();
        if got == self.key {
            return Ok(());
        }
        Err(ContentError::Corrupt {
            hash: self.key.to_owned(),
            got,
        })
    }

    async fn receive(&mut self, part: Part) -> Result<(), ContentError> {
        // A node that cannot begin in the middle begins at the start.
        let mut skip = self.bytes - part.start;
        let mut body = part.body;
        let (mut since, mut lately) = (Instant::now(), 0u64);
        while let Some(data) = self.next(&mut body).await? {
            lately += data.len() as u64;
            if since.elapsed() >= self.limits.stall {
                if lately < SLOW {
                    return Err(ContentError::Slow {
                        hash: self.key.to_owned(),
                        bytes: lately,
                        during: self.limits.stall,
                    });
                }
                (since, lately) = (Instant::now(), 0);
            }
            let known = usize::try_from(skip).map_or(data.len(), |skip| skip.min(data.len()));
            skip -= known as u64;
            let new = &data[known..];
            if self.bytes + new.len() as u64 > self.limits.bytes {
                return Err(ContentError::TooLarge {
                    hash: self.key.to_owned(),
                    limit: self.limits.bytes,
                });
            }
            // Counted only when it is in both.
            self.file
                .write_all(new)
                .await
                .map_err(|source| self.disk(source))?;
            self.hasher.update(new);
            self.bytes += new.len() as u64;
        }
        if skip > 0 {
            return Err(self.broken(format!("it ended {skip} bytes before what is there")));
        }
        Ok(())
    }

    async fn next(&self, body: &mut Incoming) -> Result<Option<bytes::Bytes>, ContentError> {
        loop {
            match tokio::time::timeout(self.limits.stall, body.frame()).await {
                Err(_) => {
                    let stall = self.limits.stall;
                    return Err(self.broken(format!("nothing came for {stall:?}")));
                }
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(self.broken(crate::chain(&error))),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// Leaves the file's end where the next byte goes.
async fn hash_again(file: &mut File, hasher: &mut Hasher) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = file.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        hasher.update(&buffer[..length]);
    }
}

#[cfg(test)]
mod tests;
