use std::collections::BTreeMap;

use super::*;
use crate::config::PortRange;

const RANGE: PortRange = PortRange {
    first: 24000,
    last: 24002,
};
const ROOM: Capacity = Capacity {
    memory_mib: 1024,
    vcpus: 4,
    disk_mib: 1000,
    slots: 100,
};

fn hash(digit: char) -> ItemHash {
    digit.to_string().repeat(64).parse().unwrap()
}

fn ledger() -> (tempfile::TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&dir.path().join("agent.sqlite")).unwrap();
    (dir, ledger)
}

fn wish(ports: &[u16]) -> BTreeMap<u16, PortWish> {
    ports
        .iter()
        .map(|port| {
            (
                *port,
                PortWish {
                    tcp: true,
                    udp: false,
                },
            )
        })
        .collect()
}

#[tokio::test]
async fn what_is_wanted_survives_a_restart() {
    let (dir, ledger) = ledger();
    ledger
        .want_running(&hash('a'), Source::Scheduler, false)
        .await
        .unwrap();
    ledger.enter(&hash('a'), &State::Running).await.unwrap();
    drop(ledger);
    let ledger = Ledger::open(&dir.path().join("agent.sqlite")).unwrap();
    let record = ledger.get(&hash('a')).await.unwrap().unwrap();
    assert_eq!(
        (record.desired, record.state),
        (Desired::Running, State::Running)
    );
    assert!(record.times.started.is_some());
}

#[tokio::test]
async fn a_repeated_push_changes_nothing_and_keeps_a_failure() {
    let (_dir, ledger) = ledger();
    ledger
        .want_running(&hash('a'), Source::Scheduler, false)
        .await
        .unwrap();
    let failed = State::Failed(Failure {
        reason: "no".into(),
        attempts: 3,
        retry_at: Some(7),
    });
    ledger.enter(&hash('a'), &failed).await.unwrap();
    assert_eq!(
        ledger
            .want_running(&hash('a'), Source::Scheduler, false)
            .await
            .unwrap()
            .state,
        failed
    );
    assert_eq!(
        ledger
            .want_running(&hash('a'), Source::Notify, true)
            .await
            .unwrap()
            .state,
        State::Defined
    );
}

#[tokio::test]
async fn a_notified_machine_stays_the_owners() {
    let (_dir, ledger) = ledger();
    ledger
        .want_running(&hash('a'), Source::Notify, false)
        .await
        .unwrap();
    assert_eq!(
        ledger
            .want_running(&hash('a'), Source::Scheduler, false)
            .await
            .unwrap()
            .source,
        Source::Notify
    );
}

#[tokio::test]
async fn an_erased_machine_can_be_brought_back_as_new() {
    let (_dir, ledger) = ledger();
    ledger
        .want_running(&hash('a'), Source::Scheduler, false)
        .await
        .unwrap();
    ledger
        .want(&hash('a'), Desired::Erased, true)
        .await
        .unwrap();
    ledger.enter(&hash('a'), &State::Erased).await.unwrap();
    let record = ledger
        .want_running(&hash('a'), Source::Scheduler, false)
        .await
        .unwrap();
    assert_eq!(
        (record.state, record.desired, record.held),
        (State::Defined, Desired::Running, false)
    );
}

