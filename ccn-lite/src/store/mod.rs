//! SQLite: the one place with SQL.
//!
//! One thread writes ([`writer`]). Reads go to a small pool of read-only connections.

pub mod accounts;
pub mod aggregates;
pub mod assignments;
pub mod counters;
pub mod credits;
pub mod files;
pub mod gone;
pub mod listing;
pub mod maintain;
pub mod measurements;
pub mod messages;
pub mod pending;
pub mod post_lists;
pub mod posts;
pub mod removing;
pub mod statuses;
pub mod vms;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{Semaphore, mpsc, oneshot};

pub use writer::Guard;
use writer::{Job, Once, Repeatable};

/// Schema steps; the n-th brings `user_version` from n to n + 1.
const MIGRATIONS: [&str; 4] = [
    include_str!("schema.sql"),
    include_str!("assignments.sql"),
    concat!(
        include_str!("lists.sql"),
        include_str!("listing.sql"),
        include_str!("posts.sql"),
        include_str!("money.sql"),
        include_str!("gone.sql"),
        include_str!("measurements.sql")
    ),
    include_str!("tagged.sql"),
];
/// Jobs that may wait for the writer.
const QUEUE: usize = 256;
const READERS: usize = 4;
/// Pages the writer keeps in memory, KiB: the parts of all indices that new messages go into.
const WRITER_CACHE_KIB: i64 = 32 * 1024;
/// Pages in the write-ahead log before they are copied into the database: the longer, the more writes to the same page
/// become one. 4 KiB each.
const LOG_PAGES: i64 = 8192;

/// Trouble with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("database error")]
    Sqlite(#[from] rusqlite::Error),
    /// A stored value is not what this program wrote.
    #[error("database holds invalid JSON")]
    Json(#[from] serde_json::Error),
    /// The transaction of a whole batch failed.
    #[error("cannot commit: {0}")]
    Commit(String),
    /// The database was written by a newer program.
    #[error("database has schema version {found}, this program knows {known}")]
    Version {
        /// Found in the file.
        found: usize,
        /// Newest known.
        known: usize,
    },
    /// A job gave up and is run again; nobody but the writer gets this.
    #[error("what was written is undone")]
    Undone,
    /// There is no space left to write to.
    #[error("the disk is full")]
    DiskFull,
    /// The writer is gone: the process is shutting down.
    #[error("database is closed")]
    Closed,
}

/// Handle on the database, cheap to clone.
#[derive(Clone)]
pub struct Store {
    writer: mpsc::Sender<Job>,
    readers: Arc<Readers>,
}

struct Readers {
    path: PathBuf,
    permits: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

/// Seconds since the Unix epoch.
pub fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs_f64()
}

fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let conn = Connection::open(path)?;
    conn.busy_timeout(Duration::from_secs(10))?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "foreign_keys", true)?;
    // What savepoints remember would otherwise be written to a temporary file.
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    conn.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    conn.set_prepared_statement_cache_capacity(128);
    let version: u32 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let version = usize::try_from(version).unwrap_or(usize::MAX);
    if version > MIGRATIONS.len() {
        return Err(StoreError::Version {
            found: version,
            known: MIGRATIONS.len(),
        });
    }
    for (step, sql) in MIGRATIONS.iter().enumerate().skip(version) {
        conn.execute_batch(&format!(
            "BEGIN IMMEDIATE; {sql} PRAGMA user_version = {}; COMMIT;",
            step + 1
        ))?;
    }
    Ok(conn)
}

