//! Messages that tests publish.

use aleph_message::{ItemHash, Keypair, MessageType};
use crn_agent::ledger::State;
use serde_json::{Value, json};

use crate::support::{Node, squashfs};

pub fn instance_content(image: &ItemHash, payment: &str) -> Value {
    json!({
        "allow_amend": false,
        "environment": {"internet": true, "hypervisor": "qemu"},
        "resources": {"vcpus": 1, "memory": 64, "seconds": 30},
        "authorized_keys": ["ssh-ed25519 AAAA me"],
        "payment": {"chain": "ETH", "type": payment},
        "volumes": [],
        "rootfs": {"parent": {"ref": image, "use_latest": false}, "persistence": "host", "size_mib": 10},
    })
}

pub fn instance(node: &Node, owner: &Keypair) -> ItemHash {
    let image = node.ccn.store(owner, b"a raw disk");
    node.ccn.publish(
        owner,
        MessageType::Instance,
        instance_content(&image, "hold"),
    )
}

pub fn program_content(code: &ItemHash, runtime: &ItemHash) -> Value {
    json!({
        "type": "vm-function", "allow_amend": false,
        "code": {"encoding": "zip", "entrypoint": "main:app", "ref": code, "use_latest": true},
        "runtime": {"ref": runtime, "use_latest": false, "comment": ""},
        "on": {"http": true},
        "environment": {"internet": false, "aleph_api": false, "reproducible": false, "shared_cache": false},
        "resources": {"vcpus": 1, "memory": 64, "seconds": 1},
        "volumes": [],
    })
}

pub fn program(node: &Node, owner: &Keypair) -> ItemHash {
    let (code, runtime) = (
        node.ccn.store(owner, b"code"),
        node.ccn.store(owner, &squashfs("runtime")),
    );
    node.ccn.publish(
        owner,
        MessageType::Program,
        program_content(&code, &runtime),
    )
}

pub fn failed(state: &State) -> bool {
    matches!(state, State::Failed(_))
}

pub fn reason(state: State) -> String {
    match state {
        State::Failed(failure) => failure.reason,
        other => panic!("not failed: {other:?}"),
    }
}
