//! What machines hold: a slot, memory, vCPUs, disk, host ports. Admission is one transaction.

use std::collections::{BTreeMap, BTreeSet};

use aleph_message::ItemHash;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Ledger, LedgerError, Record, Wipe, reservations};
use crate::config::PortRange;

/// The first slot; the subnets below are left to the host, as clients of this network expect.
const FIRST_SLOT: u16 = 4;

/// Numbers that a machine keeps for ports it no longer forwards: whoever changes wishes all day must not use up
/// everybody's.
const KEPT_PORTS: u32 = 20;

/// What a machine holds beside its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Names the TAP device and the IPv4 subnet.
    pub slot: u16,
    /// MiB of memory, 0 while it does not run.
    pub memory_mib: u64,
    /// vCPUs, 0 while it does not run.
    pub vcpus: u32,
    /// MiB its disks may grow to.
    pub disk_mib: u64,
}

/// What a machine needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// MiB of memory.
    pub memory_mib: u64,
    /// vCPUs.
    pub vcpus: u32,
    /// MiB its disks may grow to.
    pub disk_mib: u64,
}

impl Demand {
    /// Both together.
    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
            vcpus: self.vcpus.saturating_add(other.vcpus),
            disk_mib: self.disk_mib.saturating_add(other.disk_mib),
        }
    }
}

/// What all machines together may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// MiB of memory.
    pub memory_mib: u64,
    /// vCPUs.
    pub vcpus: u32,
    /// MiB of disk: what is free now and what machines hold already.
    pub disk_mib: u64,
    /// One past the last slot of the IPv4 pool.
    pub slots: u16,
}

/// Why a machine does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this node has no room: {wanted} {what} wanted, {free} free")]
pub struct Refusal {
    /// `MiB of memory`, `vCPUs`, …
    pub what: &'static str,
    /// How much was wanted.
    pub wanted: u64,
    /// How much is left.
    pub free: u64,
}

/// See [`Refusal::is_of_disk`].
const DISK: &str = "MiB of disk";

impl Refusal {
    /// Whether it is disk that lacks.
    #[must_use]
    pub fn is_of_disk(&self) -> bool {
        self.what == DISK
    }
}

/// A port that is to be forwarded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortWish {
    /// TCP.
    pub tcp: bool,
    /// UDP.
    pub udp: bool,
}

/// A forwarded port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortMapping {
    /// The port in the guest.
    pub guest_port: u16,
    /// The port on the host.
    pub host_port: u16,
    /// TCP is forwarded.
    pub tcp: bool,
    /// UDP is forwarded.
    pub udp: bool,
}

