//! The node as the scheduler's world.

use std::collections::BTreeMap;

use aleph_message::Keypair;
use serde_json::Value;
use tokio::sync::{broadcast, watch};

use super::{Node, Snapshot, Vm, VmKind, World};
use crate::node::Node as Host;
use crate::store::assignments::{self, Candidate};
use crate::store::{StoreError, aggregates};

fn vm(candidate: Candidate) -> Vm {
    let Candidate {
        item_hash,
        owner,
        sender,
        kind,
        persistent,
        payment_type,
        created,
        content,
    } = candidate;
    let kind = match (kind.as_str(), persistent) {
        ("INSTANCE", _) => VmKind::Instance,
        (_, true) => VmKind::PersistentProgram,
        (_, false) => VmKind::OnDemandProgram,
    };
    let number = |path, default| {
        content
            .pointer(path)
            .and_then(Value::as_u64)
            .unwrap_or(default)
    };
    Vm {
        hash: item_hash,
        kind,
        owner,
        sender,
        created,
        payment_type,
        vcpus: number("/resources/vcpus", 1),
        memory_mib: number("/resources/memory", 128),
        node: content
            .pointer("/requirements/node")
            .cloned()
            .unwrap_or(Value::Null),
        confidential: content
            .pointer("/environment/trusted_execution")
            .is_some_and(|tee| !tee.is_null()),
    }
}

/// Nodes linked into the network that have an address.
fn registered(entry: &Value) -> Option<Node> {
    let word = |name: &str| entry.get(name).and_then(Value::as_str);
    let address = word("address")?.trim_end_matches('/');
    let is_url = address.starts_with("http://") || address.starts_with("https://");
    let linked = word("status").is_none_or(|status| status == "linked");
    (is_url && linked).then(|| Node {
        hash: word("hash").unwrap_or_default().to_owned(),
        address: address.to_owned(),
        entry: entry.clone(),
    })
}

impl World for Host {
    type Error = StoreError;

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let authority = self.config.authorities.corechannel.clone();
        self.store
            .read(move |conn| {
                let registry = aggregates::get(conn, &authority, "corechannel")?
                    .map(|registry| registry.content);
                let entries = registry
                    .as_ref()
                    .and_then(|registry| registry.get("resource_nodes")?.as_array());
                Ok(Snapshot {
                    vms: assignments::candidates(conn)?.into_iter().map(vm).collect(),
                    nodes: entries
                        .into_iter()
                        .flatten()
                        .filter_map(registered)
                        .collect(),
                    assignments: assignments::all(conn)?,
                })
            })
            .await
    }

    async fn assign(&self, assignments: BTreeMap<String, String>) -> Result<(), StoreError> {
        self.store
            .write(move |conn| assignments::replace(conn, &assignments))
            .await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        let (sender, receiver) = watch::channel(0);
        let mut events = self.events.subscribe();
        tokio::spawn(async move {
            loop {
                let relevant = tokio::select! {
                    event = events.recv() => match event {
                        Ok(published) => {
                            let message = &published.message;
                            matches!(message.kind.as_str(), "PROGRAM" | "INSTANCE" | "FORGET")
                                || message.content_key.as_deref() == Some("corechannel")
                        }
                        // Something was missed: look.
                        Err(broadcast::error::RecvError::Lagged(_)) => true,
                        Err(broadcast::error::RecvError::Closed) => return,
                    },
                    () = sender.closed() => return,
                };
                if relevant {
                    sender.send_modify(|count| *count += 1);
                }
            }
        });
        receiver
    }

    fn key(&self) -> &Keypair {
        &self.key
    }
}
