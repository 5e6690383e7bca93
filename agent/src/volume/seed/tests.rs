use std::process::Command;

use super::*;
use crate::net::{Kind, Pools};

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn volume(number: u32, mount: &str, holds: Holds) -> SeedVolume {
    SeedVolume {
        serial: format!("vol{number}"),
        mount: mount.to_owned(),
        holds,
    }
}

/// R1: a new root disk, or a later revision, does what is done at a first boot, and the data of volumes stays.
#[test]
fn the_command_that_formats_a_volume_touches_only_a_blank_one() {
    let dir = tempfile::tempdir().unwrap();
    let disk = |name: &str| {
        let path = dir.path().join(name);
        File::create(&path).unwrap().set_len(8 << 20).unwrap();
        path.to_str().unwrap().to_owned()
    };
    // As cloud-init calls it: the placeholders of Python's `%`, and a shell.
    let format = |disk: &str| run("sh", &["-c", &FORMAT_BLANK.replace("%(device)s", disk)]);
    let kind = |disk: &str| {
        run(
            "blkid",
            &["-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "value", disk],
        )
    };
    let (blank, used, parted) = (disk("blank"), disk("used"), disk("parted"));
    format(&blank);
    assert_eq!(kind(&blank), "ext4\n");
    let before = fs::read(&blank).unwrap();
    format(&blank);
    assert!(fs::read(&blank).unwrap() == before, "formatted again");
    run("mkfs.vfat", &[&used]);
    format(&used);
    assert_eq!(kind(&used), "vfat\n");
    // An empty table of a disk with partitions: its signature, at the end of the first sector, and one entry.
    let mut table = vec![0; 512];
    table[446..462].copy_from_slice(&[0, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0]);
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    let mut file = File::options().write(true).open(&parted).unwrap();
    file.write_all(&table).unwrap();
    format(&parted);
    assert_eq!(kind(&parted), "dos\n");
}

/// R14: keys of an amended message never reached a machine that had booted once.
#[test]
fn the_instance_id_changes_with_what_the_owner_says_and_with_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("seed.img");
    let vm = "ab".repeat(32);
    let pools = Pools::parse("172.16.0.0/12", "fec0::/64").unwrap();
    let plan = pools.plan(3, &vm, Kind::Instance).unwrap();
    let (old, new) = (["ssh-ed25519 A".to_owned()], ["ssh-ed25519 B".to_owned()]);
    let dns: [IpAddr; 1] = ["10.0.2.3".parse().unwrap()];
    let first = Seed {
        vm: &vm,
        hostname: "host",
        ssh_keys: &old,
        plan: &plan,
        mtu: 1500,
        dns: &[],
        volumes: &[],
        user_data: None,
    };
    let write = |seed: &Seed<'_>| {
        write_seed(&target, seed).unwrap();
        let image = target.to_str().unwrap();
        let text = run("mtype", &["-i", image, "::meta-data"]);
        let meta: serde_json::Value = serde_json::from_str(&text).unwrap();
        let data = run("mtype", &["-i", image, "::user-data"]);
        let data = data.strip_prefix("#cloud-config\n").unwrap().to_owned();
        let data: serde_json::Value = serde_json::from_str(&data).unwrap();
        (
            meta["instance-id"].as_str().unwrap().to_owned(),
            data["ssh_deletekeys"].as_bool().unwrap(),
        )
    };
    assert_eq!(write(&first), (format!("iid-{vm}"), true));
    // The host's own affairs are none of the machine's.
    let moved = Seed {
        mtu: 9000,
        dns: &dns,
        ..first.clone()
    };
    assert_eq!(write(&moved), (format!("iid-{vm}"), true));
    let keys = Seed {
        ssh_keys: &new,
        ..first.clone()
    };
    // The machine's own keys stay: whoever knows it knows it still.
    assert_eq!(write(&keys), (format!("iid-{vm}-1"), false));
    assert_eq!(write(&keys), (format!("iid-{vm}-1"), false));
    // Back again is another change: the first id has been used up.
    assert_eq!(write(&first), (format!("iid-{vm}-2"), false));
    let mounts = Seed {
        volumes: &[volume(0, "/data", Holds::Nothing)],
        ..first.clone()
    };
    assert_eq!(write(&mounts).0, format!("iid-{vm}-3"));
    fs::write(dir.path().join("root.raw"), "x").unwrap();
    crate::volume::wipe(dir.path(), false).unwrap();
    assert_eq!(write(&mounts), (format!("iid-{vm}"), true));
    // What a power cut left is said, not guessed.
    fs::write(dir.path().join(REVISION), "{").unwrap();
    assert!(write_seed(&target, &first).is_err());
}

