//! Which ports of a machine are forwarded: 22 of an instance, what its message publishes, and what its owner's
//! `port-forwarding` aggregate says.

use std::collections::BTreeMap;

use aleph_message::ItemHash;
use serde_json::Value;

use super::{Reconciler, Shared, task};
use crate::intake::ccn::{CcnError, batches};
use crate::ledger::{Kind, LedgerError, PortMapping, PortWish, Record, State};

/// Forwarded ports of one machine.
const MAX_PORTS: usize = 20;
const SSH: u16 = 22;
/// The aggregate with owners' wishes.
const KEY: &str = "port-forwarding";

impl Reconciler {
    /// Brings a machine's forwarded ports up to its owner's wishes.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn refresh_ports(&self, hash: &ItemHash) -> Result<(), LedgerError> {
        let Some(record) = self.shared.ledger.get(hash).await? else {
            return Ok(());
        };
        let (Some(kind), Some(owner)) = (record.kind, record.owner) else {
            return Ok(());
        };
        let changed = refresh(&self.shared, hash, kind, &owner).await?;
        if changed && let Err(error) = self.shared.firewall.publish().await {
            tracing::error!(vm = %hash, "{error}");
        }
        Ok(())
    }

    /// The same of all machines.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn refresh_all_ports(&self) -> Result<(), LedgerError> {
        let records = self.shared.ledger.all().await?;
        let changed = refresh_all(&self.shared, &records).await?;
        if changed && let Err(error) = self.shared.firewall.publish().await {
            tracing::error!("{error}");
        }
        Ok(())
    }
}

/// Reads the owner's wishes and records the mappings; returns whether that changed anything. When they cannot be read,
/// what is forwarded stays (spec crn-api §9.2 R5); a machine that has nothing yet gets what it always gets.
pub(super) async fn refresh(
    shared: &Shared,
    hash: &ItemHash,
    kind: Kind,
    owner: &str,
) -> Result<bool, LedgerError> {
    if kind != Kind::Instance {
        return Ok(false);
    }
    let aggregate = shared.intake.ccn.aggregate(owner, KEY).await;
    let aggregate = aggregate.map_err(|error| crate::chain(&error));
    heed(shared, hash, aggregate.as_ref()).await
}

/// The same of all these machines, with a few questions for all their owners; whether anything changed.
async fn refresh_all(shared: &Shared, records: &[Record]) -> Result<bool, LedgerError> {
    let instances = records.iter().filter(|record| {
        record.kind == Some(Kind::Instance)
            && record.lease.is_some()
            && record.state != State::Erased
    });
    let mut machines: BTreeMap<&str, Vec<&ItemHash>> = BTreeMap::new();
    for record in instances {
        if let Some(owner) = &record.owner {
            machines.entry(owner).or_default().push(&record.hash);
        }
    }
    let mut changed = false;
    for owners in batches(machines.keys().copied(), |owner| (3 * owner.len(), 0)) {
        let listed = match shared.intake.ccn.aggregates(&owners, KEY).await {
            Ok(listed) => Some(listed),
            // Older nodes cannot list them.
            Err(CcnError::Status { .. } | CcnError::NoQuorum { .. }) => None,
            Err(error) => {
                tracing::warn!("port forwarding stays as it is: {}", crate::chain(&error));
                continue;
            }
        };
        for owner in owners {
            let aggregate = match &listed {
                Some(listed) => listed
                    .get(owner)
                    .cloned()
                    .ok_or_else(|| "the core channel nodes do not agree".to_owned()),
                None => {
                    let aggregate = shared.intake.ccn.aggregate(owner, KEY).await;
                    aggregate.map_err(|error| crate::chain(&error))
                }
            };
            for hash in machines.get(owner).into_iter().flatten() {
                changed |= heed(shared, hash, aggregate.as_ref()).await?;
            }
        }
    }
    Ok(changed)
}

/// Records a machine's mappings as its owner's aggregate, which was read or not, says.
async fn heed(
    shared: &Shared,
    hash: &ItemHash,
    aggregate: Result<&Option<Value>, &String>,
) -> Result<bool, LedgerError> {
    let record = shared.ledger.get(hash).await?;
    let always = record.as_ref().map_or_else(ssh_only, always);
    let read = match aggregate {
        Ok(aggregate) => wishes(aggregate.as_ref(), hash.as_str(), always.clone())
            .ok_or("the aggregate has something else in its place"),
        Err(reason) => Err(reason.as_str()),
    };
    let known = record.map(|record| record.ports).unwrap_or_default();
    let wishes = match read {
        Ok(wishes) => wishes,
        Err(reason) => {
            tracing::warn!(vm = %hash, "port forwarding stays as it is: {reason}");
            if !known.is_empty() {
                return Ok(false);
            }
            always
        }
    };
    let as_wished = |port: &PortMapping| {
        let wish = PortWish {
            tcp: port.tcp,
            udp: port.udp,
        };
        wishes.get(&port.guest_port) == Some(&wish)
    };
    if known.len() == wishes.len() && known.iter().all(as_wished) {
        return Ok(false);
    }
    let ports = shared
        .ledger
        .map_ports(hash, wishes, shared.config.network.host_ports)
        .await?;
    let changed = ports != known;
    if changed {
        tracing::info!(vm = %hash, ?ports, "ports forwarded");
    }
    Ok(changed)
}

