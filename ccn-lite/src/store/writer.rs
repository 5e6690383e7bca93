//! The one thread that writes.
//!
//! It takes all jobs that wait, runs them in one transaction and commits once, so concurrent clients share the cost of an
//! fsync, and each learns its result only after the commit. To each of them it is still all or nothing. A savepoint
//! around each job sees to that, which copies every page the job changes; so jobs that can be run again are first run
//! without, and all of them once more, each in its savepoint, when one of them fails.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::StoreError;

/// Jobs committed together at most.
const BATCH: usize = 64;
/// Longest wait for the next of those who were answered a moment ago and usually come back: less than an fsync takes.
const GATHER: Duration = Duration::from_millis(1);
/// Longest wait for all of them.
const PATIENCE: Duration = Duration::from_millis(5);
/// How often is looked whether they have.
const LOOK: Duration = Duration::from_micros(250);

/// Why a transaction failed, for everybody whose job was in it.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    reason: String,
    is_full: bool,
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self {
            is_full: error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            reason: error.to_string(),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        if failure.is_full {
            Self::DiskFull
        } else {
            Self::Commit(failure.reason)
        }
    }
}

type Committed = Result<(), Failure>;
type Done = Box<dyn FnOnce(Committed) + Send>;

type Step = Box<dyn FnOnce(&Connection) -> (bool, Done) + Send>;

/// A job that runs once: whether what it wrote stays, and what to tell its caller.
pub(super) struct Once(Step);

/// A job that may be run again.
pub(super) trait Again: Send {
    /// Runs it; whether what it wrote stays.
    fn run(&mut self, conn: &Connection, guard: Guard) -> bool;
    /// Tells its caller the result of the last run.
    fn done(self: Box<Self>, committed: Committed);
}

/// What the writer is asked to do.
pub(super) enum Job {
    /// Something that runs once.
    Once(Once),
    /// Something that may be run again.
    Repeatable(Box<dyn Again>),
}

/// Whether a job that can be run again must undo what it gives up itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// No: its `Err` undoes everything, and it is run again.
    Off,
    /// Yes.
    On,
}

impl Guard {
    /// Runs `step` so that its `Err` undoes only what it wrote. Without a guard the whole job must end with that `Err`.
    pub fn nested<T, E: From<StoreError>>(
        self,
        conn: &Connection,
        step: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        match self {
            Self::Off => step(conn),
            Self::On => savepoint(conn, |conn| {
                let result = step(conn);
                (result.is_ok(), result)
            })
            .map_err(StoreError::from)?,
        }
    }
}

/// Runs `step` in a savepoint that is kept if it says so.
fn savepoint<T>(
    conn: &Connection,
    step: impl FnOnce(&Connection) -> (bool, T),
) -> Result<T, rusqlite::Error> {
    conn.prepare_cached("SAVEPOINT step")?.execute([])?;
    let (keep, result) = step(conn);
    if !keep {
        conn.prepare_cached("ROLLBACK TO step")?.execute([])?;
    }
    conn.prepare_cached("RELEASE step")?.execute([])?;
    Ok(result)
}

/// What the caller is told: the result, unless the transaction failed.
fn verdict<T, E: From<StoreError>>(result: Result<T, E>, committed: Committed) -> Result<T, E> {
    match (result, committed) {
        // What a job wrote before the disk was full is gone with everything else in the transaction.
        (_, Err(failure)) if failure.is_full => Err(StoreError::from(failure).into()),
        (Ok(_), Err(failure)) => Err(StoreError::from(failure).into()),
        (result, _) => result,
    }
}

impl Once {
    /// A job whose `Err` undoes what it wrote; `sender` gets the result.
    pub(super) fn new<T, E, F>(job: F, sender: oneshot::Sender<Result<T, E>>) -> Self
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        Self(Box::new(move |conn| {
            let result = job(conn);
            let keep = result.is_ok();
            let done: Done = Box::new(move |committed| {
                // A caller that went away does not need its answer.
                let _ = sender.send(verdict(result, committed));
            });
            (keep, done)
        }))
    }
}

