//! Which stopped machines are erased, and why: a pure decision, so that it can be shown before it is carried out.
//!
//! A machine that runs, is to run, or may be tried again holds its leases. Of those that are stopped, a program that was
//! only started by requests can be made again from its messages, so it goes after its retention, and sooner when room
//! is short; one that was stopped by its owner or by the scheduler may hold data, so it goes only after a retention of
//! its own that the operator sets. The files of the cache go with the last machine that uses them.

use aleph_message::ItemHash;

use crate::config::Retention;
use crate::ledger::{Capacity, Desired, Kind, Record, Source, State};

const HOUR_US: i64 = 3600 * 1_000_000;

/// What becomes of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The machine.
    pub vm: ItemHash,
    /// Whether it is erased.
    pub goes: bool,
    /// Why, or why not.
    pub reason: String,
    /// MiB of disk it holds.
    pub disk_mib: u64,
}

/// Decides about every machine that is not erased, at `now` (Unix microseconds).
#[must_use]
pub fn plan(
    records: &[Record],
    capacity: Capacity,
    retention: &Retention,
    now: i64,
) -> Vec<Decision> {
    let mut decisions: Vec<(i64, bool, Decision)> = records
        .iter()
        .filter(|record| record.state != State::Erased)
        .map(|record| decide(record, retention, now))
        .collect();
    // Short: less than the quota is left of slots, or of disk.
    let leases = records.iter().filter_map(|record| record.lease);
    let (mut slots, mut disk) = (0u64, 0u64);
    for lease in leases {
        slots += 1;
        disk = disk.saturating_add(lease.disk_mib);
    }
    let share = |all: u64| all.saturating_mul(u64::from(retention.program_quota_percent)) / 100;
    let mut over_slots = slots.saturating_sub(share(u64::from(capacity.slots)));
    let mut over_disk = disk.saturating_sub(share(capacity.disk_mib));
    decisions.sort_by_key(|(since, _, decision)| (*since, decision.vm.clone()));
    for (_, again, decision) in &mut decisions {
        if decision.goes {
            over_slots = over_slots.saturating_sub(1);
            over_disk = over_disk.saturating_sub(decision.disk_mib);
        } else if *again && (over_slots > 0 || (over_disk > 0 && decision.disk_mib > 0)) {
            decision.goes = true;
            decision.reason = format!(
                "room is short ({over_slots} slots, {over_disk} MiB over the quota) and it is the longest unused \
                 program that can be made again"
            );
            over_slots = over_slots.saturating_sub(1);
            over_disk = over_disk.saturating_sub(decision.disk_mib);
        }
    }
    decisions
        .into_iter()
        .map(|(_, _, decision)| decision)
        .collect()
}