impl Ledger {
    /// Gives a machine what it needs, or says what is lacking and gives nothing. A machine that holds it already keeps
    /// its slot.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn admit(
        &self,
        hash: &ItemHash,
        demand: Demand,
        capacity: Capacity,
    ) -> Result<Result<Lease, Refusal>, LedgerError> {
        let key = hash.to_string();
        self.transaction(move |tx| {
            let owner: Option<String> = tx
                .prepare_cached("SELECT lower(owner) FROM vms WHERE hash = ?1")?
                .query_row(params![key], |row| row.get(0))
                .optional()?
                .flatten();
            let owner = owner.unwrap_or_default();
            let (slot, others) = usage(tx, &key)?;
            let (reserved, reservations) = reservations::of_others(tx, &owner)?;
            if let Err(refusal) = fits(demand, capacity, others.plus(reserved)) {
                return Ok(Err(refusal));
            }
            let slot = match slot {
                Some(slot) => slot,
                None => {
                    let taken = tx
                        .prepare_cached("SELECT slot FROM leases")?
                        .query_map([], |row| row.get(0))?
                        .collect::<rusqlite::Result<BTreeSet<u16>>>()?;
                    // Each reservation of somebody else keeps one free.
                    let mut free = (FIRST_SLOT..capacity.slots).filter(|slot| !taken.contains(slot));
                    let Some(slot) = free.next().filter(|_| free.count() >= reservations) else {
                        return Ok(Err(Refusal { what: "network slots", wanted: 1, free: 0 }));
                    };
                    slot
                }
            };
            tx.execute(
                "INSERT OR REPLACE INTO leases (vm, slot, memory_mib, vcpus, disk_mib) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![key, slot, demand.memory_mib, demand.vcpus, demand.disk_mib],
            )?;
            // It has what was kept for it.
            tx.execute("DELETE FROM reservations WHERE sender = ?1", params![owner])?;
            Ok(Ok(Lease { slot, memory_mib: demand.memory_mib, vcpus: demand.vcpus, disk_mib: demand.disk_mib }))
        })
        .await
    }

    /// Whether `demand` of `owner` would be admitted now.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn would_admit(
        &self,
        owner: &str,
        demand: Demand,
        capacity: Capacity,
    ) -> Result<Result<(), Refusal>, LedgerError> {
        let owner = owner.to_lowercase();
        self.transaction(move |tx| would_fit(tx, &owner, demand, capacity))
            .await
    }

    /// Takes memory and vCPUs back from a machine that has stopped; slot, disk and ports stay its own.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn release_compute(&self, hash: &ItemHash) -> Result<(), LedgerError> {
        let key = hash.to_string();
        self.transaction(move |tx| {
            tx.execute(
                "UPDATE leases SET memory_mib = 0, vcpus = 0 WHERE vm = ?1",
                params![key],
            )
            .map(drop)
        })
        .await
    }

    /// Takes everything back from a machine that is erased.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn release_all(&self, hash: &ItemHash) -> Result<(), LedgerError> {
        let key = hash.to_string();
        self.transaction(move |tx| {
            for table in ["port_mappings", "wipes", "expirations"] {
                tx.execute(&format!("DELETE FROM {table} WHERE vm = ?1"), params![key])?;
            }
            tx.execute("DELETE FROM leases WHERE vm = ?1", params![key])
                .map(drop)
        })
        .await
    }

    /// MiB of disk all machines may grow to.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn disk_held(&self) -> Result<u64, LedgerError> {
        self.transaction(|tx| {
            tx.query_row("SELECT coalesce(sum(disk_mib), 0) FROM leases", [], |row| {
                row.get(0)
            })
        })
        .await
    }

    /// Makes `wishes` the forwarded ports of a machine. A port it had not long before gets its old number back; a new one
    /// the lowest free in `range`, and none when the range is used up. Returns what is forwarded now.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn map_ports(
        &self,
        hash: &ItemHash,
        wishes: BTreeMap<u16, PortWish>,
        range: PortRange,
    ) -> Result<Vec<PortMapping>, LedgerError> {
        let key = hash.to_string();
        self.transaction(move |tx| {
            tx.execute("UPDATE port_mappings SET active = 0 WHERE vm = ?1", params![key])?;
            let mut taken = tx
                .prepare_cached("SELECT host_port FROM port_mappings")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<BTreeSet<u16>>>()?;
            for (guest_port, wish) in wishes {
                let known: Option<u16> = tx
                    .prepare_cached("SELECT host_port FROM port_mappings WHERE vm = ?1 AND guest_port = ?2")?
                    .query_row(params![key, guest_port], |row| row.get(0))
                    .optional()?;
                let free = || (range.first..=range.last).find(|port| !taken.contains(port));
                let Some(host_port) = known.or_else(free) else {
                    tracing::warn!(vm = %key, guest_port, %range, "no host port is left to forward");
                    continue;
                };
                taken.insert(host_port);
                tx.execute(
                    "INSERT OR REPLACE INTO port_mappings (vm, guest_port, host_port, tcp, udp, active)
                     VALUES (?1, ?2, ?3, ?4, ?5, 1)",
                    params![key, guest_port, host_port, wish.tcp, wish.udp],
                )?;
            }
            tx.execute(
                "DELETE FROM port_mappings WHERE vm = ?1 AND NOT active AND rowid NOT IN
                 (SELECT rowid FROM port_mappings WHERE vm = ?1 AND NOT active ORDER BY rowid DESC LIMIT ?2)",
                params![key, KEPT_PORTS],
            )?;
            ports(tx, &key)
        })
        .await
    }
}

