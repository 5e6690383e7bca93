//! io_uring: steps are handed to the kernel in batches and finish on their own.
//!
//! A step in flight is owned here, buffers and all, under a key the guest does not know. Nothing that holds one goes
//! away before the kernel is done with it: [`Uring`] waits when it is dropped.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::register::Restriction;
use io_uring::types::{Fixed, FsyncFlags};
use io_uring::{IoUring, Probe, opcode, squeue};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::engine::{Finished, Step, ZEROS};
use super::slab::{Key, Slab};
use crate::fd::of_event;

/// The disk's file, the only registered one.
const FILE: Fixed = Fixed(0);
/// Kernel threads that carry out what would block, of either kind, for one disk.
const WORKERS: u32 = 8;

/// What it is asked to do.
const OPERATIONS: [u8; 5] = [
    opcode::Readv::CODE,
    opcode::Writev::CODE,
    opcode::Write::CODE,
    opcode::Fsync::CODE,
    opcode::Fallocate::CODE,
];

/// See the module.
pub struct Uring {
    ring: IoUring,
    event: EventFd,
    in_flight: Slab<(Key, Step)>,
}

impl Uring {
    /// A ring for one file.
    ///
    /// # Errors
    /// The kernel has no io_uring, forbids it, or lacks an operation.
    pub fn new(file: &File, capacity: usize) -> io::Result<Self> {
        let ring = IoUring::builder()
            .dontfork()
            .setup_r_disabled()
            .build(capacity as u32)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        for code in OPERATIONS {
            if !probe.is_supported(code) {
                return Err(io::ErrorKind::Unsupported.into());
            }
        }
        let event = EventFd::new(EFD_NONBLOCK)?;
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        ring.submitter().register_eventfd(event.as_raw_fd())?;
        // Older kernels have no such bound; the number in flight is bounded anyway.
        let _ = ring
            .submitter()
            .register_iowq_max_workers(&mut [WORKERS, WORKERS]);
        // System call filters do not see what is asked of a ring: it takes these operations on this file only.
        let mut restrictions: Vec<Restriction> =
            OPERATIONS.into_iter().map(Restriction::sqe_op).collect();
        restrictions.push(Restriction::sqe_flags_allowed(
            squeue::Flags::FIXED_FILE.bits(),
        ));
        restrictions.push(Restriction::sqe_flags_required(
            squeue::Flags::FIXED_FILE.bits(),
        ));
        ring.submitter().register_restrictions(&mut restrictions)?;
        ring.submitter().register_enable_rings()?;
        Ok(Self {
            ring,
            event,
            in_flight: Slab::new(capacity),
        })
    }

    /// Counts up when steps finish, and is never read: edges are all the event loop wants.
    #[must_use]
    pub fn event(&self) -> BorrowedFd<'_> {
        of_event(&self.event)
    }

    /// Begins a step at the next submission.
    ///
    /// # Errors
    /// Too many are in flight, or submitting failed.
    pub fn start(&mut self, key: Key, step: Step) -> io::Result<()> {
        if self.ring.submission().is_full() {
            self.submit()?;
        }
        let full = || io::Error::from(io::ErrorKind::ResourceBusy);
        let ours = self.in_flight.insert((key, step)).map_err(|_| full())?;
        let Some((_, step)) = self.in_flight.get_mut(ours) else {
            return Err(full());
        };
        let entry = entry(step).user_data(ours.to_bits());
        // SAFETY: everything the entry points to is owned by the step in `in_flight` (or static) and stays where it is
        // and mapped until `finished` has seen the completion; `Drop` waits for those that are left.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            self.in_flight.remove(ours);
            return Err(full());
        }
        Ok(())
    }

    /// Hands over what has been started.
    ///
    /// # Errors
    /// io_uring_enter(2)'s.
    pub fn submit(&mut self) -> io::Result<()> {
        while !self.ring.submission().is_empty() {
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next finished step.
    pub fn finished(&mut self) -> Option<Finished> {
        loop {
            let completion = self.ring.completion().next()?;
            let result = completion.result();
            let key = Key::from_bits(completion.user_data());
            if let Some((key, step)) = self.in_flight.remove(key) {
                let result = usize::try_from(result)
                    .map_err(|_| io::Error::from_raw_os_error(result.wrapping_neg()));
                return Some((key, step, result));
            }
        }
    }

    /// The next finished step, waiting for it; `None` when none is in flight.
    pub fn wait(&mut self) -> Option<Finished> {
        loop {
            if let Some(finished) = self.finished() {
                return Some(finished);
            }
            if self.in_flight.is_empty() {
                return None;
            }
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // The kernel may still write into what is in flight: it must never be unmapped or reused.
                    tracing::error!(%error, "io_uring fails while requests are in flight");
                    mem::forget(mem::replace(&mut self.in_flight, Slab::new(0)));
                    return None;
                }
            }
        }
    }
}

fn entry(step: &Step) -> squeue::Entry {
    match step {
        Step::Read { at, pieces } => {
            let vectors = pieces.vectors();
            opcode::Readv::new(FILE, vectors.as_ptr(), vectors.len() as u32)
                .offset(*at)
                .build()
        }
        Step::Write { at, pieces } => {
            let vectors = pieces.vectors();
            opcode::Writev::new(FILE, vectors.as_ptr(), vectors.len() as u32)
                .offset(*at)
                .build()
        }
        Step::Sync => opcode::Fsync::new(FILE).flags(FsyncFlags::DATASYNC).build(),
        Step::Punch { at, length, .. } | Step::Zero { at, length } => {
            opcode::Fallocate::new(FILE, *length)
                .offset(*at)
                .mode(step.fallocate_mode().bits().cast_signed())
                .build()
        }
        Step::Fill { at, length } => {
            let count = ZEROS
                .len()
                .min(usize::try_from(*length).unwrap_or(usize::MAX));
            opcode::Write::new(FILE, ZEROS.as_ptr(), count as u32)
                .offset(*at)
                .build()
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        while self.wait().is_some() {}
    }
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Uring")
            .field("in_flight", &self.in_flight.len())
            .finish_non_exhaustive()
    }
}
