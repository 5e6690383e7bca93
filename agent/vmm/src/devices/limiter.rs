//! Rate limits: token buckets for bytes and operations, without timers of their own.
//!
//! A device asks before it starts a request ([`Limiter::admit`]) and is told when to ask again if it has to wait; a
//! [`Wait`] keeps that moment, which the device gives to the event loop as its deadline. Levels are exact: units times nanoseconds, so nothing is lost
//! to rounding however often the bucket is looked at.

use std::time::{Duration, Instant};

use crn_protocol::devices::{Limits, NewLimits, Rate};

const NANOS: i128 = 1_000_000_000;

/// One token bucket.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Units a second, at least 1.
    rate: i128,
    /// Units it holds, at least 1.
    burst: i128,
    /// What is in it, in units × 10⁹; negative after a request larger than the burst.
    level: i128,
    /// When `level` was right.
    at: Instant,
}

impl Bucket {
    fn new(rate: Rate, now: Instant) -> Self {
        let burst = i128::from(rate.burst.max(1));
        Self {
            rate: i128::from(rate.per_second.max(1)),
            burst,
            level: burst * NANOS,
            at: now,
        }
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_nanos();
        let gained = i128::try_from(elapsed)
            .unwrap_or(i128::MAX)
            .saturating_mul(self.rate);
        self.level = self.level.saturating_add(gained).min(self.burst * NANOS);
        self.at = self.at.max(now);
    }

    /// How long until a request of this cost may start; `None` when it may now. A request larger than the burst
    /// waits for a full bucket.
    fn wait(&self, cost: u64) -> Option<Duration> {
        let missing = i128::from(cost).min(self.burst) * NANOS - self.level;
        if missing <= 0 {
            return None;
        }
        // Rounded up: asking a nanosecond too early would mean asking twice.
        let nanos = (missing + self.rate - 1) / self.rate;
        Some(Duration::from_nanos(
            u64::try_from(nanos).unwrap_or(u64::MAX),
        ))
    }
}

/// Limits of one flow.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limiter {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
}

impl Limiter {
    /// With full buckets.
    #[must_use]
    pub fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            bytes: limits.bytes.map(|rate| Bucket::new(rate, now)),
            operations: limits.operations.map(|rate| Bucket::new(rate, now)),
        }
    }

    /// Lets one operation of so many bytes start and pays for it.
    ///
    /// # Errors
    /// When to ask again; nothing has been paid.
    pub fn admit(&mut self, bytes: u64, now: Instant) -> Result<(), Instant> {
        let mut wait = None;
        for (bucket, cost) in [(&mut self.bytes, bytes), (&mut self.operations, 1)] {
            if let Some(bucket) = bucket {
                bucket.refill(now);
                wait = wait.max(bucket.wait(cost));
            }
        }
        if let Some(wait) = wait {
            return Err(later(now, wait));
        }
        for (bucket, cost) in [(&mut self.bytes, bytes), (&mut self.operations, 1)] {
            if let Some(bucket) = bucket {
                bucket.level -= i128::from(cost) * NANOS;
            }
        }
        Ok(())
    }
}

/// Whether the next operation of a flow waits for its limits, and until when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wait(Option<Instant>);

impl Wait {
    /// Lets an operation start, or waits, which is counted in `throttled`.
    #[must_use]
    pub fn admits(
        &mut self,
        limiter: &mut Limiter,
        bytes: u64,
        now: Instant,
        throttled: &mut u64,
    ) -> bool {
        self.0 = limiter.admit(bytes, now).err();
        *throttled += u64::from(self.0.is_some());
        self.0.is_none()
    }

    /// Whether asking again is no use yet.
    #[must_use]
    pub fn is_early(self, now: Instant) -> bool {
        self.0.is_some_and(|until| until > now)
    }

    /// When to ask again; `None` when nothing waits.
    #[must_use]
    pub const fn until(self) -> Option<Instant> {
        self.0
    }

    /// Nothing waits any more.
    pub const fn end(&mut self) {
        self.0 = None;
    }

    /// The limits have changed: what waits asks again now.
    pub fn hurry(&mut self, now: Instant) {
        self.0 = self.0.map(|_| now);
    }
}

/// The one flow of a device, with limits of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Flow {
    limiter: Limiter,
    /// What its next operation waits for.
    pub wait: Wait,
}

