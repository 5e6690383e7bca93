//! Pools of the stand-in that plays `crn-vmm` in the machines' own tests.

use std::os::unix::net::UnixStream;

use super::super::tests::{peer_program, root};
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

async fn filled(pool: &Pool) {
    let wait = async {
        while pool.shared.spares().len() < pool.shared.size {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

/// Where pools of this host have their processes' directories and logs.
fn places(host: &tempfile::TempDir) -> [PathBuf; 2] {
    ["run", "state"].map(|name| host.path().join(name))
}

fn left(dir: &Path) -> usize {
    fs::read_dir(dir.join("spare")).unwrap().count()
}

#[tokio::test]
async fn one_that_is_taken_is_a_machines_and_another_comes() {
    if !root("pool::tests::one_that_is_taken_is_a_machines_and_another_comes") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let vmm = peer_program(host.path(), "");
    let [run, state] = places(&host);
    let pool = Pool::open(&vmm, &run, &state, 2).unwrap();
    filled(&pool).await;
    let mut spare = pool.take().unwrap();
    let (machine, disks) = (host.path().join("machine"), host.path().join("disks"));
    for dir in [&machine, &disks] {
        fs::create_dir(dir).unwrap();
    }
    fs::write(disks.join(VMM_LOG), "what it was before\n").unwrap();
    spare.move_to(&machine, &disks).unwrap();
    let (process, control) = spare.into_machine(None).unwrap();
    UnixStream::connect(machine.join(CONTROL_SOCKET)).unwrap();
    assert!(Process::find(&machine).unwrap().is_some());
    assert!(disks.join("vmm.log.old").exists() && disks.join(VMM_LOG).exists());
    filled(&pool).await;
    assert_eq!((left(&run), left(&state)), (2, 2));
    drop((pool, control));
    assert_eq!((left(&run), left(&state)), (0, 0));
    assert!(
        Process::find(&machine).unwrap().is_some(),
        "it is no spare any more"
    );
    process.kill().unwrap();
}

#[tokio::test]
async fn one_that_ends_is_not_given_out_and_is_replaced() {
    if !root("pool::tests::one_that_ends_is_not_given_out_and_is_replaced") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let vmm = peer_program(host.path(), "");
    let [run, state] = places(&host);
    let pool = Pool::open(&vmm, &run, &state, 1).unwrap();
    filled(&pool).await;
    let first = {
        let mut spares = pool.shared.spares();
        let (process, _) = spares[0].alive.as_mut().unwrap();
        process.kill().unwrap();
        while process.runs() {
            std::thread::sleep(Duration::from_millis(1));
        }
        spares[0].dir.clone()
    };
    // Nobody asks for one meanwhile.
    let replaced = async {
        loop {
            let spares = pool.shared.spares().iter().any(|one| one.dir != first);
            if spares {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, replaced).await.unwrap();
    assert!(pool.take().is_some_and(|spare| spare.dir != first));
}

#[tokio::test]
async fn what_a_killed_agent_leaves_the_next_one_ends() {
    if !root("pool::tests::what_a_killed_agent_leaves_the_next_one_ends") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let vmm = peer_program(host.path(), "");
    let [run, state] = places(&host);
    let first = Pool::open(&vmm, &run, &state, 2).unwrap();
    filled(&first).await;
    let dirs: Vec<PathBuf> = first
        .shared
        .spares()
        .iter()
        .map(|spare| spare.dir.clone())
        .collect();
    first.keeper.abort();
    // As an agent does that is killed: nothing is cleared away.
    let forgotten: Vec<Spare> = first.shared.spares().drain(..).collect();
    std::mem::forget(forgotten);
    // One had not been noted yet.
    fs::remove_file(dirs[0].join("vmm.pid")).unwrap();
    let left: Vec<Process> = dirs
        .iter()
        .map(|dir| Process::find(dir).unwrap().unwrap())
        .collect();
    let _second = Pool::open(&vmm, &run, &state, 1).unwrap();
    for mut process in left {
        tokio::time::timeout(PATIENCE, process.ended())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_program_that_cannot_be_started_or_ends_at_once_is_no_spare_and_leaves_nothing() {
    if !root(
        "pool::tests::a_program_that_cannot_be_started_or_ends_at_once_is_no_spare_and_leaves_nothing",
    ) {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let [run, state] = places(&host);
    let ends = peer_program(host.path(), "echo no luck >&2; exit 9");
    for (vmm, reason) in [
        (host.path().join("missing"), "No such file"),
        (ends, "no luck"),
    ] {
        let pool = Pool::open(&vmm, &run, &state, 0).unwrap();
        let error = Spare::make(&pool.shared).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        assert!(pool.take().is_none());
        assert_eq!((left(&run), left(&state)), (0, 0));
    }
}
