//! The NoCloud seed of an instance: a small vfat image labelled `CIDATA` with three files that cloud-init reads.

use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use serde_json::json;

use super::{VolumeError, publish};
use crate::net::{IPV4_PREFIX, IPV6_PREFIX, Plan};

/// Small, but more than the 4085 sectors from which FAT16 would be expected, so that the type is FAT12 beyond doubt.
const BYTES: u64 = 1 << 20;
/// Between the parts of user data; no base64 holds it.
const BOUNDARY: &str = "=-crn-user-data-=";

/// What the image's cloud-init is told.
#[derive(Debug, Clone)]
pub struct Seed<'a> {
    /// The item hash; the instance id is made of it, so it is the same at every start and cloud-init does its first-boot
    /// work once.
    pub vm: &'a str,
    /// The host name.
    pub hostname: &'a str,
    /// OpenSSH public keys, one a string.
    pub ssh_keys: &'a [String],
    /// The machine's addresses.
    pub plan: &'a Plan,
    /// Bytes.
    pub mtu: u16,
    /// Resolvers.
    pub dns: &'a [IpAddr],
    /// The data volumes, in the order of their serials `vol0`, `vol1`, ….
    pub volumes: &'a [SeedVolume],
    /// What the owner adds: anything cloud-init takes as user data.
    pub user_data: Option<&'a str>,
}

/// A data volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedVolume {
    /// Where it is mounted.
    pub mount: String,
    /// A squashfs; otherwise a disk that is formatted when it is blank.
    pub read_only: bool,
}

/// Writes the seed to `target`, replacing what is there.
///
/// # Errors
/// [`VolumeError`].
pub fn write_seed(target: &Path, seed: &Seed<'_>) -> Result<(), VolumeError> {
    publish(target, |file| {
        file.set_len(BYTES)?;
        fill(file, seed)
    })
}

fn fill(file: &File, seed: &Seed<'_>) -> io::Result<()> {
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat12)
        .volume_label(*b"CIDATA     ");
    fatfs::format_volume(file, options)?;
    let volume = FileSystem::new(file, FsOptions::new())?;
    {
        let root = volume.root_dir();
        for (name, text) in [
            ("meta-data", meta_data(seed)),
            ("user-data", user_data(seed)),
            ("network-config", network_config(seed)),
        ] {
            root.create_file(name)?.write_all(text.as_bytes())?;
        }
    }
    volume.unmount()
}

// All three documents are YAML, of which JSON is a part: what a message says cannot leave its string.

fn meta_data(seed: &Seed<'_>) -> String {
    json!({ "instance-id": format!("iid-{}", seed.vm), "local-hostname": seed.hostname })
        .to_string()
}

fn user_data(seed: &Seed<'_>) -> String {
    // A blank disk is formatted by cloud-init at the first boot, and by systemd whenever it is mounted: an ephemeral one
    // is blank at every start.
    let (mut mounts, mut formats) = (Vec::new(), Vec::new());
    for (index, volume) in seed.volumes.iter().enumerate() {
        let device = format!("/dev/disk/by-id/virtio-vol{index}");
        if volume.read_only {
            mounts.push(json!([
                device,
                volume.mount,
                "squashfs",
                "ro,nofail",
                "0",
                "0"
            ]));
        } else {
            let options = "defaults,nofail,discard,x-systemd.makefs";
            mounts.push(json!([device, volume.mount, "ext4", options, "0", "2"]));
            formats.push(json!({
                "device": device, "filesystem": "ext4", "partition": "none", "overwrite": false,
            }));
        }
    }
    let document = json!({
        "hostname": seed.hostname,
        "disable_root": false,
        "ssh_pwauth": false,
        "ssh_authorized_keys": seed.ssh_keys,
        "growpart": { "mode": "auto", "devices": ["/"] },
        "resize_rootfs": true,
        "fs_setup": formats,
        "mounts": mounts,
    });
    let own = format!("#cloud-config\n{document}\n");
    match seed.user_data {
        None => own,
        Some(theirs) => multipart(&own, theirs),
    }
}

/// Two documents as one. cloud-init looks at what the second begins with, and merges: keys of the first stand.
fn multipart(own: &str, theirs: &str) -> String {
    let encode = |text: &str| {
        let encoded = STANDARD.encode(text);
        // RFC 2045 allows 76 characters a line.
        let lines = encoded.as_bytes().chunks(76).map(String::from_utf8_lossy);
        lines.collect::<Vec<_>>().join("\n")
    };
    let part = |kind: &str, text: &str| {
        format!(
            "--{BOUNDARY}\nContent-Type: {kind}; charset=\"utf-8\"\nMIME-Version: 1.0\n\
             Content-Transfer-Encoding: base64\n\n{}\n",
            encode(text)
        )
    };
    format!(
        "Content-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\nMIME-Version: 1.0\n\n{}{}--{BOUNDARY}--\n",
        part("text/cloud-config", own),
        part("text/plain", theirs)
    )
}

fn network_config(seed: &Seed<'_>) -> String {
    let plan = seed.plan;
    json!({
        "version": 2,
        "ethernets": {
            "eth0": {
                "match": { "macaddress": plan.mac_text() },
                "set-name": "eth0",
                "mtu": seed.mtu,
                "dhcp4": false,
                "dhcp6": false,
                "accept-ra": false,
                "addresses": [format!("{}/{IPV4_PREFIX}", plan.ipv4), format!("{}/{IPV6_PREFIX}", plan.ipv6)],
                "routes": [
                    { "to": "0.0.0.0/0", "via": plan.ipv4_gateway },
                    { "to": "::/0", "via": plan.ipv6_network, "on-link": true },
                ],
                "nameservers": { "addresses": seed.dns },
            },
        },
    })
    .to_string()
}

#[cfg(test)]
mod tests {
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
                SeedVolume {
                    mount: "/mnt/data".to_owned(),
                    read_only: false,
                },
                SeedVolume {
                    mount: "/mnt/image".to_owned(),
                    read_only: true,
                },
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
        assert_eq!(body["fs_setup"].as_array().unwrap().len(), 1);
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

        // What Python's parser of MIME, which is cloud-init's, makes of an owner's own user data.
        let script = "#!/bin/sh\necho 'né'\n".repeat(20);
        let seed = Seed {
            user_data: Some(&script),
            ..seed
        };
        write_seed(&target, &seed).unwrap();
        let mixed = dir.path().join("mixed");
        run(
            "mcopy",
            &["-i", image, "::user-data", mixed.to_str().unwrap()],
        );
        let parse = "import email, json, sys\n\
            parts = email.message_from_file(open(sys.argv[1])).get_payload()\n\
            print(json.dumps([[p.get_content_type(), p.get_payload(decode=True).decode()] for p in parts]))";
        let parts = run("python3", &["-c", parse, mixed.to_str().unwrap()]);
        let parts: serde_json::Value = serde_json::from_str(&parts).unwrap();
        assert_eq!(parts[0][0], "text/cloud-config");
        assert!(
            parts[0][1]
                .as_str()
                .unwrap()
                .starts_with("#cloud-config\n{")
        );
        assert_eq!(parts[1], json!(["text/plain", script]));
    }
}