impl Store {
    /// Opens or creates the database at `path` and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let conn = open_writer(path)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer::run(&conn, receiver))
            .map_err(|error| StoreError::Commit(error.to_string()))?;
        Ok(Self {
            writer: sender,
            readers: Arc::new(Readers {
                path: path.into(),
                permits: Semaphore::new(READERS),
                idle: Mutex::new(Vec::new()),
            }),
        })
    }

    /// Runs `job` in a transaction; an `Err` rolls it back. Returns after the commit reached the disk.
    pub async fn write<T, E, F>(&self, job: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.run(Job::Once(Once::new(job, sender)), receiver).await
    }

    /// The same for a job that can be run again, which costs less: what it writes is remembered for being undone only
    /// after some job in the transaction failed. A part of itself that it may give up it runs with [`Guard::nested`].
    pub async fn decide<T, E, F>(&self, job: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnMut(&Connection, Guard) -> Result<T, E> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let job = Job::Repeatable(Box::new(Repeatable::new(job, sender)));
        self.run(job, receiver).await
    }

    async fn run<T, E: From<StoreError>>(
        &self,
        job: Job,
        receiver: oneshot::Receiver<Result<T, E>>,
    ) -> Result<T, E> {
        self.writer
            .send(job)
            .await
            .map_err(|_| StoreError::Closed)?;
        receiver.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs `query` on a read-only connection.
    pub async fn read<T, E, F>(&self, query: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let _permit = self
            .readers
            .permits
            .acquire()
            .await
            .map_err(|_| StoreError::Closed)?;
        let readers = self.readers.clone();
        tokio::task::spawn_blocking(move || {
            let conn = readers.take()?;
            let result = query(&conn);
            readers
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(conn);
            result
        })
        .await
        .map_err(|_| StoreError::Closed)?
    }
}

impl Readers {
    fn take(&self) -> Result<Connection, StoreError> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        if let Some(conn) = idle {
            return Ok(conn);
        }
        let conn = Connection::open_with_flags(
            &self.path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        conn.busy_timeout(Duration::from_secs(10))?;
        conn.set_prepared_statement_cache_capacity(128);
        Ok(conn)
    }
}

/// Where a cursor page continues.
#[derive(Debug, Clone)]
pub struct After {
    /// Time of the last row seen, unix seconds.
    pub time: f64,
    /// Its item hash.
    pub hash: String,
}

/// A WHERE clause built from conditions that all must hold.
#[derive(Default)]
pub struct Conditions {
    sql: Vec<String>,
    params: Vec<rusqlite::types::Value>,
}

impl Conditions {
    /// Adds raw SQL without parameters.
    pub fn raw(&mut self, sql: impl Into<String>) {
        self.sql.push(sql.into());
    }

    /// Adds `sql`, which holds one `?`.
    pub fn with(&mut self, sql: &str, value: impl Into<rusqlite::types::Value>) {
        self.sql.push(sql.into());
        self.params.push(value.into());
    }

    /// Adds `sql`, which holds a `?` for each value.
    pub fn with_all(
        &mut self,
        sql: &str,
        values: impl IntoIterator<Item = rusqlite::types::Value>,
    ) {
        self.sql.push(sql.into());
        self.params.extend(values);
    }

    /// Continues a list that is ordered by the time in `column`, and by item hash where times are equal.
    pub fn after(&mut self, column: &str, ascending: bool, after: &After) {
        // Time and hash may run in opposite directions, so the pair comparison is spelled out.
        let op = if ascending { ">" } else { "<" };
        // The first comparison is what an index is entered with, however far down the list.
        self.sql.push(format!(
            "{column} {op}= ? AND ({column} {op} ? OR messages.item_hash > ?)"
        ));
        let time = rusqlite::types::Value::from(after.time);
        self.params
            .extend([time.clone(), time, after.hash.clone().into()]);
    }

    /// Adds `sql`, where `{}` becomes as many placeholders as there are values; nothing for an empty list.
    pub fn any(&mut self, sql: &str, values: &[String]) {
        if values.is_empty() {
            return;
        }
        let marks = vec!["?"; values.len()].join(",");
        self.sql.push(sql.replace("{}", &marks));
        self.params.extend(values.iter().map(|v| v.clone().into()));
    }

    /// Adds everything of `others`.
    pub fn and(&mut self, others: Self) {
        self.sql.extend(others.sql);
        self.params.extend(others.params);
    }

