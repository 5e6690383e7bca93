//! The kernel's switches under `/proc/sys/net`. Calls block, each for one small write.

use std::io;
use std::path::PathBuf;

const ROOT: &str = "/proc/sys/net";

/// Why a switch could not be read or set.
#[derive(Debug, thiserror::Error)]
#[error("cannot access {path}")]
pub struct SysctlError {
    /// The file.
    path: PathBuf,
    /// Why not.
    #[source]
    source: io::Error,
}

/// Lets the host forward, and keeps it a host where it was one: a forwarding interface ignores router advertisements
/// unless `accept_ra` is 2, and the host would lose its own IPv6 default route with the first machine (spec crn-api
/// §9.2 R13).
pub fn forward(uplink: &str) -> Result<(), SysctlError> {
    let path = PathBuf::from(ROOT).join("ipv6/conf");
    let failed = |source| SysctlError {
        path: path.clone(),
        source,
    };
    for entry in std::fs::read_dir(&path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        // What an interface that comes later starts with is its administrator's affair; machines' own are deaf.
        if matches!(&*name, "all" | "default") || name.starts_with("vmtap") {
            continue;
        }
        let accept_ra = format!("ipv6/conf/{name}/accept_ra");
        match get(&accept_ra) {
            Ok(value) if value.trim() == "1" => set(&accept_ra, "2")?,
            // It may have gone since it was listed; the uplink has not.
            Err(error) if *name == *uplink => return Err(error),
            _ => {}
        }
    }
    set("ipv4/ip_forward", "1")?;
    set("ipv6/conf/all/forwarding", "1")?;
    set(&format!("ipv6/conf/{uplink}/proxy_ndp"), "1")
}

/// Makes the host deaf to what a guest might advertise: routes, prefixes, redirects, other people's addresses.
pub fn harden(tap: &str) -> Result<(), SysctlError> {
    for (name, value) in [
        ("ipv6/conf/{}/accept_ra", "0"),
        ("ipv6/conf/{}/autoconf", "0"),
        ("ipv6/conf/{}/accept_redirects", "0"),
        ("ipv4/conf/{}/accept_redirects", "0"),
        ("ipv4/conf/{}/send_redirects", "0"),
        ("ipv4/conf/{}/accept_source_route", "0"),
        ("ipv4/conf/{}/rp_filter", "1"),
        // Answer ARP only for the gateway's own address, not for every address the host has.
        ("ipv4/conf/{}/arp_ignore", "1"),
    ] {
        set(&name.replace("{}", tap), value)?;
    }
    Ok(())
}

fn get(name: &str) -> Result<String, SysctlError> {
    let path = PathBuf::from(ROOT).join(name);
    std::fs::read_to_string(&path).map_err(|source| SysctlError { path, source })
}

fn set(name: &str, value: &str) -> Result<(), SysctlError> {
    let path = PathBuf::from(ROOT).join(name);
    std::fs::write(&path, value).map_err(|source| SysctlError { path, source })
}
