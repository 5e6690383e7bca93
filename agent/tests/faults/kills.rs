//! Processes killed at random instants, and a full disk.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::host::{Host, SPARES, inside, rounds, run};

/// P1, R3, R4, R21: during starts, stops and downloads.
#[tokio::test]
async fn agents_and_machines_killed_at_random_instants_leave_ledger_host_and_guests_agreeing() {
    if !inside(
        "kills::agents_and_machines_killed_at_random_instants_leave_ledger_host_and_guests_agreeing",
    ) {
        return;
    }
    let mut host = Host::new().await;
    host.start().await;
    host.settle(&BTreeSet::new()).await;
    let mut wanted: BTreeSet<_> = (0..2)
        .map(|n| host.instance(&format!("first {n}"), 1000))
        .collect();
    host.push(&wanted).await;
    host.settle(&wanted).await;
    for round in 0..rounds() {
        let mut random = StdRng::seed_from_u64(round);
        let coming = host.instance(&format!("round {round}"), 3 << 20);
        let going = wanted.iter().next().unwrap().clone();
        wanted.insert(coming);
        host.push(&wanted).await;
        for kill in 0..4 {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
            let machines = host.processes();
            if kill % 2 == 1 && !machines.is_empty() {
                let (pid, name) = &machines[random.random_range(0..machines.len())];
                eprintln!("round {round}: machine {} is killed", &name[..8]);
                let pid = rustix::process::Pid::from_raw(*pid).unwrap();
                // It may be on its way out.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            } else {
                eprintln!("round {round}: the agent is killed");
                host.kill();
                host.start().await;
            }
            if kill == 1 {
                // Stopped, and before it has shut down, gone for good.
                wanted.remove(&going);
                host.push(&wanted).await;
                host.forget(&going);
            }
        }
        host.settle(&wanted).await;
        let root = host.dir.path().join("s/vm");
        for hash in &wanted {
            let disk = std::fs::metadata(root.join(hash.as_str()).join("root.raw")).unwrap();
            assert_eq!(
                (disk.len(), disk.permissions().mode() & 0o777),
                (12 << 20, 0o600)
            );
        }
        eprintln!("round {round}: {} machines, as wanted", wanted.len());
    }
    // An orderly end leaves them running, and the next agent has them.
    let before: BTreeSet<_> = host.processes().into_iter().collect();
    host.tell_to_end();
    let ended = host.agent.take().unwrap().wait().unwrap();
    assert!(ended.success(), "{ended}");
    assert_eq!(
        host.processes().into_iter().collect::<BTreeSet<_>>(),
        before
    );
    host.start().await;
    host.settle(&wanted).await;
    assert_eq!(
        host.processes().into_iter().collect::<BTreeSet<_>>(),
        before
    );

    for hash in &wanted {
        host.forget(hash);
    }
    host.settle(&BTreeSet::new()).await;
    host.assert_nothing_half_fetched();
    // What it holds in reserve ends with an agent that is killed.
    host.wait("monitors in reserve", async |host| host.spares() == SPARES)
        .await;
    host.kill();
    host.wait("none of them outlives the agent", async |host| {
        host.spares() == 0
    })
    .await;
}

/// The image fits, its copy does not: nothing is left of what there was no room for, and it starts when there is.
#[tokio::test]
async fn a_machine_for_which_the_disk_is_full_leaves_nothing_and_starts_when_there_is_room() {
    if !inside(
        "kills::a_machine_for_which_the_disk_is_full_leaves_nothing_and_starts_when_there_is_room",
    ) {
        return;
    }
    let mut host = Host::new().await;
    let state = host.dir.path().join("s");
    run(&format!(
        "mount -t tmpfs -o size=16m none {}",
        state.display()
    ));
    host.start().await;
    let wanted = BTreeSet::from([host.instance("large", 10 << 20)]);
    host.push(&wanted).await;
    let hash = wanted.iter().next().unwrap();
    host.wait_for_failure(hash, "No space left").await;
    assert_eq!(host.processes(), []);
    assert!(
        !state
            .join("vm")
            .join(hash.as_str())
            .join("root.raw")
            .exists()
    );
    run(&format!("mount -o remount,size=64m {}", state.display()));
    host.settle(&wanted).await;
    host.forget(hash);
    host.settle(&BTreeSet::new()).await;
}