    /// The conditions as one expression, which is 1 when all hold.
    pub fn expression(&self) -> String {
        if self.sql.is_empty() {
            "1".to_owned()
        } else {
            // A comparison with NULL is not true either.
            format!("({}) IS TRUE", self.sql.join(" AND "))
        }
    }

    /// ` WHERE …`, or nothing.
    pub fn clause(&self) -> String {
        if self.sql.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", self.sql.join(" AND "))
        }
    }

    /// The values in order.
    pub fn values(&self) -> &[rusqlite::types::Value] {
        &self.params
    }

    /// The parameters in order.
    pub fn params(&self) -> Vec<&dyn rusqlite::ToSql> {
        self.params
            .iter()
            .map(|v| v as &dyn rusqlite::ToSql)
            .collect()
    }
}

/// A page of a list: `limit` 0 means all.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Rows per page.
    pub limit: u64,
    /// Number of the page, from 1.
    pub page: u64,
}

impl Page {
    /// ` LIMIT … OFFSET …`.
    pub fn clause(self) -> String {
        if self.limit == 0 {
            return String::new();
        }
        let limit = self.limit.min(i64::MAX as u64);
        let offset = limit
            .saturating_mul(self.page.saturating_sub(1))
            .min(i64::MAX as u64);
        format!(" LIMIT {limit} OFFSET {offset}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failed_job_leaves_nothing_and_does_not_disturb_others() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).unwrap();
        let insert = |hash: &'static str, fail: bool| {
            store.write(move |conn| {
                conn.execute("INSERT INTO statuses VALUES (?, 'pending', 0)", [hash])
                    .map_err(StoreError::from)?;
                if fail {
                    return Err(StoreError::Closed);
                }
                Ok(())
            })
        };
        let (a, b, c) = tokio::join!(insert("a", false), insert("b", true), insert("c", false));
        assert!(a.is_ok() && b.is_err() && c.is_ok());
        let count: i64 = store
            .read::<_, StoreError, _>(|conn| {
                Ok(conn.query_row("SELECT count(*) FROM statuses", [], |row| row.get(0))?)
            })
            .await
            .unwrap();
        assert_eq!(count, 2);
    }

    #[tokio::test]
    async fn a_repeatable_job_that_fails_is_undone_and_those_beside_it_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).unwrap();
        let insert = |conn: &Connection, hash: &str| -> Result<(), StoreError> {
            conn.execute("INSERT INTO statuses VALUES (?, 'pending', 0)", [hash])?;
            Ok(())
        };
        let whole = |hash: &'static str, fail: bool| {
            store.decide(move |conn, _| {
                insert(conn, hash)?;
                if fail {
                    Err(StoreError::Closed)
                } else {
                    Ok(())
                }
            })
        };
        // Gives up a part of itself and goes on.
        let in_part = store.decide(move |conn, guard| {
            insert(conn, "kept")?;
            let part = guard.nested(conn, |conn| {
                insert(conn, "given up")?;
                Err::<(), _>(StoreError::Closed)
            });
            match guard {
                Guard::Off => part.map(|()| false),
                Guard::On => Ok(part.is_err()),
            }
        });
        let (a, b, c, part) = tokio::join!(
            whole("a", false),
            whole("b", true),
            whole("c", false),
            in_part
        );
        assert!(a.is_ok() && matches!(b, Err(StoreError::Closed)) && c.is_ok());
        assert!(part.unwrap());
        let left: Vec<String> = store
            .read::<_, StoreError, _>(|conn| {
                let mut statement = conn.prepare("SELECT item_hash FROM statuses ORDER BY 1")?;
                let rows = statement.query_map([], |row| row.get(0))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
            .unwrap();
        assert_eq!(left, ["a", "c", "kept"]);
    }

    #[test]
    fn database_of_a_newer_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        Connection::open(&path)
            .unwrap()
            .pragma_update(None, "user_version", 99)
            .unwrap();
        assert!(matches!(
            Store::open(&path),
            Err(StoreError::Version { found: 99, .. })
        ));
    }
}
