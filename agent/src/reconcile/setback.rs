//! How long a machine that failed waits before it is tried again.

use crate::ledger::{Failure, now_us};

/// The wait after the first failure, in microseconds.
const FIRST_US: i64 = 1_000_000;
/// The longest wait, in microseconds.
const LONGEST_US: i64 = 300_000_000;

/// A failure and whether trying again may help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setback {
    pub(super) reason: String,
    pub(super) transient: bool,
    /// Tried again only so often.
    pub(super) crash: bool,
}

impl Setback {
    pub(super) fn transient(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            transient: true,
            crash: false,
        }
    }

    /// It did not run, or not on: tried again, but not for ever.
    pub(super) fn crash(reason: impl Into<String>) -> Self {
        Self {
            crash: true,
            ..Self::transient(reason)
        }
    }

    /// What is recorded after `attempts` failures in a row, when so many `crashes` are one too many.
    pub(super) fn after(self, attempts: u32, crashes: u32) -> Failure {
        if self.crash && attempts >= crashes {
            return Failure {
                reason: format!(
                    "{} (the last of {attempts} failures in a row: start it again when the cause is gone)",
                    self.reason
                ),
                attempts,
                retry_at: None,
            };
        }
        let retry_at = self.transient.then(|| now_us() + wait_us(attempts));
        Failure {
            reason: self.reason,
            attempts,
            retry_at,
        }
    }
}

fn wait_us(attempts: u32) -> i64 {
    FIRST_US
        .saturating_mul(1i64 << attempts.saturating_sub(1).min(32))
        .min(LONGEST_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes() {
        assert_eq!(
            [1, 2, 3, 9, 10, u32::MAX].map(|n| wait_us(n) / 1_000_000),
            [1, 2, 4, 256, 300, 300]
        );
    }
}
