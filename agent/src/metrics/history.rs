//! What machines use, sampled: the last hour finely, the last day coarsely. In memory: it begins again with the agent.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aleph_message::ItemHash;
use serde::Serialize;

/// Between two samples.
pub const INTERVAL: Duration = Duration::from_secs(15);
/// Samples of the last hour.
const FINE: usize = 240;
/// One fine sample in so many is kept for the day: every five minutes.
const COARSE_EVERY: u64 = 20;
/// Samples of the last day.
const COARSE: usize = 288;

/// Sums since a machine's start, and its memory now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Microseconds of host CPU time, all vCPUs and devices.
    pub cpu_us: u64,
    /// Bytes of host memory, now.
    pub memory_bytes: u64,
    /// Bytes read from its disks.
    pub disk_read_bytes: u64,
    /// Bytes written to its disks.
    pub disk_written_bytes: u64,
    /// Bytes its network cards received.
    pub net_received_bytes: u64,
    /// Bytes its network cards sent.
    pub net_sent_bytes: u64,
}

/// [`Counters`] at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Unix microseconds.
    pub at: i64,
    /// What was counted.
    pub counters: Counters,
}

#[derive(Debug, Default)]
struct Series {
    fine: VecDeque<Sample>,
    coarse: VecDeque<Sample>,
    count: u64,
}

/// All machines' samples; clones share them.
#[derive(Debug, Clone, Default)]
pub struct History {
    series: Arc<Mutex<HashMap<ItemHash, Series>>>,
}

impl History {
    /// Adds a sample.
    pub fn add(&self, hash: &ItemHash, sample: Sample) {
        let mut all = self.lock();
        let series = all.entry(hash.clone()).or_default();
        if series.count.is_multiple_of(COARSE_EVERY) {
            push(&mut series.coarse, sample, COARSE);
        }
        push(&mut series.fine, sample, FINE);
        series.count += 1;
    }

    /// Forgets machines that are not `kept`.
    pub fn retain(&self, kept: impl Fn(&ItemHash) -> bool) {
        self.lock().retain(|hash, _| kept(hash));
    }

    /// A machine's samples at `since` (Unix microseconds) or later, oldest first.
    #[must_use]
    pub fn of(&self, hash: &ItemHash, since: i64) -> Vec<Sample> {
        let all = self.lock();
        let Some(series) = all.get(hash) else {
            return Vec::new();
        };
        let fine_from = series.fine.front().map_or(i64::MAX, |sample| sample.at);
        let coarse = series.coarse.iter().filter(|sample| sample.at < fine_from);
        coarse
            .chain(&series.fine)
            .filter(|sample| sample.at >= since)
            .copied()
            .collect()
    }

    /// Each machine's latest sample.
    #[must_use]
    pub fn latest(&self) -> Vec<(ItemHash, Sample)> {
        let latest =
            |(hash, series): (&ItemHash, &Series)| Some((hash.clone(), *series.fine.back()?));
        self.lock().iter().filter_map(latest).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ItemHash, Series>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push(samples: &mut VecDeque<Sample>, sample: Sample, most: usize) {
    if samples.len() >= most {
        samples.pop_front();
    }
    samples.push_back(sample);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_kept_the_last_hour_of_it_finely_and_no_more() {
        let (history, hash) = (History::default(), ItemHash::of(b"vm"));
        let interval = i64::try_from(INTERVAL.as_micros()).unwrap();
        for number in 0..20_000 {
            let sample = Sample {
                at: number * interval,
                counters: Counters::default(),
            };
            history.add(&hash, sample);
        }
        let all = history.of(&hash, 0);
        assert!(
            all.len() <= FINE + COARSE && all.len() > 450,
            "{}",
            all.len()
        );
        assert!(all.windows(2).all(|pair| pair[0].at < pair[1].at));
        let last = all.last().unwrap().at;
        assert_eq!(last, 19_999 * interval);
        assert!(last - all[0].at >= 22 * 3600 * 1_000_000);
        assert_eq!(history.of(&hash, last).len(), 1);
        assert_eq!(history.latest().len(), 1);
        history.retain(|_| false);
        assert!(history.of(&hash, 0).is_empty());
    }
}
