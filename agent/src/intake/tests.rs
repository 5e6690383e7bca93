use aleph_message::{Keypair, MessageType};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::any::any_json;

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

fn program(key: &Keypair) -> Value {
    json!({
        "address": key.address(), "time": 1_750_000_000.0, "allow_amend": false, "type": "vm-function",
        "code": {"encoding": "zip", "entrypoint": "main:app", "ref": "a".repeat(64), "use_latest": true},
        "runtime": {"ref": "b".repeat(64), "use_latest": false, "comment": ""},
        "data": {"encoding": "squashfs", "mount": "/data", "ref": "c".repeat(64), "use_latest": true},
        "on": {"http": true, "persistent": false},
        "environment": {"internet": true, "aleph_api": true, "reproducible": false, "shared_cache": false},
        "resources": {"vcpus": 1, "memory": 128, "seconds": 1},
        "variables": {"NAME": "value"},
        "volumes": [{"ephemeral": true, "size_mib": 10, "mount": "/tmp/x"}],
    })
}

fn read_as(kind: MessageType, key: &Keypair, content: Value) -> Result<Workload, String> {
    let message = signed(key, kind, content);
    let content = message.inline_content().unwrap().unwrap();
    Workload::read(&message.item_hash, &content).map_err(|error| error.to_string())
}

fn read(key: &Keypair, content: Value) -> Result<Workload, String> {
    read_as(MessageType::Instance, key, content)
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

/// R18: what a message asked for and the node did not do was passed over in silence.
#[test]
fn each_field_that_asks_for_what_is_not_here_is_refused_by_its_name() {
    use MessageType::{Instance, Program};
    let key = Keypair::generate();
    let long = vec!["ssh-rsa AAAA".repeat(500); 60];
    for (kind, pointer, value) in [
        (Program, "/environment/shared_cache", json!(true)),
        (Program, "/environment/reproducible", json!(true)),
        (
            Program,
            "/export",
            json!({"encoding": "zip", "mount": "/data"}),
        ),
        (Program, "/on/message", json!([{"sender": "0x1"}])),
        (Program, "/authorized_keys", json!(["ssh-ed25519 AAAA me"])),
        (
            Program,
            "/resources/published_ports",
            json!([{"protocol": "tcp", "port": 80}]),
        ),
        (Program, "/data/encoding", json!("zip")),
        (Program, "/data/mount", json!("relative")),
        (
            Program,
            "/data/mount",
            json!(format!("/{}", "m".repeat(2000))),
        ),
        (Instance, "/variables", json!({"NAME": "value"})),
        (
            Instance,
            "/environment/trusted_execution",
            json!({"policy": 1, "firmware": null}),
        ),
        (Instance, "/rootfs/persistence", json!("store")),
        (Instance, "/authorized_keys", json!(long)),
        (Instance, "/volumes/0/persistence", json!("store")),
        (Instance, "/resources/vcpus", json!(65)),
    ] {
        let mut content = match kind {
            Program => program(&key),
            _ => instance(&key),
        };
        assert!(read_as(kind, &key, content.clone()).is_ok());
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        content.pointer_mut(parent).unwrap()[field] = value;
        let refused = read_as(kind, &key, content).unwrap_err();
        let name = pointer[1..].replace("/0/", "[0].").replace('/', ".");
        assert!(refused.starts_with(&format!("{name}: ")), "{refused}");
    }
}

#[test]
fn lists_that_ask_for_nothing_are_no_wishes() {
    let key = Keypair::generate();
    let mut content = program(&key);
    content["on"]["message"] = json!([]);
    content["authorized_keys"] = json!([]);
    content["resources"]["published_ports"] = json!([]);
    let workload = read_as(MessageType::Program, &key, content).unwrap();
    assert!(workload.unheeded.is_empty() && workload.internet);
    let mut content = instance(&key);
    content["variables"] = json!({});
    assert!(read(&key, content).is_ok());
}

/// What the published Python client sends with every program that it is not told more about.
#[test]
fn a_program_that_wants_the_api_without_the_internet_runs_and_its_owner_is_told() {
    let key = Keypair::generate();
    let mut content = program(&key);
    content["environment"]["internet"] = json!(false);
    let workload = read_as(MessageType::Program, &key, content).unwrap();
    assert!(!workload.internet);
    assert_eq!(workload.unheeded.len(), 1);
    assert!(workload.unheeded[0].starts_with("environment.aleph_api: "));
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

proptest! {
    /// One value of a message after another is something else: it is no message any more, or one that runs or is refused by
    /// a field's name.
    #[test]
    fn whatever_a_message_says_it_is_a_workload_or_refused_by_a_field(
        is_program in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_json("[a-z_]{1,9}")), 1..4),
    ) {
        let key = Keypair::from_hex(&"07".repeat(32)).unwrap();
        let (kind, mut content) = if is_program {
            (MessageType::Program, program(&key))
        } else {
            (MessageType::Instance, instance(&key))
        };
        for (index, value) in changes {
            let places = pointers(&content);
            *content.pointer_mut(&places[index.index(places.len())]).unwrap() = value;
        }
        if let Ok(content) = Content::parse(kind, content) {
            match Workload::read(&ItemHash::of(b""), &content) {
                Ok(workload) => {
                    prop_assert!(workload.volumes.iter().all(|volume| volume.mount().starts_with('/')));
                    prop_assert!((1..=64).contains(&workload.vcpus));
                }
                Err(refused) => {
                    let said = refused.to_string();
                    let field = said.split(": ").next().unwrap();
                    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._[]".contains(c);
                    prop_assert!(field.chars().all(is_name), "{}", said);
                }
            }
        }
    }

    #[test]
    fn whatever_stands_in_a_security_aggregate_a_stranger_is_not_let_in(
        security in any_json("authorizations|address|types|channels|chain|TEST|ETH|INSTANCE"),
    ) {
        let key = Keypair::from_hex(&"07".repeat(32)).unwrap();
        let message = signed(&key, MessageType::Instance, instance(&key));
        // No value here is the signer's address.
        prop_assert!(!delegates(&security, &message));
    }
}

/// Where each value of a document stands.
fn pointers(value: &Value) -> Vec<String> {
    fn walk(at: &str, value: &Value, found: &mut Vec<String>) {
        let children: Vec<(String, &Value)> = match value {
            Value::Object(fields) => fields.iter().map(|(k, v)| (k.clone(), v)).collect(),
            Value::Array(list) => {
                let numbered = list.iter().enumerate();
                numbered.map(|(i, v)| (i.to_string(), v)).collect()
            }
            _ => Vec::new(),
        };
        for (name, child) in children {
            let at = format!("{at}/{name}");
            walk(&at, child, found);
            found.push(at);
        }
    }
    let mut found = Vec::new();
    walk("", value, &mut found);
    found
}
