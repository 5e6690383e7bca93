//! Programs and instances: what the scheduler and the dependency checks need of them.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::StoreError;

/// A program or instance in force.
#[derive(Debug, Clone)]
pub struct Vm {
    /// Item hash.
    pub item_hash: String,
    /// Owner.
    pub owner: String,
    /// `PROGRAM` or `INSTANCE`.
    pub kind: String,
    /// How it is paid.
    pub payment_type: String,
    /// A program that always runs; true for instances.
    pub persistent: bool,
    /// Whether its owner may replace it.
    pub allow_amend: bool,
    /// The program it replaces.
    pub replaces: Option<String>,
    /// Unix seconds.
    pub created: f64,
}

const COLUMNS: &str =
    "item_hash, owner, type, payment_type, persistent, allow_amend, replaces, created";

fn decode(row: &Row<'_>) -> rusqlite::Result<Vm> {
    Ok(Vm {
        item_hash: row.get(0)?,
        owner: row.get(1)?,
        kind: row.get(2)?,
        payment_type: row.get(3)?,
        persistent: row.get(4)?,
        allow_amend: row.get(5)?,
        replaces: row.get(6)?,
        created: row.get(7)?,
    })
}

/// Adds a VM with the STORE messages it needs.
pub fn insert(conn: &Connection, vm: &Vm, volumes: &[String]) -> Result<(), StoreError> {
    conn.prepare_cached(&format!(
        "INSERT INTO vms ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?)"
    ))?
    .execute(params![
        vm.item_hash,
        vm.owner,
        vm.kind,
        vm.payment_type,
        vm.persistent,
        vm.allow_amend,
        vm.replaces,
        vm.created
    ])?;
    for volume in volumes {
        conn.prepare_cached("INSERT OR IGNORE INTO vm_volumes VALUES (?, ?)")?
            .execute([&vm.item_hash, volume])?;
    }
    let vm_ref = vm.replaces.as_ref().unwrap_or(&vm.item_hash);
    conn.prepare_cached(
        "INSERT INTO vm_versions VALUES (?, ?, ?, ?) ON CONFLICT (vm) DO UPDATE SET current = excluded.current, \
         last_updated = excluded.last_updated WHERE excluded.last_updated > last_updated",
    )?
    .execute(params![vm_ref, vm.owner, vm.item_hash, vm.created])?;
    Ok(())
}

/// A VM.
pub fn get(conn: &Connection, hash: &str) -> Result<Option<Vm>, StoreError> {
    Ok(conn
        .prepare_cached(&format!("SELECT {COLUMNS} FROM vms WHERE item_hash = ?"))?
        .query_row([hash], decode)
        .optional()?)
}

/// All VMs that are paid for, oldest first.
pub fn all(conn: &Connection) -> Result<Vec<Vm>, StoreError> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM vms WHERE item_hash NOT IN (SELECT item_hash FROM removing) ORDER BY created, item_hash"
    ))?;
    let rows = statement.query_map([], decode)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Programs that replace `hash`.
pub fn updates(conn: &Connection, hash: &str) -> Result<Vec<String>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT item_hash FROM vms WHERE replaces = ?")?;
    let rows = statement.query_map([hash], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// VMs that use the STORE message `hash`.
pub fn users(conn: &Connection, hash: &str) -> Result<Vec<String>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT vm FROM vm_volumes WHERE ref = ?")?;
    let rows = statement.query_map([hash], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The version of `vm` in force.
pub fn current_version(conn: &Connection, vm: &str) -> Result<Option<String>, StoreError> {
    Ok(conn
        .prepare_cached("SELECT current FROM vm_versions WHERE vm = ?")?
        .query_row([vm], |row| row.get(0))
        .optional()?)
}

/// Removes a VM; the program it replaced gets its newest version left.
pub fn remove(conn: &Connection, hash: &str) -> Result<(), StoreError> {
    let Some(vm) = get(conn, hash)? else {
        return Ok(());
    };
    conn.prepare_cached("DELETE FROM vms WHERE item_hash = ?")?
        .execute([hash])?;
    let vm_ref = vm.replaces.as_deref().unwrap_or(hash);
    let newest: Option<(String, f64)> = conn
        .prepare_cached(
            "SELECT item_hash, created FROM vms WHERE item_hash = ?1 OR replaces = ?1 ORDER BY created DESC LIMIT 1",
        )?
        .query_row([vm_ref], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match newest {
        Some((current, updated)) => conn
            .prepare_cached("UPDATE vm_versions SET current = ?, last_updated = ? WHERE vm = ?")?
            .execute(params![current, updated, vm_ref])?,
        None => conn
            .prepare_cached("DELETE FROM vm_versions WHERE vm = ?")?
            .execute([vm_ref])?,
    };
    Ok(())
}
