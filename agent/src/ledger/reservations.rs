//! Room that is kept free for someone for a minute: it counts as held in every admission but theirs.

use rusqlite::{Connection, params};

use super::leases::would_fit;
use super::{Capacity, Demand, Ledger, LedgerError, Refusal, now_us};
use crate::config::PortRange;

/// How long a reservation holds, in microseconds: a minute (spec crn-api §1.8).
const RESERVED_US: i64 = 60_000_000;
/// Reservations at a time. Anyone with a wallet may make one, so all of them together must not shut the node.
const MOST: usize = 16;

impl Ledger {
    /// Keeps room for a new machine of `sender`, instead of what was kept for it before: memory, vCPUs, disk, a network
    /// slot and a host port. Returns until when (Unix microseconds), or what is lacking.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn reserve(
        &self,
        sender: &str,
        demand: Demand,
        capacity: Capacity,
        ports: PortRange,
    ) -> Result<Result<i64, Refusal>, LedgerError> {
        let sender = sender.to_lowercase();
        self.transaction(move |tx| {
            let refuse = |what| {
                Ok(Err(Refusal {
                    what,
                    wanted: 1,
                    free: 0,
                }))
            };
            if let Err(refusal) = would_fit(tx, &sender, demand, capacity)? {
                return Ok(Err(refusal));
            }
            let (_, others) = of_others(tx, &sender)?;
            if others >= MOST {
                return refuse("reservations");
            }
            let taken: usize = tx
                .prepare_cached(
                    "SELECT count(*) FROM port_mappings WHERE host_port BETWEEN ?1 AND ?2",
                )?
                .query_row(params![ports.first, ports.last], |row| row.get(0))?;
            if taken + others > usize::from(ports.last - ports.first) {
                return refuse("host ports");
            }
            let expires = now_us() + RESERVED_US;
            tx.execute(
                "INSERT OR REPLACE INTO reservations (sender, memory_mib, vcpus, disk_mib, expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![sender, demand.memory_mib, demand.vcpus, demand.disk_mib, expires],
            )?;
            Ok(Ok(expires))
        })
        .await
    }
}

/// What is reserved for others than `sender` (lower case), together and how many times.
pub(super) fn of_others(tx: &Connection, sender: &str) -> rusqlite::Result<(Demand, usize)> {
    tx.prepare_cached("DELETE FROM reservations WHERE expires_at <= ?1")?
        .execute(params![now_us()])?;
    tx.prepare_cached(
        "SELECT coalesce(sum(memory_mib), 0), coalesce(sum(vcpus), 0), coalesce(sum(disk_mib), 0), count(*)
         FROM reservations WHERE sender != ?1",
    )?
    .query_row(params![sender], |row| {
        let demand = Demand {
            memory_mib: row.get(0)?,
            vcpus: row.get(1)?,
            disk_mib: row.get(2)?,
        };
        Ok((demand, row.get(3)?))
    })
}
