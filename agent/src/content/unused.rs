//! Which files of the cache go that no machine uses: a pure decision, so that it can be shown before it is carried out.

use std::time::{SystemTime, UNIX_EPOCH};

const HOUR: i64 = 3600;

/// How long, and how much of it, what nobody uses is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Hours since the last use.
    pub hours: u32,
    /// MiB of all such files together.
    pub mib: u64,
}

impl Keep {
    /// Nothing.
    pub const NOTHING: Self = Self { hours: 0, mib: 0 };
}

/// What becomes of a file that nobody uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    /// Its name in the cache: the hash of its content, with `.raw` behind it if it was made from that.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Whether it goes.
    pub goes: bool,
    /// Why, or why not.
    pub reason: String,
}

/// Decides about files of a name, a length and the time since which nobody uses them (Unix seconds: when their last
/// other link went, which is when their inode changed last), at `now`. The longest unused come first.
#[must_use]
pub fn plan(mut files: Vec<(String, u64, i64)>, keep: Keep, now: i64) -> Vec<Unused> {
    files.sort_by(|a, b| (a.2, &a.0).cmp(&(b.2, &b.0)));
    let quota = keep.mib.saturating_mul(1 << 20);
    let mut left = files
        .iter()
        .fold(0u64, |sum, (_, bytes, _)| sum.saturating_add(*bytes));
    let decide = |(name, bytes, since): (String, u64, i64)| {
        let hours = now.saturating_sub(since).max(0) / HOUR;
        let (goes, reason) = if hours >= i64::from(keep.hours) {
            let hours_kept = keep.hours;
            (
                true,
                format!("unused for {hours} hours, retention.cache_hours is {hours_kept}"),
            )
        } else if left > quota {
            let over = (left - quota).div_ceil(1 << 20);
            (
                true,
                format!(
                    "unused files are {over} MiB over retention.cache_mib ({}) and it is the longest unused",
                    keep.mib
                ),
            )
        } else {
            (
                false,
                format!(
                    "unused for {hours} hours, it stays for {} (retention.cache_hours)",
                    keep.hours
                ),
            )
        };
        if goes {
            left = left.saturating_sub(bytes);
        }
        Unused {
            name,
            bytes,
            goes,
            reason,
        }
    };
    files.into_iter().map(decide).collect()
}

/// Unix seconds.
pub(super) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn file(name: &str, mib: u64, since: i64) -> (String, u64, i64) {
        (name.to_owned(), mib * MIB, since)
    }

    #[test]
    fn a_file_goes_when_it_is_old_or_the_oldest_of_too_many() {
        let files = vec![
            file("young", 4, 90 * HOUR),
            file("old", 1, 10 * HOUR),
            file("older", 3, 50 * HOUR),
        ];
        let keep = Keep { hours: 72, mib: 6 };
        let plan = plan(files, keep, 100 * HOUR);
        let shown: Vec<_> = plan.iter().map(|f| (f.name.as_str(), f.goes)).collect();
        assert_eq!(shown, [("old", true), ("older", true), ("young", false)]);
        assert_eq!(
            plan[0].reason,
            "unused for 90 hours, retention.cache_hours is 72"
        );
        assert!(
            plan[1]
                .reason
                .contains("1 MiB over retention.cache_mib (6)")
        );
        assert!(plan[2].reason.contains("it stays for 72"));
    }

    proptest! {
        #[test]
        fn what_stays_is_within_age_and_quota_and_no_younger_file_goes_before_an_older(
            files in prop::collection::vec(("[a-z]{3}", 0u64..100, 0i64..1000), 0..40),
            hours in 0u32..500, mib in 0u64..500, now in 0i64..2000,
        ) {
            let files: Vec<_> = files.into_iter().map(|(n, m, s)| file(&n, m, s * HOUR)).collect();
            let count = files.len();
            let plan = plan(files, Keep { hours, mib }, now * HOUR);
            prop_assert_eq!(plan.len(), count);
            let stays: u64 = plan.iter().filter(|f| !f.goes).map(|f| f.bytes).sum();
            prop_assert!(stays <= mib * MIB);
            let first_kept = plan.iter().position(|f| !f.goes).unwrap_or(count);
            prop_assert!(plan[first_kept..].iter().all(|f| !f.goes));
        }
    }
}
