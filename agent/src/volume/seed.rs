//! The NoCloud seed of an instance: a small vfat image labelled `CIDATA` with three files that cloud-init reads.

mod keys;

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{VolumeError, failed, publish};
use crate::net::{IPV4_PREFIX, IPV6_PREFIX, Plan};

/// Small, but more than the 4085 sectors from which FAT16 would be expected, so that the type is FAT12 beyond doubt.
const BYTES: u64 = 1 << 20;
/// Between the parts of user data; no base64 holds it.
const BOUNDARY: &str = "=-crn-user-data-=";

/// Formats a disk on which nothing is, and no other: `blkid` ends with 2 when it finds neither a file system nor partitions.
/// cloud-init puts the device in, and would itself format a whole disk whatever is on it.
const FORMAT_BLANK: &str =
    "blkid -p %(device)s > /dev/null; if [ $? -eq 2 ]; then mkfs.ext4 -F -q %(device)s; fi";
/// How often what a machine's owner says about its inside has changed, beside the seed.
const REVISION: &str = "seed.revision";

/// What the image's cloud-init is told.
#[derive(Debug, Clone)]
pub struct Seed<'a> {
    /// The item hash; the instance id is made of it, so it is the same at every start and cloud-init does its first-boot
    /// work once, until its owner changes what that work is.
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
    /// The data volumes.
    pub volumes: &'a [SeedVolume],
    /// What the owner adds: anything cloud-init takes as user data.
    pub user_data: Option<&'a str>,
}

/// A data volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedVolume {
    /// Its disk's serial.
    pub serial: String,
    /// Where it is mounted.
    pub mount: String,
    /// What is on it at first.
    pub holds: Holds,
}

/// What is on a disk that the guest sees for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// A squashfs, which is only read.
    Image,
    /// Whatever is on the parent it is a copy of: it is never formatted.
    Copy,
    /// Nothing: it is formatted when it is blank.
    Nothing,
}

/// Which revision of what the owner says this is: 0 at first, one more each time keys, volumes, user data or addresses are
/// others than at the last call. Written down beside `target`, before the seed is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Revision {
    number: u32,
    digest: String,
    /// The keys of this revision and of those before, the latest last, as [`keys::material`] has them.
    #[serde(default)]
    keys: Vec<String>,
}

/// Writes the seed to `target`, replacing what is there.
///
/// cloud-init does most of its work once for each instance id. So the id is another one when the owner has changed what the
/// machine is told, and only then (spec crn-api §5.4, §9.2 R14).
///
/// # Errors
/// [`VolumeError`].
pub fn write_seed(target: &Path, seed: &Seed<'_>) -> Result<(), VolumeError> {
    let revision = revise(&target.with_file_name(REVISION), seed)?;
    publish(target, |file| {
        file.set_len(BYTES)?;
        fill(file, seed, &revision)
    })
}

/// Begins with revision 0 again: a new root disk has not been told anything.
pub(super) fn forget_revision(dir: &Path) -> Result<(), VolumeError> {
    let path = dir.join(REVISION);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", &path)(error))
        }
        _ => Ok(()),
    }
}

fn revise(path: &Path, seed: &Seed<'_>) -> Result<Revision, VolumeError> {
    let volumes = seed.volumes.iter();
    let volumes: Vec<_> = volumes
        .map(|volume| (&volume.serial, &volume.mount, volume.holds == Holds::Image))
        .collect();
    let told = json!([
        seed.ssh_keys,
        volumes,
        seed.user_data,
        [seed.plan.ipv4.to_string(), seed.plan.ipv6.to_string()]
    ]);
    let digest = hex::encode(Sha256::digest(told.to_string()));
    let known = match fs::read(path) {
        Ok(bytes) => serde_json::from_slice::<Revision>(&bytes)
            .map(Some)
            .map_err(|error| failed("understand", path)(error.into()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("read", path)(error)),
    };
    let (number, before) = match known {
        Some(known) if known.digest == digest => return Ok(known),
        Some(known) => (known.number.saturating_add(1), known.keys),
        None => (0, Vec::new()),
    };
    let revision = Revision {
        number,
        digest,
        keys: keys::told(before, seed.ssh_keys),
    };
    let text = json!(revision).to_string();
    publish(path, |mut file| file.write_all(text.as_bytes()))?;
    Ok(revision)
}

fn fill(file: &File, seed: &Seed<'_>, revision: &Revision) -> io::Result<()> {
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat12)
        .volume_label(*b"CIDATA     ");
    fatfs::format_volume(file, options)?;
    let volume = FileSystem::new(file, FsOptions::new())?;
    {
        let root = volume.root_dir();
        for (name, text) in [
            ("meta-data", meta_data(seed, revision.number)),
            ("user-data", user_data(seed, revision)),
            ("network-config", network_config(seed)),
        ] {
            root.create_file(name)?.write_all(text.as_bytes())?;
        }
    }
    volume.unmount()
}

