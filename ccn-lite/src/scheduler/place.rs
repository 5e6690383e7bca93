//! Placement: which node gets which machine. Pure; the same input gives the same decision.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Node, Vm};

/// Where machines go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Machine to node.
    pub assignments: BTreeMap<String, String>,
    /// Machines no node of the registry may ever take, and why.
    pub unschedulable: BTreeMap<String, String>,
}

/// What is known of a node when something is to be placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// It answered lately.
    pub online: bool,
    /// It offers confidential computing.
    pub confidential: bool,
}

/// Decides. A machine stays where it was placed as long as that node is in the registry, for its disks are there; a
/// machine whose message names a node goes there; any other goes to the least loaded node that is online. What finds no
/// node now is left out and decided again when one comes.
pub fn place(
    vms: &[Vm],
    nodes: &[Node],
    before: &BTreeMap<String, String>,
    readiness: impl Fn(&str) -> Readiness,
) -> Decision {
    let mut decision = Decision::default();
    // Memory is what runs out first.
    let mut load: BTreeMap<&str, u64> = nodes.iter().map(|node| (node.hash.as_str(), 0)).collect();
    let mut unplaced = Vec::new();
    for vm in vms {
        let pinned = vm.node.get("node_hash").and_then(Value::as_str);
        let wanted = pinned.or_else(|| before.get(&vm.hash).map(String::as_str));
        match wanted.and_then(|hash| load.get_mut(hash)) {
            Some(used) => {
                *used += vm.memory_mib;
                decision
                    .assignments
                    .insert(vm.hash.clone(), wanted.unwrap_or_default().to_owned());
            }
            None => match pinned {
                Some(hash) => {
                    let reason = format!("node {hash} is not in the registry");
                    decision.unschedulable.insert(vm.hash.clone(), reason);
                }
                None => unplaced.push(vm),
            },
        }
    }
    for vm in unplaced {
        if vm
            .node
            .get("address_regex")
            .is_some_and(|pattern| !pattern.is_null())
        {
            let reason =
                "this scheduler does not place by address pattern; name the node".to_owned();
            decision.unschedulable.insert(vm.hash.clone(), reason);
            continue;
        }
        let owner = vm.node.get("owner").and_then(Value::as_str);
        let may_run = |node: &Node| {
            let owned = node
                .entry
                .get("owner")
                .and_then(Value::as_str)
                .unwrap_or_default();
            owner.is_none_or(|owner| owner.eq_ignore_ascii_case(owned))
        };
        if !nodes.is_empty() && !nodes.iter().any(may_run) {
            let reason = "no node of the registry has the required owner".to_owned();
            decision.unschedulable.insert(vm.hash.clone(), reason);
            continue;
        }
        let best = nodes
            .iter()
            .filter(|node| may_run(node))
            .filter(|node| {
                let ready = readiness(&node.hash);
                ready.online && (ready.confidential || !vm.confidential)
            })
            .min_by_key(|node| (load.get(node.hash.as_str()).copied(), node.hash.as_str()));
        if let Some(node) = best {
            *load.entry(node.hash.as_str()).or_default() += vm.memory_mib;
            decision
                .assignments
                .insert(vm.hash.clone(), node.hash.clone());
        }
    }
    decision
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::scheduler::VmKind;

    fn vm(hash: &str, node: Value) -> Vm {
        Vm {
            hash: hash.to_owned(),
            kind: VmKind::Instance,
            owner: "0xA".to_owned(),
            sender: "0xA".to_owned(),
            created: 0.0,
            payment_type: "credit".to_owned(),
            vcpus: 1,
            memory_mib: 1024,
            node,
            confidential: false,
        }
    }

    fn node(hash: &str) -> Node {
        Node {
            hash: hash.to_owned(),
            address: String::new(),
            entry: json!({"owner": format!("0xOwner{hash}")}),
        }
    }

    fn online(_: &str) -> Readiness {
        Readiness {
            online: true,
            confidential: false,
        }
    }

    fn nodes() -> Vec<Node> {
        vec![node("n1"), node("n2")]
    }

    #[test]
    fn machines_spread_over_the_nodes() {
        let vms = ["a", "b", "c", "d"].map(|hash| vm(hash, Value::Null));
        let decision = place(&vms, &nodes(), &BTreeMap::new(), online);
        let on = |node: &str| {
            decision
                .assignments
                .values()
                .filter(|at| *at == node)
                .count()
        };
        assert_eq!((on("n1"), on("n2")), (2, 2));
    }

    #[test]
    fn a_named_node_is_honoured_even_when_it_is_away() {
        let vms = [
            vm("a", json!({"node_hash": "n2"})),
            vm("b", json!({"node_hash": "gone"})),
        ];
        let decision = place(
            &vms,
            &nodes(),
            &BTreeMap::from([("a".into(), "n1".into())]),
            |_| Readiness::default(),
        );
        assert_eq!(
            decision.assignments,
            BTreeMap::from([("a".into(), "n2".into())])
        );
        assert_eq!(
            decision.unschedulable["b"],
            "node gone is not in the registry"
        );
    }

    #[test]
    fn a_placed_machine_stays_while_its_node_is_registered() {
        let vms = [vm("a", Value::Null), vm("b", Value::Null)];
        let before = BTreeMap::from([("a".into(), "n1".into()), ("b".into(), "gone".into())]);
        let away = |hash: &str| Readiness {
            online: hash == "n2",
            confidential: false,
        };
        let decision = place(&vms, &nodes(), &before, away);
        assert_eq!(
            decision.assignments,
            BTreeMap::from([("a".into(), "n1".into()), ("b".into(), "n2".into())])
        );
    }

    #[test]
    fn without_a_node_online_new_machines_wait() {
        let decision = place(&[vm("a", Value::Null)], &nodes(), &BTreeMap::new(), |_| {
            Readiness::default()
        });
        assert_eq!(decision, Decision::default());
    }

    #[test]
    fn the_required_owner_is_compared_without_case() {
        let vms = [
            vm("a", json!({"owner": "0XOWNERN2"})),
            vm("b", json!({"owner": "0xB"})),
        ];
        let decision = place(&vms, &nodes(), &BTreeMap::new(), online);
        assert_eq!(decision.assignments["a"], "n2");
        assert!(decision.unschedulable.contains_key("b"));
    }

    #[test]
    fn confidential_machines_need_a_confidential_node() {
        let vms = [Vm {
            confidential: true,
            ..vm("a", Value::Null)
        }];
        let one = |hash: &str| Readiness {
            online: true,
            confidential: hash == "n2",
        };
        assert_eq!(
            place(&vms, &nodes(), &BTreeMap::new(), one).assignments["a"],
            "n2"
        );
        assert!(
            place(&vms, &nodes(), &BTreeMap::new(), online)
                .assignments
                .is_empty()
        );
    }

    proptest! {
        #[test]
        fn a_decision_once_made_is_kept(count in 0_usize..20, pinned in prop::collection::vec(0_usize..4, 20)) {
            let pins = [Value::Null, json!({"node_hash": "n1"}), json!({"node_hash": "n2"}), json!({"node_hash": "x"})];
            let vms: Vec<Vm> = (0..count).map(|i| vm(&format!("v{i}"), pins[pinned[i]].clone())).collect();
            let first = place(&vms, &nodes(), &BTreeMap::new(), online);
            let second = place(&vms, &nodes(), &first.assignments, online);
            prop_assert_eq!(first, second);
        }
    }
}