/// Whether there is room for a new machine of `owner` (lower case).
pub(super) fn would_fit(
    tx: &Connection,
    owner: &str,
    demand: Demand,
    capacity: Capacity,
) -> rusqlite::Result<Result<(), Refusal>> {
    let (_, held) = usage(tx, "")?;
    let (reserved, reservations) = reservations::of_others(tx, owner)?;
    if let Err(refusal) = fits(demand, capacity, held.plus(reserved)) {
        return Ok(Err(refusal));
    }
    let taken: usize = tx
        .prepare_cached("SELECT count(*) FROM leases")?
        .query_row([], |row| row.get(0))?;
    let slots = usize::from(capacity.slots.saturating_sub(FIRST_SLOT));
    Ok(if taken + reservations < slots {
        Ok(())
    } else {
        Err(Refusal {
            what: "network slots",
            wanted: 1,
            free: 0,
        })
    })
}

/// A machine's slot, and what all the others hold.
fn usage(tx: &Connection, hash: &str) -> rusqlite::Result<(Option<u16>, Demand)> {
    let slot = tx
        .prepare_cached("SELECT slot FROM leases WHERE vm = ?1")?
        .query_row(params![hash], |row| row.get(0))
        .optional()?;
    let others = tx
        .prepare_cached(
            "SELECT coalesce(sum(memory_mib), 0), coalesce(sum(vcpus), 0), coalesce(sum(disk_mib), 0)
             FROM leases WHERE vm != ?1",
        )?
        .query_row(params![hash], |row| {
            Ok(Demand { memory_mib: row.get(0)?, vcpus: row.get(1)?, disk_mib: row.get(2)? })
        })?;
    Ok((slot, others))
}

fn fits(demand: Demand, capacity: Capacity, held: Demand) -> Result<(), Refusal> {
    for (what, wanted, all, held) in [
        (
            "MiB of memory",
            demand.memory_mib,
            capacity.memory_mib,
            held.memory_mib,
        ),
        (
            "vCPUs",
            demand.vcpus.into(),
            capacity.vcpus.into(),
            held.vcpus.into(),
        ),
        (DISK, demand.disk_mib, capacity.disk_mib, held.disk_mib),
    ] {
        let free = all.saturating_sub(held);
        if wanted > free {
            return Err(Refusal { what, wanted, free });
        }
    }
    Ok(())
}

fn ports(tx: &Connection, hash: &str) -> rusqlite::Result<Vec<PortMapping>> {
    tx.prepare_cached(
        "SELECT guest_port, host_port, tcp, udp FROM port_mappings WHERE vm = ?1 AND active ORDER BY guest_port",
    )?
    .query_map(params![hash], |row| {
        Ok(PortMapping { guest_port: row.get(0)?, host_port: row.get(1)?, tcp: row.get(2)?, udp: row.get(3)? })
    })?
    .collect()
}

/// Fills in what a record holds.
pub(super) fn complete(tx: &Connection, record: &mut Record) -> rusqlite::Result<()> {
    let hash = record.hash.to_string();
    record.lease = tx
        .prepare_cached("SELECT slot, memory_mib, vcpus, disk_mib FROM leases WHERE vm = ?1")?
        .query_row(params![hash], |row| {
            Ok(Lease {
                slot: row.get(0)?,
                memory_mib: row.get(1)?,
                vcpus: row.get(2)?,
                disk_mib: row.get(3)?,
            })
        })
        .optional()?;
    record.ports = ports(tx, &hash)?;
    record.wipe = tx
        .prepare_cached("SELECT volumes FROM wipes WHERE vm = ?1")?
        .query_row(params![hash], |row| {
            Ok(Wipe {
                volumes: row.get(0)?,
            })
        })
        .optional()?;
    record.secluded = tx
        .prepare_cached("SELECT 1 FROM secluded WHERE vm = ?1")?
        .exists(params![hash])?;
    record.expires = tx
        .prepare_cached("SELECT at FROM expirations WHERE vm = ?1")?
        .query_row(params![hash], |row| row.get(0))
        .optional()?;
    Ok(())
}