// All three documents are YAML, of which JSON is a part: what a message says cannot leave its string.

fn meta_data(seed: &Seed<'_>, revision: u32) -> String {
    let id = match revision {
        0 => format!("iid-{}", seed.vm),
        later => format!("iid-{}-{later}", seed.vm),
    };
    json!({ "instance-id": id, "local-hostname": seed.hostname }).to_string()
}

fn user_data(seed: &Seed<'_>, revision: &Revision) -> String {
    // A blank disk is formatted by cloud-init at the first boot, and by systemd whenever it is mounted: an ephemeral one
    // is blank at every start.
    let (mut mounts, mut formats) = (Vec::new(), Vec::new());
    for volume in seed.volumes {
        let device = format!("/dev/disk/by-id/virtio-{}", volume.serial);
        let (kind, options, check) = match volume.holds {
            Holds::Image => ("squashfs", "ro,nofail", "0"),
            Holds::Copy => ("auto", "defaults,nofail,discard", "2"),
            Holds::Nothing => ("ext4", "defaults,nofail,discard,x-systemd.makefs", "2"),
        };
        if volume.holds == Holds::Nothing {
            formats.push(json!({
                "device": device, "filesystem": "ext4", "partition": "none", "cmd": FORMAT_BLANK,
            }));
        }
        mounts.push(json!([device, volume.mount, kind, options, "0", check]));
    }
    let document = json!({
        "hostname": seed.hostname,
        "disable_root": false,
        "ssh_pwauth": false,
        "ssh_authorized_keys": seed.ssh_keys,
        // Who knows the machine knows its keys: a later revision keeps those it has.
        "ssh_deletekeys": revision.number == 0,
        "growpart": { "mode": "auto", "devices": ["/"] },
        "resize_rootfs": true,
        "fs_setup": formats,
        "mounts": mounts,
    });
    let own = format!("#cloud-config\n{document}\n");
    // Not by `bootcmd`, which would take the place of the owner's.
    let hook = keys::hook(&revision.keys, seed.ssh_keys);
    if hook.is_none() && seed.user_data.is_none() {
        return own;
    }
    let hook = hook.as_deref().map(|hook| ("text/cloud-boothook", hook));
    let theirs = seed.user_data.map(|theirs| ("text/plain", theirs));
    let all = [Some(("text/cloud-config", own.as_str())), hook, theirs];
    multipart(all.into_iter().flatten())
}

/// Several documents as one. cloud-init looks at what the plain one begins with, and merges: keys of the first stand.
fn multipart<'a>(parts: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let encode = |text: &str| {
        let encoded = STANDARD.encode(text);
        // RFC 2045 allows 76 characters a line.
        let lines = encoded.as_bytes().chunks(76).map(String::from_utf8_lossy);
        lines.collect::<Vec<_>>().join("\n")
    };
    let part = |(kind, text): (&str, &str)| {
        format!(
            "--{BOUNDARY}\nContent-Type: {kind}; charset=\"utf-8\"\nMIME-Version: 1.0\n\
             Content-Transfer-Encoding: base64\n\n{}\n",
            encode(text)
        )
    };
    format!(
        "Content-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\nMIME-Version: 1.0\n\n{}--{BOUNDARY}--\n",
        parts.map(part).collect::<String>()
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
mod tests;