#[tokio::test]
async fn admission_is_exact_and_leaves_nothing_behind_when_refused() {
    let (_dir, ledger) = ledger();
    for digit in ['a', 'b', 'c'] {
        ledger
            .want_running(&hash(digit), Source::Scheduler, false)
            .await
            .unwrap();
    }
    let half = Demand {
        memory_mib: 512,
        vcpus: 1,
        disk_mib: 10,
    };
    let first = ledger.admit(&hash('a'), half, ROOM).await.unwrap().unwrap();
    let second = ledger.admit(&hash('b'), half, ROOM).await.unwrap().unwrap();
    assert_eq!((first.slot, second.slot), (4, 5));
    let refusal = ledger
        .admit(
            &hash('c'),
            Demand {
                memory_mib: 1,
                ..half
            },
            ROOM,
        )
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(
        refusal,
        Refusal {
            what: "MiB of memory",
            wanted: 1,
            free: 0
        }
    );
    assert!(
        ledger
            .get(&hash('c'))
            .await
            .unwrap()
            .unwrap()
            .lease
            .is_none()
    );
    // A machine does not compete with itself.
    assert_eq!(
        ledger.admit(&hash('a'), half, ROOM).await.unwrap().unwrap(),
        first
    );
    // A stopped machine keeps its slot and gives its memory back.
    ledger.release_compute(&hash('b')).await.unwrap();
    assert_eq!(
        ledger
            .admit(&hash('c'), half, ROOM)
            .await
            .unwrap()
            .unwrap()
            .slot,
        6
    );
    ledger.release_all(&hash('a')).await.unwrap();
    assert_eq!(
        ledger
            .admit(&hash('b'), half, ROOM)
            .await
            .unwrap()
            .unwrap()
            .slot,
        5
    );
}

/// R16: the machine after the last number took the node down.
#[tokio::test]
async fn when_network_slots_run_out_a_machine_is_refused_and_one_that_is_erased_makes_room() {
    let (_dir, ledger) = ledger();
    for digit in ['a', 'b', 'c'] {
        ledger
            .want_running(&hash(digit), Source::Scheduler, false)
            .await
            .unwrap();
    }
    let small = Demand {
        memory_mib: 1,
        vcpus: 1,
        disk_mib: 1,
    };
    let two = Capacity { slots: 6, ..ROOM };
    let first = ledger.admit(&hash('a'), small, two).await.unwrap().unwrap();
    let _second = ledger.admit(&hash('b'), small, two).await.unwrap().unwrap();
    assert_eq!(
        ledger.admit(&hash('c'), small, two).await.unwrap(),
        Err(Refusal {
            what: "network slots",
            wanted: 1,
            free: 0
        })
    );
    ledger.release_all(&hash('a')).await.unwrap();
    let third = ledger.admit(&hash('c'), small, two).await.unwrap().unwrap();
    assert_eq!(third.slot, first.slot);
}

