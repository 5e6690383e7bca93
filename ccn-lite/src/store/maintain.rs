//! Copies and checks of a database, beside a running node or without one.

use std::path::Path;
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::{MIGRATIONS, StoreError};

/// Pages copied at once; between the steps of a copy the node writes.
const STEP: i32 = 1024;
/// Pause between them, and while the node writes.
const PAUSE: Duration = Duration::from_millis(1);

/// Opens the database at `path` for reading. Its schema must be this program's: an older one is migrated by serving it.
///
/// # Errors
/// When it is missing, of another version, or SQLite refuses it.
pub fn open(path: &Path) -> Result<Connection, StoreError> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(Duration::from_secs(10))?;
    conn.pragma_update(None, "query_only", true)?;
    let version: u32 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let found = usize::try_from(version).unwrap_or(usize::MAX);
    if found != MIGRATIONS.len() {
        return Err(StoreError::Version {
            found,
            known: MIGRATIONS.len(),
        });
    }
    Ok(conn)
}

/// Copies the database as it is at the end of the copying to `target`, a new file, complete and synced or not at all.
/// `progress` is told the pages left and the pages altogether.
///
/// # Errors
/// When either cannot be read or written.
pub fn backup(
    conn: &Connection,
    target: &Path,
    mut progress: impl FnMut(i32, i32),
) -> Result<(), StoreError> {
    let mut copy = Connection::open(target)?;
    copy.pragma_update(None, "synchronous", "FULL")?;
    {
        let backup = Backup::new(conn, &mut copy)?;
        loop {
            let step = backup.step(STEP)?;
            let state = backup.progress();
            progress(state.remaining, state.pagecount);
            match step {
                StepResult::Done => break,
                _ => std::thread::sleep(PAUSE),
            }
        }
    }
    // The copy is one file, without a log beside it.
    copy.pragma_update(None, "journal_mode", "DELETE")?;
    Ok(())
}

/// What SQLite finds wrong: nothing when the database is sound.
///
/// # Errors
/// When it cannot be read at all.
pub fn check(conn: &Connection) -> Result<Vec<String>, StoreError> {
    let mut flaws = Vec::new();
    for pragma in ["PRAGMA integrity_check", "PRAGMA foreign_key_check"] {
        let mut statement = conn.prepare(pragma)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let text: String = row.get(0)?;
            if text != "ok" {
                flaws.push(text);
            }
        }
    }
    Ok(flaws)
}

/// What must not be found: rows that only half of a message left, by what they are.
const RELATIONS: [(&str, &str); 13] = [
    (
        "POST missing among the posts",
        "SELECT item_hash FROM messages WHERE (type = 'POST' AND content_type <> 'amend') <> (updated IS NOT NULL)",
    ),
    (
        "post that shows an amend of another",
        "SELECT item_hash FROM messages m WHERE amended_by IS NOT NULL AND NOT EXISTS (SELECT 1 FROM messages a \
         WHERE a.item_hash = m.amended_by AND a.type = 'POST' AND a.content_type = 'amend' AND a.content_ref = m.item_hash)",
    ),
    (
        "sender kept wrongly",
        "SELECT item_hash FROM messages WHERE delegate IS NOT iif(sender <> owner, sender, NULL)",
    ),
    (
        "STORE without its claim on a file",
        "SELECT item_hash FROM messages WHERE type = 'STORE' AND status = 'processed' \
         AND item_hash NOT IN (SELECT item_hash FROM file_pins WHERE kind = 'store')",
    ),
    (
        "claim on a file without its STORE",
        "SELECT item_hash FROM file_pins WHERE kind = 'store' AND item_hash NOT IN (SELECT item_hash FROM messages)",
    ),
    (
        "claim on a file that is not known",
        "SELECT file_hash FROM file_pins WHERE kind = 'store' AND file_hash NOT IN (SELECT hash FROM files)",
    ),
    (
        "machine without its message",
        "SELECT item_hash FROM vms WHERE item_hash NOT IN (SELECT item_hash FROM messages)",
    ),
    (
        "costs of a message not in force",
        "SELECT DISTINCT item_hash FROM costs WHERE item_hash NOT IN (SELECT item_hash FROM messages)",
    ),
    (
        "tag of a message not in force",
        "SELECT DISTINCT message FROM message_tags WHERE message NOT IN (SELECT item_hash FROM messages)",
    ),
    (
        "tags of a post kept wrongly",
        "SELECT DISTINCT post FROM (SELECT tag, updated, post FROM post_tags UNION ALL SELECT DISTINCT value, p.updated, \
         p.item_hash FROM messages p JOIN messages latest ON latest.item_hash = coalesce(p.amended_by, p.item_hash), \
         json_each(latest.tags) WHERE p.updated IS NOT NULL AND latest.tags IS NOT NULL AND json_each.type = 'text') \
         GROUP BY tag, updated, post HAVING count(*) <> 2",
    ),
    (
        "messages counted wrongly",
        "SELECT type || ', ' || status FROM message_counts c WHERE messages <> \
         (SELECT count(*) FROM messages m WHERE m.type = c.type AND m.status = c.status)",
    ),
    (
        "statuses counted wrongly",
        "SELECT status FROM (SELECT status, messages FROM status_counts UNION ALL SELECT status, -count(*) FROM statuses \
         GROUP BY status) GROUP BY status HAVING sum(messages) <> 0",
    ),
    (
        "messages of an address counted wrongly",
        "SELECT owner || ', ' || type FROM (SELECT owner, type, delegate AS signer, messages FROM address_counts \
         UNION ALL SELECT owner, type, coalesce(delegate, ''), -count(*) FROM messages GROUP BY 1, 2, 3) \
         GROUP BY owner, type, signer HAVING sum(messages) <> 0",
    ),
];

/// Messages and their effects that do not fit together, one line each.
///
/// # Errors
/// When the database cannot be read.
pub fn relations(conn: &Connection) -> Result<Vec<String>, StoreError> {
    let mut flaws = Vec::new();
    for (what, sql) in RELATIONS {
        let mut statement = conn.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let which: String = row.get(0)?;
            flaws.push(format!("{what}: {which}"));
        }
    }
    Ok(flaws)
}
