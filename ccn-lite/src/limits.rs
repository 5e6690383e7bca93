//! What one sender, a wrong clock or a full disk may not do to everybody else.
//!
//! Rates are token buckets in memory: they are there to keep the node usable, not to remember anybody. Reads are never
//! limited.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aleph_message::Rejection;

use crate::config::Limits;

/// Senders remembered at once; beyond that those with full buckets are forgotten, which changes nothing for them.
const MAX_SENDERS: usize = 65_536;
/// How long the free space of the disk is believed.
const DISK_CHECK: Duration = Duration::from_millis(200);

/// Why nothing is taken now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Limited {
    /// Too many messages of one sender.
    #[error(
        "too many messages from {sender}: at most {per_minute} a minute, try again in {retry_after} s"
    )]
    Messages {
        /// The sender.
        sender: String,
        /// The limit.
        per_minute: u32,
        /// Seconds.
        retry_after: u64,
    },
    /// Too many bytes of one sender.
    #[error(
        "too many bytes from {sender}: at most {per_minute} a minute, try again in {retry_after} s"
    )]
    Bytes {
        /// The sender.
        sender: String,
        /// The limit.
        per_minute: u64,
        /// Seconds.
        retry_after: u64,
    },
    /// The disk is nearly full.
    #[error(
        "the node's disk is nearly full: {free} bytes are free, new data is taken from {needed} bytes on"
    )]
    Disk {
        /// Bytes free.
        free: u64,
        /// Bytes that must be free.
        needed: u64,
    },
}

/// A bucket of messages and one of bytes.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    messages: f64,
    bytes: f64,
    filled: Instant,
}

/// The limits of a running node.
#[derive(Debug)]
pub struct Guard {
    limits: Limits,
    data_dir: PathBuf,
    started: Instant,
    senders: Mutex<HashMap<String, Allowance>>,
    /// Free bytes as last seen.
    free: AtomicU64,
    /// Milliseconds after `started` at which they were seen, plus one; 0 is never.
    seen: AtomicU64,
}

impl Guard {
    /// Limits for a node whose data stand in `data_dir`.
    pub fn new(limits: Limits, data_dir: PathBuf) -> Self {
        Self {
            limits,
            data_dir,
            started: Instant::now(),
            senders: Mutex::default(),
            free: AtomicU64::new(0),
            seen: AtomicU64::new(0),
        }
    }

    /// Lets a message of `bytes` from `sender` in.
    ///
    /// # Errors
    /// When the sender is too fast or the disk too full.
    pub fn admit(&self, sender: &str, bytes: u64) -> Result<(), Limited> {
        self.check_disk()?;
        self.admit_at(sender, 1, bytes, Instant::now())
    }

    /// Lets a file of `bytes` that comes with a message from `sender` in.
    ///
    /// # Errors
    /// When the sender is too fast or the disk too full.
    pub fn admit_file(&self, sender: &str, bytes: u64) -> Result<(), Limited> {
        self.check_disk()?;
        self.admit_at(sender, 0, bytes, Instant::now())
    }

    fn admit_at(
        &self,
        sender: &str,
        messages: u32,
        bytes: u64,
        now: Instant,
    ) -> Result<(), Limited> {
        let per_minute = (
            self.limits.messages_per_minute,
            self.limits.bytes_per_minute,
        );
        if per_minute == (0, 0) {
            return Ok(());
        }
        let full = Allowance {
            messages: f64::from(per_minute.0),
            bytes: per_minute.1 as f64,
            filled: now,
        };
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        if senders.len() >= MAX_SENDERS && !senders.contains_key(sender) {
            senders.retain(|_, allowance| {
                let refilled = allowance.refilled(&full, now);
                refilled.messages < full.messages || refilled.bytes < full.bytes
            });
            if senders.len() >= MAX_SENDERS {
                // So many at once are busy that remembering them costs more than it protects.
                senders.clear();
            }
        }
        let allowance = senders.entry(sender.to_owned()).or_insert(full);
        let mut after = allowance.refilled(&full, now);
        after.messages -= f64::from(messages);
        after.bytes -= bytes as f64;
        let wait = |missing: f64, rate: f64| (missing * 60.0 / rate).ceil() as u64;
        if per_minute.0 > 0 && after.messages < 0.0 {
            return Err(Limited::Messages {
                sender: sender.to_owned(),
                per_minute: per_minute.0,
                retry_after: wait(-after.messages, full.messages),
            });
        }
        // One message beyond the whole allowance may still come when nothing else did: the debt is worked off.
        let fits = after.bytes >= 0.0 || after.bytes + bytes as f64 >= full.bytes;
        if per_minute.1 > 0 && !fits {
            return Err(Limited::Bytes {
                sender: sender.to_owned(),
                per_minute: per_minute.1,
                retry_after: wait(-after.bytes, full.bytes),
            });
        }
        *allowance = after;
        Ok(())
    }