/// Since when it is unused, whether it can be made again, and what becomes of it.
fn decide(record: &Record, retention: &Retention, now: i64) -> (i64, bool, Decision) {
    let since = record.times.stopped.unwrap_or(record.times.defined);
    let disk_mib = record.lease.map_or(0, |lease| lease.disk_mib);
    let decision = |goes, reason: String| Decision {
        vm: record.hash.clone(),
        goes,
        reason,
        disk_mib,
    };
    let stands = matches!(
        record.state,
        State::Stopped | State::Failed(_) | State::Defined
    );
    if record.desired != Desired::Stopped || !stands {
        let reason = format!(
            "it is {} and wanted {}",
            record.state.word(),
            record.desired
        );
        return (since, false, decision(false, reason));
    }
    let again = record.source == Source::Request
        && record.kind != Some(Kind::Instance)
        && !record.held
        && disk_mib == 0;
    let (hours, what) = if again {
        (Some(retention.program_hours), "retention.program_hours")
    } else {
        (retention.stopped_hours, "retention.stopped_hours")
    };
    let unused = now.saturating_sub(since).max(0) / HOUR_US;
    let outcome = match hours {
        None => decision(
            false,
            format!("it may hold data, and {what} is not set: it stays until it is erased"),
        ),
        Some(hours) if unused >= i64::from(hours) => decision(
            true,
            format!("unused for {unused} hours, {what} is {hours}"),
        ),
        Some(hours) => decision(
            false,
            format!("unused for {unused} hours, it stays for {hours} ({what})"),
        ),
    };
    (since, again, outcome)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::{Failure, Lease, Times};

    const CAPACITY: Capacity = Capacity {
        memory_mib: 1000,
        vcpus: 8,
        disk_mib: 1000,
        slots: 100,
    };

    fn record(name: u8, source: Source, desired: Desired, state: State, disk_mib: u64) -> Record {
        Record {
            hash: ItemHash::of(&[name]),
            source,
            desired,
            held: false,
            state,
            kind: Some(Kind::Microvm),
            owner: None,
            payment: None,
            message: None,
            guest: None,
            times: Times {
                defined: 0,
                stopped: Some(0),
                ..Times::default()
            },
            secluded: false,
            lease: Some(Lease {
                slot: u16::from(name),
                memory_mib: 0,
                vcpus: 0,
                disk_mib,
            }),
            ports: Vec::new(),
            wipe: None,
            expires: None,
        }
    }

    fn goes(record: Record, retention: &Retention, hours: i64) -> bool {
        plan(&[record], CAPACITY, retention, hours * HOUR_US)[0].goes
    }

    #[test]
    fn an_unused_program_goes_after_its_retention_and_data_only_when_the_operator_says_so() {
        let retention = Retention::default();
        let program = || record(1, Source::Request, Desired::Stopped, State::Stopped, 0);
        assert!(!goes(program(), &retention, 23) && goes(program(), &retention, 24));
        let with_data = || record(1, Source::Request, Desired::Stopped, State::Stopped, 5);
        assert!(!goes(with_data(), &retention, 100_000));
        let instance = || record(1, Source::Scheduler, Desired::Stopped, State::Stopped, 5);
        assert!(!goes(instance(), &retention, 100_000));
        let week = Retention {
            stopped_hours: Some(168),
            ..Retention::default()
        };
        assert!(!goes(instance(), &week, 167) && goes(instance(), &week, 168));
    }

    #[test]
    fn when_room_is_short_the_longest_unused_programs_go_first_and_no_more_than_needed() {
        let records: Vec<_> = (0..95)
            .map(|name| {
                let mut record = record(name, Source::Request, Desired::Stopped, State::Stopped, 0);
                record.times.stopped = Some(i64::from(name));
                record
            })
            .collect();
        let decisions = plan(&records, CAPACITY, &Retention::default(), HOUR_US);
        let gone: Vec<_> = decisions
            .iter()
            .filter(|d| d.goes)
            .map(|d| d.vm.clone())
            .collect();
        let oldest: Vec<_> = (0..5u8).map(|name| ItemHash::of(&[name])).collect();
        assert_eq!(gone, oldest);
        assert!(decisions[0].reason.contains("room is short"));
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let source = prop::sample::select(vec![Source::Request, Source::Scheduler, Source::Notify]);
        let desired =
            prop::sample::select(vec![Desired::Running, Desired::Stopped, Desired::Erased]);
        let failed = State::Failed(Failure {
            reason: String::new(),
            attempts: 1,
            retry_at: None,
        });
        let state = prop::sample::select(vec![
            State::Defined,
            State::Fetching,
            State::Starting,
            State::Running,
            State::Stopping,
            State::Stopped,
            failed,
        ]);
        (any::<u8>(), source, desired, state, 0u64..2000).prop_map(
            |(name, source, desired, state, disk)| record(name, source, desired, state, disk),
        )
    }

    proptest! {
        #[test]
        fn nothing_wanted_or_running_ever_goes_nor_data_without_a_retention(
            records in prop::collection::vec(any_record(), 0..150), now in 0i64..i64::MAX,
        ) {
            for decision in plan(&records, CAPACITY, &Retention::default(), now) {
                let goes = decision.goes;
                let all = records.iter().filter(|record| record.hash == decision.vm);
                for record in all.filter(|record| record.lease.unwrap().disk_mib == decision.disk_mib && goes) {
                    let same: Vec<_> = records.iter().filter(|other| other.hash == record.hash).collect();
                    prop_assert!(same.len() > 1 || (record.desired == Desired::Stopped && record.source == Source::Request && decision.disk_mib == 0));
                }
                prop_assert!(!decision.reason.is_empty());
            }
        }
    }
}
