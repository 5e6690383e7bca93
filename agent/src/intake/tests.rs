use aleph_message::{Keypair, MessageType};
use serde_json::json;

use super::*;

fn signed(key: &Keypair, message_type: MessageType, content: Value) -> Envelope {
    Envelope::sign(key, message_type, Some("TEST"), 1_750_000_000.0, content).unwrap()
}

fn instance(key: &Keypair) -> Value {
    json!({
        "address": key.address(), "time": 1_750_000_000.0, "allow_amend": false,
        "environment": {"internet": true, "hypervisor": "qemu"},
        "resources": {"vcpus": 2, "memory": 2048, "seconds": 30},
        "authorized_keys": ["ssh-ed25519 AAAA me"],
        "payment": {"chain": "ETH", "type": "credit"},
        "volumes": [
            {"mount": "/data", "persistence": "host", "name": "data", "size_mib": 5000},
            {"ref": "b".repeat(64), "mount": "/opt/x"},
        ],
        "rootfs": {"parent": {"ref": "a".repeat(64), "use_latest": false}, "persistence": "host", "size_mib": 20480},
    })
}

fn read(key: &Keypair, content: Value) -> Result<Workload, String> {
    let message = signed(key, MessageType::Instance, content);
    let content = message.inline_content().unwrap().unwrap();
    Workload::read(&message.item_hash, &content).map_err(|error| error.to_string())
}

#[test]
fn an_instance_becomes_a_workload() {
    let key = Keypair::generate();
    let workload = read(&key, instance(&key)).unwrap();
    assert_eq!(workload.kind, crate::ledger::Kind::Instance);
    assert_eq!(
        (workload.vcpus, workload.memory_mib, workload.payment.method),
        (2, 2048, "credit")
    );
    assert_eq!(workload.demand().disk_mib, 25480);
    assert_eq!(workload.references().len(), 2);
    assert_eq!(workload.owner, key.address());
    assert_eq!(workload.hostname().len(), 52);
}

#[test]
fn what_this_node_cannot_do_is_said_before_anything_is_started() {
    let key = Keypair::generate();
    let with = |path: &str, value: Value| {
        let mut content = instance(&key);
        *content.pointer_mut(path).unwrap() = value;
        read(&key, content).unwrap_err()
    };
    assert!(with("/volumes/0/mount", json!("data")).contains("volumes[0].mount"));
    assert!(with("/volumes/0/mount", json!("/a/../b")).contains("absolute path"));
    for root in ["/", "//", "/a/./b"] {
        assert!(with("/volumes/0/mount", json!(root)).contains("absolute path"));
    }
    let twice = with("/volumes/1/mount", json!("/data/"));
    assert!(twice.starts_with("volumes[1].mount: "), "{twice}");
    let mut content = instance(&key);
    content["requirements"] = json!({"cpu": {"architecture": "arm64"}});
    let refused = read(&key, content).unwrap_err();
    assert!(
        refused.starts_with("requirements.cpu.architecture: "),
        "{refused}"
    );
    assert!(with("/volumes/0/persistence", json!("store")).contains("volumes[0].persistence"));
    assert!(with("/resources/vcpus", json!(65)).contains("resources.vcpus"));
}

#[test]
fn a_delegation_needs_every_filter_to_match() {
    let key = Keypair::generate();
    let message = signed(&key, MessageType::Instance, instance(&key));
    let by = |entry: Value| delegates(&json!({ "authorizations": [entry] }), &message);
    let address = key.address();
    assert!(by(json!({"address": address})));
    assert!(by(
        json!({"address": address.to_lowercase(), "types": ["INSTANCE"], "channels": ["TEST"], "chain": "ETH"})
    ));
    assert!(by(json!({"address": address, "types": []})));
    assert!(!by(json!({"address": address, "types": ["POST"]})));
    assert!(!by(json!({"address": address, "channels": ["OTHER"]})));
    assert!(!by(json!({"address": address, "chain": "SOL"})));
    assert!(!by(json!({"address": "0x0"})));
    assert!(!delegates(&json!({"authorizations": {}}), &message));
}

#[test]
fn a_kept_message_is_read_again() {
    let key = Keypair::generate();
    let message = signed(&key, MessageType::Instance, instance(&key));
    let text = serde_json::to_string(&Kept {
        message: json!(message),
        content: None,
        amendment: None,
        places: None,
    })
    .unwrap();
    assert_eq!(
        Intake::kept(&message.item_hash, &text).unwrap().envelope,
        message
    );
    assert!(Intake::kept(&message.item_hash, "{}").is_err());
}