impl Flow {
    /// With full buckets.
    #[must_use]
    pub fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            limiter: Limiter::new(limits, now),
            wait: Wait::default(),
        }
    }

    /// As [`Wait::admits`].
    #[must_use]
    pub fn admits(&mut self, bytes: u64, now: Instant, throttled: &mut u64) -> bool {
        self.wait.admits(&mut self.limiter, bytes, now, throttled)
    }

    /// Takes new limits if they are for such a flow; what waited may go on then.
    #[must_use]
    pub fn set(&mut self, limits: &NewLimits, now: Instant) -> bool {
        match limits {
            NewLimits::Transfer(limits) => {
                *self = Self::new(limits, now);
                true
            }
            NewLimits::Nic(_) => false,
        }
    }
}

/// A moment so far away that the clock cannot say it is a day from now: whoever waits asks again then.
fn later(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait)
        .unwrap_or_else(|| now + Duration::from_secs(86_400))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(per_second: u64, burst: u64) -> Limits {
        Limits {
            bytes: Some(Rate { per_second, burst }),
            operations: None,
        }
    }

    proptest! {
        /// Over any window, what was admitted is at most the burst and what the rate adds in it; a request larger
        /// than the burst exceeds that by its excess only.
        #[test]
        fn no_window_exceeds_rate_and_burst(
            rate in 1u64..5_000_000,
            burst in 1u64..1_000_000,
            steps in prop::collection::vec((0u64..400_000_000, 1u64..2_000_000), 1..60),
        ) {
            let start = Instant::now();
            let mut limiter = Limiter::new(&limits(rate, burst), start);
            let mut now = start;
            let mut admitted: Vec<(Duration, u64)> = Vec::new();
            for (pause, cost) in &steps {
                now += Duration::from_nanos(*pause);
                if limiter.admit(*cost, now).is_ok() {
                    admitted.push((now - start, *cost));
                }
            }
            for first in 0..admitted.len() {
                let mut sum = 0u128;
                let mut largest = 0u128;
                for (at, cost) in &admitted[first..] {
                    sum += u128::from(*cost);
                    largest = largest.max(u128::from(*cost));
                    let window = (*at - admitted[first].0).as_nanos();
                    let excess = largest.saturating_sub(u128::from(burst));
                    let allowed = u128::from(burst) + excess + window * u128::from(rate) / 1_000_000_000 + 1;
                    prop_assert!(sum <= allowed, "{sum} in {window} ns, {allowed} allowed");
                }
            }
        }

        /// Whoever asks again when told to is let through, whatever the numbers: no wake-up is lost.
        #[test]
        fn the_moment_told_is_the_moment_it_works(
            rate in 1u64..,
            burst in 1u64..,
            operations in 1u64..1_000_000,
            costs in prop::collection::vec(0u64.., 1..40),
        ) {
            let mut now = Instant::now();
            let limits = Limits {
                bytes: Some(Rate { per_second: rate, burst }),
                operations: Some(Rate { per_second: operations, burst: 1 }),
            };
            let mut limiter = Limiter::new(&limits, now);
            for cost in costs {
                if let Err(later) = limiter.admit(cost, now) {
                    prop_assert!(later > now);
                    if later - now > Duration::from_secs(86_399) {
                        return Ok(());
                    }
                    now = later;
                    prop_assert!(limiter.admit(cost, now).is_ok());
                }
            }
        }

        /// In the long run the rate is used up, not only kept.
        #[test]
        fn the_rate_is_reached(rate in 1_000u64..1_000_000, cost in 1u64..5_000) {
            let start = Instant::now();
            let mut limiter = Limiter::new(&limits(rate, 1_000), start);
            let (mut now, mut sum) = (start, 0u64);
            for _ in 0..200 {
                if let Err(later) = limiter.admit(cost, now) {
                    now = later;
                    prop_assert!(limiter.admit(cost, now).is_ok());
                }
                sum += cost;
            }
            let earned = (now - start).as_nanos() * u128::from(rate) / 1_000_000_000;
            prop_assert!(u128::from(sum) + u128::from(cost) >= earned);
        }
    }

    #[test]
    fn without_limits_nothing_waits() {
        let mut limiter = Limiter::default();
        assert!(limiter.admit(u64::MAX, Instant::now()).is_ok());
    }
}
