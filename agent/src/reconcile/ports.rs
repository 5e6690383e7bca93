//! Which ports of a machine are forwarded: 22 of an instance, and what its owner's `port-forwarding` aggregate says.

use std::collections::BTreeMap;

use aleph_message::ItemHash;
use serde_json::Value;

use super::Shared;
use crate::ledger::{Kind, LedgerError, PortWish};

/// Forwarded ports of one machine.
const MAX_PORTS: usize = 20;
const SSH: u16 = 22;

/// Reads the owner's wishes and records the mappings. When they cannot be read, what is forwarded stays; a machine
/// that has nothing yet gets port 22.
pub(super) async fn refresh(
    shared: &Shared,
    hash: &ItemHash,
    kind: Kind,
    owner: &str,
) -> Result<(), LedgerError> {
    if kind != Kind::Instance {
        return Ok(());
    }
    let wishes = match shared.intake.ccn.aggregate(owner, "port-forwarding").await {
        Ok(aggregate) => wishes(aggregate.as_ref(), hash.as_str()),
        Err(error) => {
            tracing::warn!(vm = %hash, "port forwarding stays as it is: {}", crate::chain(&error));
            let known = shared
                .ledger
                .get(hash)
                .await?
                .map(|record| record.ports)
                .unwrap_or_default();
            if !known.is_empty() {
                return Ok(());
            }
            wishes(None, hash.as_str())
        }
    };
    let ports = shared
        .ledger
        .map_ports(hash, wishes, shared.config.network.host_ports)
        .await?;
    tracing::debug!(vm = %hash, ?ports, "ports forwarded");
    Ok(())
}

/// `{"<hash>": {"ports": {"80": {"tcp": true, "udp": false}}}}`; what does not read is passed over.
fn wishes(aggregate: Option<&Value>, hash: &str) -> BTreeMap<u16, PortWish> {
    let mut wishes = BTreeMap::from([(
        SSH,
        PortWish {
            tcp: true,
            udp: false,
        },
    )]);
    let ports = aggregate
        .and_then(|aggregate| aggregate.get(hash))
        .and_then(|entry| entry.get("ports"))
        .and_then(Value::as_object);
    for (port, flags) in ports.into_iter().flatten() {
        let flag = |name| flags.get(name).and_then(Value::as_bool).unwrap_or(false);
        let (tcp, udp) = (flag("tcp"), flag("udp"));
        let Ok(port) = port.parse::<u16>() else {
            continue;
        };
        if port == 0 || !(tcp || udp) || wishes.len() >= MAX_PORTS {
            continue;
        }
        let wish = wishes.entry(port).or_insert(PortWish {
            tcp: false,
            udp: false,
        });
        wish.tcp |= tcp;
        wish.udp |= udp;
    }
    wishes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn port_22_is_always_forwarded() {
        assert_eq!(wishes(None, "h").keys().copied().collect::<Vec<_>>(), [22]);
        let off = json!({"h": {"ports": {"22": {"tcp": false, "udp": false}}}});
        assert!(wishes(Some(&off), "h")[&22].tcp);
    }

    #[test]
    fn only_ones_own_ports_that_read_are_taken() {
        let aggregate = json!({
            "h": {"ports": {"80": {"tcp": true}, "53": {"udp": true, "tcp": false}, "0": {"tcp": true}, "x": {"tcp": true}, "70000": {"tcp": true}}},
            "other": {"ports": {"81": {"tcp": true}}},
            "gone": null,
        });
        let wishes = wishes(Some(&aggregate), "h");
        assert_eq!(wishes.keys().copied().collect::<Vec<_>>(), [22, 53, 80]);
        assert_eq!(
            wishes[&53],
            PortWish {
                tcp: false,
                udp: true
            }
        );
    }

    proptest! {
        #[test]
        fn an_aggregate_never_asks_for_more_than_allowed(ports in prop::collection::vec(any::<u16>(), 0..64)) {
            let ports: serde_json::Map<_, _> = ports.iter().map(|p| (p.to_string(), json!({"tcp": true}))).collect();
            let aggregate = json!({"h": {"ports": ports}});
            prop_assert!(wishes(Some(&aggregate), "h").len() <= MAX_PORTS);
        }
    }
}