/// A job that may be run again, with the result of its last run.
pub(super) struct Repeatable<T, E, F> {
    job: F,
    result: Option<Result<T, E>>,
    sender: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Repeatable<T, E, F> {
    /// A job whose `Err` undoes what it wrote; `sender` gets the result.
    pub(super) fn new(job: F, sender: oneshot::Sender<Result<T, E>>) -> Self {
        Self {
            job,
            result: None,
            sender,
        }
    }
}

impl<T, E, F> Again for Repeatable<T, E, F>
where
    T: Send,
    E: From<StoreError> + Send,
    F: FnMut(&Connection, Guard) -> Result<T, E> + Send,
{
    fn run(&mut self, conn: &Connection, guard: Guard) -> bool {
        self.result.insert((self.job)(conn, guard)).is_ok()
    }

    fn done(self: Box<Self>, committed: Committed) {
        let result = match (self.result, committed) {
            (Some(result), committed) => verdict(result, committed),
            // The transaction failed before this job's turn.
            (None, Err(failure)) => Err(StoreError::from(failure).into()),
            (None, Ok(())) => Err(StoreError::Undone.into()),
        };
        // A caller that went away does not need its answer.
        let _ = self.sender.send(result);
    }
}

/// Runs `steps` in one transaction; `Ok(false)` when they asked for it to be undone, which it is.
fn transaction(
    conn: &Connection,
    steps: impl FnOnce(&Connection) -> Result<bool, rusqlite::Error>,
) -> Result<bool, Failure> {
    let outcome = conn
        .prepare_cached("BEGIN IMMEDIATE")
        .and_then(|mut begin| begin.execute([]))
        .and_then(|_| steps(conn))
        .and_then(|keep| {
            if keep {
                conn.prepare_cached("COMMIT")?.execute([])?;
            }
            Ok(keep)
        });
    // SQLite may have given up the transaction itself.
    if !conn.is_autocommit()
        && let Err(error) = conn.execute_batch("ROLLBACK")
    {
        tracing::warn!(%error, "rollback failed");
    }
    outcome.map_err(Failure::from)
}

fn told(outcome: Result<bool, Failure>) -> Committed {
    outcome.map(drop).inspect_err(|failure| {
        tracing::error!(error = failure.reason, "transaction failed");
    })
}

fn run_once(conn: &Connection, jobs: Vec<Once>) {
    let mut done = Vec::with_capacity(jobs.len());
    let outcome = transaction(conn, |conn| {
        for Once(job) in jobs {
            let finish = savepoint(conn, job)?;
            done.push(finish);
        }
        Ok(true)
    });
    let committed = told(outcome);
    for finish in done {
        finish(committed.clone());
    }
}

fn run_repeatable(conn: &Connection, mut jobs: Vec<Box<dyn Again>>) {
    let mut outcome = transaction(conn, |conn| {
        Ok(jobs.iter_mut().all(|job| job.run(conn, Guard::Off)))
    });
    if let Ok(false) = outcome {
        outcome = transaction(conn, |conn| {
            for job in &mut jobs {
                savepoint(conn, |conn| (job.run(conn, Guard::On), ()))?;
            }
            Ok(true)
        });
    }
    let committed = told(outcome);
    for job in jobs {
        job.done(committed.clone());
    }
}

/// Does what it is asked until nobody is left who could ask.
pub(super) fn run(conn: &Connection, mut jobs: mpsc::Receiver<Job>) {
    // How many came together lately.
    let mut expected = 1;
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = vec![first];
        let begin = Instant::now();
        let mut last = begin;
        loop {
            let before = batch.len();
            while batch.len() < BATCH
                && let Ok(next) = jobs.try_recv()
            {
                batch.push(next);
            }
            let now = Instant::now();
            if batch.len() > before {
                last = now;
            }
            if batch.len() >= expected.min(BATCH) || now - last >= GATHER || now - begin >= PATIENCE
            {
                break;
            }
            std::thread::sleep(LOOK);
        }
        let taken = batch.len();
        let (mut once, mut repeatable) = (Vec::new(), Vec::new());
        for job in batch {
            match job {
                Job::Once(job) => once.push(job),
                Job::Repeatable(job) => repeatable.push(job),
            }
        }
        if !repeatable.is_empty() {
            run_repeatable(conn, repeatable);
        }
        if !once.is_empty() {
            run_once(conn, once);
        }
        expected = taken + jobs.len();
    }
}