#[tokio::test]
async fn a_port_keeps_its_number_until_the_machine_is_erased() {
    let (_dir, ledger) = ledger();
    for digit in ['a', 'b'] {
        ledger
            .want_running(&hash(digit), Source::Scheduler, false)
            .await
            .unwrap();
    }
    let host_port = |ports: &[PortMapping], guest| {
        ports
            .iter()
            .find(|p| p.guest_port == guest)
            .unwrap()
            .host_port
    };
    let ports = ledger
        .map_ports(&hash('a'), wish(&[22, 80]), RANGE)
        .await
        .unwrap();
    assert_eq!(
        (host_port(&ports, 22), host_port(&ports, 80)),
        (24000, 24001)
    );
    let ports = ledger
        .map_ports(&hash('a'), wish(&[22]), RANGE)
        .await
        .unwrap();
    assert_eq!(ports.len(), 1);
    assert_eq!(
        host_port(
            &ledger
                .map_ports(&hash('b'), wish(&[22]), RANGE)
                .await
                .unwrap(),
            22
        ),
        24002
    );
    let ports = ledger
        .map_ports(&hash('a'), wish(&[22, 80]), RANGE)
        .await
        .unwrap();
    assert_eq!(host_port(&ports, 80), 24001);
    assert!(
        ledger
            .map_ports(&hash('b'), wish(&[22, 443]), RANGE)
            .await
            .unwrap()
            .len()
            == 1
    );
    ledger.release_all(&hash('a')).await.unwrap();
    assert_eq!(
        ledger
            .map_ports(&hash('b'), wish(&[22, 443]), RANGE)
            .await
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn whoever_changes_port_wishes_all_day_does_not_use_up_everybodys_numbers() {
    let (_dir, ledger) = ledger();
    for digit in ['a', 'b'] {
        ledger
            .want_running(&hash(digit), Source::Scheduler, false)
            .await
            .unwrap();
    }
    let range = PortRange {
        first: 24000,
        last: 24099,
    };
    for port in 1000..1200 {
        let ports = ledger
            .map_ports(&hash('a'), wish(&[22, port]), range)
            .await
            .unwrap();
        assert_eq!(ports.len(), 2, "{port}");
        assert_eq!(ports[0].host_port, 24000);
    }
    let many: Vec<u16> = (1..=20).collect();
    let ports = ledger.map_ports(&hash('b'), wish(&many), range).await;
    assert_eq!(ports.unwrap().len(), 20);
}

const SMALL: Demand = Demand {
    memory_mib: 600,
    vcpus: 1,
    disk_mib: 10,
};

#[tokio::test]
async fn a_reservation_counts_for_all_but_its_sender_and_ends_with_the_admission_it_was_for() {
    let (_dir, ledger) = ledger();
    let reserved = ledger.reserve("0xAA", SMALL, ROOM, RANGE).await.unwrap();
    assert!(reserved.unwrap() > now_us());
    let admits = async |owner: &str| {
        let admitted = ledger.would_admit(owner, SMALL, ROOM).await;
        admitted.unwrap()
    };
    assert!(admits("0xaa").await.is_ok());
    assert_eq!(admits("0xbb").await.unwrap_err().what, "MiB of memory");
    for (vm, owner) in [('a', "0xBB"), ('b', "0xaA")] {
        ledger
            .want_running(&hash(vm), Source::Notify, false)
            .await
            .unwrap();
        ledger
            .describe(
                &hash(vm),
                Kind::Instance,
                owner.into(),
                "credit",
                String::new(),
            )
            .await
            .unwrap();
    }
    let admit = async |vm| ledger.admit(&hash(vm), SMALL, ROOM).await.unwrap();
    assert!(admit('a').await.is_err());
    assert!(admit('b').await.is_ok());
    ledger.release_all(&hash('b')).await.unwrap();
    // What was reserved was used: now the other one fits.
    assert!(admit('a').await.is_ok());
}

#[tokio::test]
async fn a_signed_request_is_used_once_for_as_long_as_it_could_be() {
    let (_dir, ledger) = ledger();
    let use_at = async |now| ledger.use_once([7; 32], 100, now).await.unwrap();
    assert!(use_at(0).await);
    assert!(!use_at(100).await);
    // Stale by then, so whoever checks its time refuses it; nothing is kept for ever.
    assert!(use_at(101).await);
}

#[tokio::test]
async fn events_are_in_order_and_bounded_for_each_machine() {
    let (_dir, ledger) = ledger();
    let mut changes = ledger.changes();
    for vm in ['a', 'b'] {
        ledger
            .want_running(&hash(vm), Source::Scheduler, false)
            .await
            .unwrap();
    }
    ledger.enter(&hash('b'), &State::Fetching).await.unwrap();
    for _ in 0..300 {
        ledger.enter(&hash('a'), &State::Running).await.unwrap();
    }
    assert!(changes.has_changed().unwrap());
    assert_eq!(*changes.borrow_and_update(), 301);
    let all = ledger.events(None, 0, 1000).await.unwrap();
    assert_eq!(all.len(), 201);
    assert_eq!(all[0].vm, hash('b'));
    assert!(all.windows(2).all(|pair| pair[0].id < pair[1].id));
    let of_b = ledger.events(Some(&hash('b')), 0, 1000).await.unwrap();
    assert_eq!((of_b.len(), of_b[0].state.as_str()), (1, "fetching"));
    assert!(ledger.events(None, 301, 10).await.unwrap().is_empty());
}
