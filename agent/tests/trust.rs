//! What a node does when its core channel nodes do not say the same.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use aleph_message::{Envelope, ItemHash, Keypair, MessageType};
use crn_agent::ledger::State;
use serde_json::{Value, json};
use support::{FakeCcn, Node};
use time::OffsetDateTime;

/// A node, and the three core channel nodes it asks.
struct Among {
    node: Node,
    ccns: [FakeCcn; 3],
    owner: Keypair,
}

impl Among {
    async fn start() -> Self {
        let others = [FakeCcn::start().await, FakeCcn::start().await];
        let node = Node::start_among(&others).await;
        let [second, third] = others;
        let ccns = [node.ccn.clone(), second, third];
        let owner = Keypair::generate();
        Self { node, ccns, owner }
    }

    /// A message that all three have.
    fn publish(&self, kind: MessageType, content: Value) -> ItemHash {
        let message = self.sign(kind, content);
        for ccn in &self.ccns {
            ccn.take(&message, json!(message));
        }
        message.item_hash
    }

    fn sign(&self, kind: MessageType, content: Value) -> Envelope {
        let now = OffsetDateTime::now_utc().unix_timestamp() as f64;
        Envelope::sign(&self.owner, kind, Some("TEST"), now, content).unwrap()
    }

    fn instance(&self) -> ItemHash {
        let image = ItemHash::of(b"a raw disk");
        for ccn in &self.ccns {
            ccn.set_file(&image, b"a raw disk");
        }
        let image = self.publish(
            MessageType::Store,
            json!({"item_type": "storage", "item_hash": image}),
        );
        self.publish(
            MessageType::Instance,
            json!({
                "allow_amend": false,
                "payment": {"chain": "ETH", "type": "hold"},
                "environment": {"internet": true, "aleph_api": true, "hypervisor": "qemu"},
                "resources": {"vcpus": 1, "memory": 128, "seconds": 30},
                "rootfs": {
                    "parent": {"ref": image, "use_latest": false},
                    "persistence": "host", "size_mib": 10,
                },
                "authorized_keys": [],
                "volumes": [],
            }),
        )
    }

    async fn running(&self) -> ItemHash {
        let hash = self.instance();
        self.node.push(&[&hash]).await;
        self.node.until_running(&hash).await;
        hash
    }

    /// One core channel node has this aggregate and tells of it.
    fn wish(&self, at: usize, hash: &ItemHash, ports: &[u16]) {
        let ports: serde_json::Map<_, _> = ports
            .iter()
            .map(|port| (port.to_string(), json!({"tcp": true, "udp": false})))
            .collect();
        let content = json!({hash.as_str(): {"ports": ports}});
        let ccn = &self.ccns[at];
        ccn.set_aggregate(&self.owner.address(), "port-forwarding", content.clone());
        let content = json!({"key": "port-forwarding", "content": content});
        let message = self.sign(MessageType::Aggregate, content);
        ccn.take(&message, json!(message));
    }

    /// The guest's ports that are forwarded.
    fn ports(&self) -> Vec<u16> {
        let networks = self.node.bench.networks.lock().unwrap();
        let ports = networks.iter().flat_map(|network| &network.ports);
        ports.map(|port| port.guest_port).collect()
    }

    async fn until_ports(&self, expected: &[u16]) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
        while self.ports() != expected {
            let late = tokio::time::Instant::now() > deadline;
            assert!(!late, "{:?}, expected {expected:?}", self.ports());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn forget(&self, at: usize, hash: &ItemHash) {
        self.ccns[at].set_status(hash, "forgotten");
        let message = self.sign(MessageType::Forget, json!({"hashes": [hash]}));
        self.ccns[at].take(&message, json!(message));
    }
}

/// Long enough for what a message brings about to have happened.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(700)).await;
}

/// S3: one API server was believed whatever it said.
#[tokio::test]
async fn one_liar_neither_ends_a_machine_nor_a_quorum_fails_to() {
    let among = Among::start().await;
    let hash = among.running().await;
    among.forget(1, &hash);
    settle().await;
    assert_eq!(among.node.record(&hash).await.state, State::Running);
    among.forget(2, &hash);
    let erased = |state: &State| *state == State::Erased;
    among.node.until(&hash, "erased", erased).await;
}

#[tokio::test]
async fn a_forged_copy_does_not_hide_the_genuine_message() {
    let among = Among::start().await;
    let hash = among.instance();
    let (status, genuine) = among.ccns[0].message(&hash);
    let mut forged = genuine.clone();
    forged["sender"] = json!(Keypair::generate().address());
    assert_eq!(status, "processed");
    for ccn in &among.ccns[..2] {
        ccn.set_message(&hash, forged.clone());
    }
    among.node.push(&[&hash]).await;
    among.node.until_running(&hash).await;
}

/// R5: a failing aggregate took every forwarded port away, SSH too.
#[tokio::test]
async fn forwarded_ports_follow_the_quorum_and_stay_when_there_is_none() {
    let among = Among::start().await;
    let hash = among.running().await;
    among.until_ports(&[22]).await;
    among.wish(0, &hash, &[80]);
    settle().await;
    assert_eq!(among.ports(), [22], "one of three");
    among.wish(2, &hash, &[80]);
    among.until_ports(&[22, 80]).await;
    let before = among.node.record(&hash).await.ports;

    among.ccns[0].break_aggregates(true);
    among.ccns[1].break_aggregates(true);
    among.wish(2, &hash, &[443]);
    settle().await;
    assert_eq!(among.ports(), [22, 80], "nobody agrees with the third");
    among.ccns[0].break_aggregates(false);
    among.wish(0, &hash, &[443, 80]);
    among.wish(2, &hash, &[443, 80]);
    among.until_ports(&[22, 80, 443]).await;
    // A number once given stays.
    let after = among.node.record(&hash).await.ports;
    assert!(before.iter().all(|port| after.contains(port)), "{after:?}");
}
