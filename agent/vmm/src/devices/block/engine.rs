//! What carries out a request's steps: io_uring, or blocking calls.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FallocateFlags, fallocate};

use super::slab::Key;
use super::uring::Uring;
use crate::memory::io::{read_at, write_at};
use crate::memory::pieces::Pieces;

/// Steps in flight at most, for one disk.
pub const MAX_IN_FLIGHT: usize = 128;
/// Zeros written by one step on file systems that cannot zero a range themselves.
pub static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// One call for the host's kernel.
#[derive(Debug)]
pub enum Step {
    /// Fill `pieces` from byte `at` on.
    Read {
        /// Bytes.
        at: u64,
        /// Where to.
        pieces: Pieces,
    },
    /// Write `pieces` from byte `at` on.
    Write {
        /// Bytes.
        at: u64,
        /// What.
        pieces: Pieces,
    },
    /// Make everything written durable.
    Sync,
    /// Free a range.
    Punch {
        /// Bytes.
        at: u64,
        /// Bytes.
        length: u64,
        /// It must read as zeros afterwards; else freeing is a favour.
        zero: bool,
    },
    /// Zero a range and keep it allocated.
    Zero {
        /// Bytes.
        at: u64,
        /// Bytes.
        length: u64,
    },
    /// Write zeros into a range, as much at once as [`ZEROS`] has.
    Fill {
        /// Bytes.
        at: u64,
        /// Bytes.
        length: u64,
    },
}

/// What a step's result means.
#[derive(Debug)]
pub enum Outcome {
    /// It is done.
    Done,
    /// There is more to do.
    Again(Step),
    /// It failed.
    Failed(io::Error),
}

impl Step {
    /// fallocate(2)'s mode, for those that are one.
    #[must_use]
    pub const fn fallocate_mode(&self) -> FallocateFlags {
        match self {
            Self::Zero { .. } => FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE),
            _ => FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE),
        }
    }

    /// What follows from the kernel's answer: short transfers go on where they stopped, what is past the file's end
    /// reads as zeros, and a file system that cannot free or zero a range is helped out.
    #[must_use]
    pub fn proceed(self, result: io::Result<usize>) -> Outcome {
        let count = match result {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                return Outcome::Again(self);
            }
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                return match self {
                    Self::Punch { zero: false, .. } => Outcome::Done,
                    Self::Punch { at, length, .. } | Self::Zero { at, length } => {
                        Outcome::Again(Self::Fill { at, length })
                    }
                    _ => Outcome::Failed(error),
                };
            }
            Err(error) => return Outcome::Failed(error),
        };
        match self {
            Self::Sync | Self::Punch { .. } | Self::Zero { .. } => Outcome::Done,
            Self::Read { mut pieces, .. } if count == 0 => {
                pieces.zero();
                Outcome::Done
            }
            Self::Write { .. } | Self::Fill { .. } if count == 0 => {
                Outcome::Failed(io::ErrorKind::WriteZero.into())
            }
            Self::Read { at, mut pieces } => {
                pieces.advance(count);
                if pieces.is_empty() {
                    return Outcome::Done;
                }
                let at = at.saturating_add(count as u64);
                Outcome::Again(Self::Read { at, pieces })
            }
            Self::Write { at, mut pieces } => {
                pieces.advance(count);
                if pieces.is_empty() {
                    return Outcome::Done;
                }
                let at = at.saturating_add(count as u64);
                Outcome::Again(Self::Write { at, pieces })
            }
            Self::Fill { at, length } => match length.saturating_sub(count as u64) {
                0 => Outcome::Done,
                length => Outcome::Again(Self::Fill {
                    at: at.saturating_add(count as u64),
                    length,
                }),
            },
        }
    }

    fn call(&self, file: BorrowedFd<'_>) -> io::Result<usize> {
        match self {
            Self::Read { at, pieces } => read_at(file, &pieces.slices(), *at),
            Self::Write { at, pieces } => write_at(file, &pieces.slices(), *at),
            Self::Sync => Ok(rustix::fs::fdatasync(file).map(|()| 0)?),
            Self::Punch { at, length, .. } | Self::Zero { at, length } => {
                Ok(fallocate(file, self.fallocate_mode(), *at, *length).map(|()| 0)?)
            }
            Self::Fill { at, length } => {
                let count = ZEROS
                    .len()
                    .min(usize::try_from(*length).unwrap_or(usize::MAX));
                Ok(rustix::io::pwrite(file, &ZEROS[..count], *at)?)
            }
        }
    }
}

/// A finished step: whose it was, what it was, and the kernel's answer.
pub type Finished = (Key, Step, io::Result<usize>);

#[derive(Debug)]
enum Kind {
    Uring(Box<Uring>),
    /// Calls are made at once; this is what they came to.
    Blocking(VecDeque<Finished>),
}

/// See the module.
#[derive(Debug)]
pub struct Engine {
    // Before the file: it waits for what is in flight.
    kind: Kind,
    file: File,
}

impl Engine {
    /// The engine the description wants, or the one the host allows.
    ///
    /// # Errors
    /// io_uring's, when nothing else will do.
    pub fn new(file: File, wanted: crn_protocol::devices::Engine) -> io::Result<Self> {
        use crn_protocol::devices::Engine as Wanted;
        if wanted != Wanted::Sync {
            match Uring::new(&file, MAX_IN_FLIGHT) {
                Ok(uring) => {
                    let kind = Kind::Uring(Box::new(uring));
                    return Ok(Self { kind, file });
                }
                Err(error) if wanted == Wanted::IoUring => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "no io_uring: disks are used with blocking calls")
                }
            }
        }
        let kind = Kind::Blocking(VecDeque::new());
        Ok(Self { kind, file })
    }

    /// Whether this is io_uring.
    #[must_use]
    pub const fn is_uring(&self) -> bool {
        matches!(self.kind, Kind::Uring(_))
    }

    /// Ready when steps have finished; `None` for an engine that finishes them at once.
    #[must_use]
    pub fn event(&self) -> Option<BorrowedFd<'_>> {
        match &self.kind {
            Kind::Uring(uring) => Some(uring.event()),
            Kind::Blocking(_) => None,
        }
    }

    /// Begins a step, at the next [`Engine::submit`] at the latest. At most [`MAX_IN_FLIGHT`] are in flight.
    ///
    /// # Errors
    /// The engine is broken.
    pub fn start(&mut self, key: Key, step: Step) -> io::Result<()> {
        match &mut self.kind {
            Kind::Uring(uring) => uring.start(key, step),
            Kind::Blocking(finished) => {
                let result = step.call(self.file.as_fd());
                finished.push_back((key, step, result));
                Ok(())
            }
        }
    }

    /// Hands what has been started to the kernel.
    ///
    /// # Errors
    /// The engine is broken.
    pub fn submit(&mut self) -> io::Result<()> {
        match &mut self.kind {
            Kind::Uring(uring) => uring.submit(),
            Kind::Blocking(_) => Ok(()),
        }
    }

    /// The next finished step.
    pub fn finished(&mut self) -> Option<Finished> {
        match &mut self.kind {
            Kind::Uring(uring) => uring.finished(),
            Kind::Blocking(finished) => finished.pop_front(),
        }
    }

    /// The next finished step, waiting for it; `None` when nothing is in flight.
    pub fn wait(&mut self) -> Option<Finished> {
        match &mut self.kind {
            Kind::Uring(uring) => uring.wait(),
            Kind::Blocking(finished) => finished.pop_front(),
        }
    }

    /// Makes durable what finished steps have written, before it returns.
    ///
    /// # Errors
    /// fdatasync(2)'s.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
