//! The NoCloud seed of an instance: a small vfat image labelled `CIDATA` with three files that cloud-init reads.

use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use serde_json::json;

use super::{VolumeError, publish};
use crate::net::{IPV4_PREFIX, IPV6_PREFIX, Plan};

/// Small, but more than the 4085 sectors from which FAT16 would be expected, so that the type is FAT12 beyond doubt.
const BYTES: u64 = 1 << 20;

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
    let document = json!({
        "hostname": seed.hostname,
        "disable_root": false,
        "ssh_pwauth": false,
        "ssh_authorized_keys": seed.ssh_keys,
        "growpart": { "mode": "auto", "devices": ["/"] },
        "resize_rootfs": true,
    });
    format!("#cloud-config\n{document}\n")
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
    }
}