#[test]
fn other_programs_find_the_label_and_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("seed.img");
    let vm = "ab".repeat(32);
    let plan = Pools::parse("172.16.0.0/12", "fec0::/64")
        .unwrap()
        .plan(3, &vm, Kind::Instance)
        .unwrap();
    let keys = ["ssh-ed25519 AAAA \"quoted\"\nuser: root".to_owned()];
    let dns = ["10.0.2.3".parse().unwrap()];
    let seed = Seed {
        vm: &vm,
        hostname: "host",
        ssh_keys: &keys,
        plan: &plan,
        mtu: 1500,
        dns: &dns,
        volumes: &[
            volume(0, "/mnt/data", Holds::Nothing),
            volume(2, "/mnt/image", Holds::Image),
            volume(3, "/mnt/copy", Holds::Copy),
        ],
        user_data: None,
    };
    write_seed(&target, &seed).unwrap();
    write_seed(&target, &seed).unwrap();

    let image = target.to_str().unwrap();
    let blkid = run("blkid", &["-p", "-o", "export", image]);
    assert!(
        blkid.contains("TYPE=vfat") && blkid.contains("LABEL=CIDATA"),
        "{blkid}"
    );
    run("fsck.vfat", &["-n", image]);
    let user_data = run("mtype", &["-i", image, "::user-data"]);
    let body: serde_json::Value =
        serde_json::from_str(user_data.strip_prefix("#cloud-config\n").unwrap()).unwrap();
    assert_eq!(body["ssh_authorized_keys"][0], keys[0]);
    assert_eq!(body["disable_root"], false);
    assert_eq!(body["mounts"][0][0], "/dev/disk/by-id/virtio-vol0");
    assert_eq!(body["mounts"][1][1], "/mnt/image");
    assert_eq!(body["mounts"][1][2], "squashfs");
    assert_eq!(
        body["mounts"][2][0], "/dev/disk/by-id/virtio-vol3",
        "by its serial, not by its place"
    );
    // What a disk begins as is not formatted, whatever it is.
    assert_eq!(body["mounts"][2][2], "auto");
    assert!(!body["mounts"][2][3].as_str().unwrap().contains("makefs"));
    assert_eq!(body["fs_setup"].as_array().unwrap().len(), 1);
    assert_eq!(body["fs_setup"][0]["device"], "/dev/disk/by-id/virtio-vol0");
    let network: serde_json::Value =
        serde_json::from_str(&run("mtype", &["-i", image, "::network-config"])).unwrap();
    let card = &network["ethernets"]["eth0"];
    assert_eq!(card["match"]["macaddress"], "02:ab:ab:ab:ab:ab");
    assert_eq!(card["addresses"][0], "172.16.3.2/24");
    assert_eq!(card["addresses"][1], "fec0::3:abab:abab:aba1/124");
    assert_eq!(card["routes"][1]["via"], "fec0::3:abab:abab:aba0");
    let meta_data: serde_json::Value =
        serde_json::from_str(&run("mtype", &["-i", image, "::meta-data"])).unwrap();
    assert_eq!(meta_data["instance-id"], format!("iid-{vm}"));

    // What Python's parser of MIME, which is cloud-init's, makes of an owner's own user data, and of what is to be done
    // about a key that the message names no more.
    let script = "#!/bin/sh\necho 'né'\n".repeat(20);
    let seed = Seed {
        user_data: Some(&script),
        ..seed
    };
    let parse = "import email, json, sys\n\
        parts = email.message_from_file(open(sys.argv[1])).get_payload()\n\
        print(json.dumps([[p.get_content_type(), p.get_payload(decode=True).decode()] for p in parts]))";
    let mixed = dir.path().join("mixed");
    let mixed = mixed.to_str().unwrap();
    let parts_of = |seed: &Seed<'_>| -> serde_json::Value {
        write_seed(&target, seed).unwrap();
        run("mcopy", &["-o", "-i", image, "::user-data", mixed]);
        serde_json::from_str(&run("python3", &["-c", parse, mixed])).unwrap()
    };
    let parts = parts_of(&seed);
    assert_eq!(parts[0][0], "text/cloud-config");
    assert!(
        parts[0][1]
            .as_str()
            .unwrap()
            .starts_with("#cloud-config\n{")
    );
    assert_eq!(parts[1], json!(["text/plain", script]));
    assert!(parts[2].is_null());
    let base64 = "AAAAC3NzaC1lZDI1NTE5AAAAIGone";
    let (before, now) = ([format!("ssh-ed25519 {base64} me")], ["ssh-rsa B".into()]);
    let named = Seed {
        ssh_keys: &before,
        ..seed.clone()
    };
    assert!(parts_of(&named)[2].is_null());
    let parts = parts_of(&Seed {
        ssh_keys: &now,
        ..seed
    });
    assert_eq!(parts[1][0], "text/cloud-boothook");
    let hook = parts[1][1].as_str().unwrap();
    assert!(hook.starts_with("#!/bin/sh\n") && hook.contains(base64));
    assert_eq!(parts[2], json!(["text/plain", script]));
}
