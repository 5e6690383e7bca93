//! The kernel's switches under `/proc/sys/net`. Calls block, each for one small write.

use std::io;
use std::path::PathBuf;

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

/// Lets the host forward, and keeps it a host on its uplink: a forwarding interface ignores router advertisements
/// unless `accept_ra` is 2, and would lose its own IPv6 default route.
pub fn forward(uplink: &str) -> Result<(), SysctlError> {
    let accept_ra = format!("ipv6/conf/{uplink}/accept_ra");
    if get(&accept_ra)?.trim() == "1" {
        set(&accept_ra, "2")?;
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
        ("ipv4/conf/{}/rp_filter", "1"),
        // Answer ARP only for the gateway's own address, not for every address the host has.
        ("ipv4/conf/{}/arp_ignore", "1"),
    ] {
        set(&name.replace("{}", tap), value)?;
    }
    Ok(())
}

fn get(name: &str) -> Result<String, SysctlError> {
    let path = PathBuf::from("/proc/sys/net").join(name);
    std::fs::read_to_string(&path).map_err(|source| SysctlError { path, source })
}

fn set(name: &str, value: &str) -> Result<(), SysctlError> {
    let path = PathBuf::from("/proc/sys/net").join(name);
    std::fs::write(&path, value).map_err(|source| SysctlError { path, source })
}