fn ssh_only() -> BTreeMap<u16, PortWish> {
    let ssh = PortWish {
        tcp: true,
        udp: false,
    };
    BTreeMap::from([(SSH, ssh)])
}

/// What is forwarded whatever the aggregate says.
fn always(record: &Record) -> BTreeMap<u16, PortWish> {
    let workload = task::kept_workload(record);
    let published = workload.map(|workload| workload.published);
    let published = published.unwrap_or_default().into_iter();
    let mut wishes: BTreeMap<_, _> = published.take(MAX_PORTS - 1).collect();
    wishes.entry(SSH).or_default().tcp = true;
    wishes
}

/// `{"<hash>": {"ports": {"80": {"tcp": true, "udp": false}}}}`. A port that does not read is passed over; `None` when
/// something else stands where the machine's ports should be. Added to what is forwarded `always`.
fn wishes(
    aggregate: Option<&Value>,
    hash: &str,
    always: BTreeMap<u16, PortWish>,
) -> Option<BTreeMap<u16, PortWish>> {
    let mut wishes = always;
    let entry = match aggregate {
        None => None,
        Some(aggregate) => aggregate.as_object()?.get(hash),
    };
    // A machine's entry is taken away by writing null over it.
    let Some(entry) = entry.filter(|entry| !entry.is_null()) else {
        return Some(wishes);
    };
    let ports = match entry.as_object()?.get("ports") {
        None | Some(Value::Null) => return Some(wishes),
        Some(ports) => ports.as_object()?,
    };
    for (port, flags) in ports {
        let flag = |name| flags.get(name).and_then(Value::as_bool).unwrap_or(false);
        let (tcp, udp) = (flag("tcp"), flag("udp"));
        let Ok(port) = port.parse::<u16>() else {
            continue;
        };
        if port == 0 || !(tcp || udp) {
            continue;
        }
        if wishes.len() >= MAX_PORTS && !wishes.contains_key(&port) {
            continue;
        }
        let wish = wishes.entry(port).or_default();
        wish.tcp |= tcp;
        wish.udp |= udp;
    }
    Some(wishes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::any::any_json;

    #[test]
    fn port_22_is_always_forwarded() {
        assert_eq!(
            wishes(None, "h", ssh_only())
                .unwrap()
                .keys()
                .copied()
                .collect::<Vec<_>>(),
            [22]
        );
        let off = json!({"h": {"ports": {"22": {"tcp": false, "udp": false}}}});
        assert!(wishes(Some(&off), "h", ssh_only()).unwrap()[&22].tcp);
    }

    #[test]
    fn only_ones_own_ports_that_read_are_taken() {
        let aggregate = json!({
            "h": {"ports": {"80": {"tcp": true}, "53": {"udp": true, "tcp": false}, "0": {"tcp": true}, "x": {"tcp": true}, "70000": {"tcp": true}}},
            "other": {"ports": {"81": {"tcp": true}}},
            "gone": null,
        });
        let wishes = wishes(Some(&aggregate), "h", ssh_only()).unwrap();
        assert_eq!(wishes.keys().copied().collect::<Vec<_>>(), [22, 53, 80]);
        assert_eq!(
            wishes[&53],
            PortWish {
                tcp: false,
                udp: true
            }
        );
    }

    #[test]
    fn what_is_no_list_of_ports_is_not_taken_for_an_empty_one() {
        for aggregate in [
            json!([]),
            json!("gone"),
            json!({"h": []}),
            json!({"h": {"ports": ["80"]}}),
        ] {
            assert_eq!(
                wishes(Some(&aggregate), "h", ssh_only()),
                None,
                "{aggregate}"
            );
        }
        for aggregate in [json!({}), json!({"h": null}), json!({"h": {"ports": {}}})] {
            assert_eq!(wishes(Some(&aggregate), "h", ssh_only()), Some(ssh_only()));
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_in_an_aggregate_port_22_is_forwarded(aggregate in any_json("h|ports|tcp|udp|[0-9]{1,6}")) {
            if let Some(wishes) = wishes(Some(&aggregate), "h", ssh_only()) {
                prop_assert!(wishes[&22].tcp);
            }
        }

        #[test]
        fn an_aggregate_never_asks_for_more_than_allowed(ports in prop::collection::vec(any::<u16>(), 0..64)) {
            let ports: serde_json::Map<_, _> = ports.iter().map(|p| (p.to_string(), json!({"tcp": true}))).collect();
            let aggregate = json!({"h": {"ports": ports}});
            prop_assert!(wishes(Some(&aggregate), "h", ssh_only()).unwrap().len() <= MAX_PORTS);
        }
    }
}
