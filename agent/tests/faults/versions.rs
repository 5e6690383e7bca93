//! Another version of a message on a real host: what its disks are then, and what the machine is told.

use std::collections::BTreeSet;

use aleph_message::{ItemHash, MessageType};
use serde_json::{Value, json};

use crate::host::{Host, image, inside, run};

/// R1, R14: the data of a volume stays where it was when another goes, and new keys are another instance to cloud-init.
#[tokio::test]
async fn another_version_brings_new_keys_and_takes_a_volume_away_and_no_other_volumes_data() {
    if !inside(
        "versions::another_version_brings_new_keys_and_takes_a_volume_away_and_no_other_volumes_data",
    ) {
        return;
    }
    let mut host = Host::new().await;
    host.start().await;
    let image = host.ccn.store(&host.owner, &image("image", 4096));
    let publish = |host: &Host, key: &str, mounts: &[&str], replaces: Option<&ItemHash>| {
        let volume = |mount: &&str| json!({"persistence": "host", "size_mib": 1, "mount": mount});
        let mut content = json!({
            "allow_amend": true,
            "environment": {"internet": true, "hypervisor": "qemu"},
            "resources": {"vcpus": 1, "memory": 32, "seconds": 30},
            "authorized_keys": [key],
            "payment": {"chain": "ETH", "type": "hold"},
            "volumes": mounts.iter().map(volume).collect::<Vec<_>>(),
            "rootfs": {"parent": {"ref": image, "use_latest": false}, "persistence": "host", "size_mib": 12},
        });
        if let Some(replaces) = replaces {
            content["replaces"] = json!(replaces);
        }
        host.ccn
            .publish(&host.owner, MessageType::Instance, content)
    };
    let hash = publish(&host, "ssh-ed25519 old", &["/a", "/b"], None);
    let wanted = BTreeSet::from([hash.clone()]);
    host.push(&wanted).await;
    host.settle(&wanted).await;
    let dir = host.dir.path().join("s/vm").join(hash.as_str());
    let told = |file: &str| {
        let seed = dir.join("seed.img");
        let text = run(&format!("mtype -i {} ::{file}", seed.display()));
        let text = text.trim_start_matches("#cloud-config\n").to_owned();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    assert_eq!(told("meta-data")["instance-id"], format!("iid-{hash}"));
    std::fs::write(dir.join("vol1.raw"), "on b").unwrap();

    // A guest that stands still does not shut down: it is ended, so that the next agent starts it anew.
    host.kill();
    for (pid, _) in host.processes() {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    publish(&host, "ssh-ed25519 new", &["/b"], Some(&hash));
    host.start().await;
    host.settle(&wanted).await;
    assert_eq!(told("meta-data")["instance-id"], format!("iid-{hash}-1"));
    let data = told("user-data");
    assert_eq!(data["ssh_authorized_keys"], json!(["ssh-ed25519 new"]));
    assert_eq!(data["mounts"].as_array().unwrap().len(), 1);
    assert_eq!(data["mounts"][0][0], "/dev/disk/by-id/virtio-vol1");
    assert_eq!(data["mounts"][0][1], "/b");
    let kept = std::fs::read(dir.join("vol1.raw")).unwrap();
    assert!(kept.starts_with(b"on b"));
    assert!(!dir.join("vol0.raw").exists());
    host.push(&BTreeSet::new()).await;
}