    /// Refuses when less than the watermark is free. The disk is looked at a few times a second at most.
    ///
    /// # Errors
    /// [`Limited::Disk`].
    pub fn check_disk(&self) -> Result<(), Limited> {
        let needed = self.limits.min_free_disk_bytes;
        if needed == 0 {
            return Ok(());
        }
        let elapsed = self.started.elapsed().as_millis();
        let now = u64::try_from(elapsed).unwrap_or(u64::MAX).saturating_add(1);
        let seen = self.seen.load(Ordering::Acquire);
        if seen == 0 || u128::from(now - seen.min(now)) >= DISK_CHECK.as_millis() {
            match rustix::fs::statvfs(&self.data_dir) {
                Ok(disk) => {
                    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
                    self.free.store(free, Ordering::Release);
                    self.seen.store(now, Ordering::Release);
                }
                // What cannot be seen is not refused; writing will tell.
                Err(error) => {
                    tracing::warn!(%error, "cannot see how full the disk is");
                    return Ok(());
                }
            }
        }
        let free = self.free.load(Ordering::Acquire);
        if free < needed {
            return Err(Limited::Disk { free, needed });
        }
        Ok(())
    }

    /// Refuses messages from the future.
    ///
    /// # Errors
    /// `INVALID_FORMAT`.
    pub fn check_clock(&self, time: f64, now: f64) -> Result<(), Rejection> {
        let skew = f64::from(self.limits.max_clock_skew_seconds);
        if time > now + skew {
            return Err(Rejection::invalid_format(format!(
                "time: {time} is more than {skew} seconds ahead of this node's clock, {now:.3}"
            )));
        }
        Ok(())
    }
}

impl Allowance {
    fn refilled(&self, full: &Self, now: Instant) -> Self {
        let minutes = now.saturating_duration_since(self.filled).as_secs_f64() / 60.0;
        Self {
            messages: (self.messages + full.messages * minutes).min(full.messages),
            bytes: (self.bytes + full.bytes * minutes).min(full.bytes),
            filled: now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(messages: u32, bytes: u64) -> Guard {
        let limits = Limits {
            messages_per_minute: messages,
            bytes_per_minute: bytes,
            ..Limits::default()
        };
        Guard::new(limits, "/".into())
    }

    #[test]
    fn a_sender_who_is_too_fast_waits_and_others_do_not() {
        let guard = guard(60, 0);
        let start = Instant::now();
        for _ in 0..60 {
            assert_eq!(guard.admit_at("a", 1, 1, start), Ok(()));
        }
        let refused = guard.admit_at("a", 1, 1, start).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "too many messages from a: at most 60 a minute, try again in 1 s"
        );
        assert_eq!(guard.admit_at("b", 1, 1, start), Ok(()));
        assert_eq!(
            guard.admit_at("a", 1, 1, start + Duration::from_secs(1)),
            Ok(())
        );
        assert!(
            guard
                .admit_at("a", 1, 1, start + Duration::from_secs(1))
                .is_err()
        );
    }

    #[test]
    fn bytes_are_counted_and_a_large_file_is_taken_once() {
        let guard = guard(0, 600);
        let start = Instant::now();
        assert_eq!(guard.admit_at("a", 1, 5000, start), Ok(()));
        let refused = guard.admit_at("a", 1, 1, start).unwrap_err();
        assert!(
            matches!(
                refused,
                Limited::Bytes {
                    retry_after: 441,
                    ..
                }
            ),
            "{refused:?}"
        );
        assert_eq!(
            guard.admit_at("a", 1, 1, start + Duration::from_secs(441)),
            Ok(())
        );
    }

    #[test]
    fn many_senders_do_not_fill_the_memory() {
        let guard = guard(60, 0);
        let start = Instant::now();
        for sender in 0..=MAX_SENDERS {
            let _ = guard.admit_at(&sender.to_string(), 1, 1, start);
        }
        assert!(guard.senders.lock().unwrap().len() <= MAX_SENDERS);
    }

    #[test]
    fn a_disk_without_the_space_asked_for_is_named_full() {
        let mut limits = Limits {
            min_free_disk_bytes: 1,
            ..Limits::default()
        };
        assert_eq!(Guard::new(limits.clone(), "/".into()).check_disk(), Ok(()));
        limits.min_free_disk_bytes = u64::MAX;
        let refused = Guard::new(limits, "/".into()).admit("a", 1).unwrap_err();
        assert!(
            refused.to_string().contains("disk is nearly full"),
            "{refused}"
        );
    }

    #[test]
    fn a_message_from_the_future_is_refused_beyond_the_skew() {
        let guard = guard(0, 0);
        let day = 24.0 * 3600.0;
        assert!(guard.check_clock(1000.0 + day, 1000.0).is_ok());
        let refused = guard.check_clock(1001.0 + day, 1000.0).unwrap_err();
        assert!(
            refused.reason().starts_with("time: "),
            "{}",
            refused.reason()
        );
    }
}
