//! The few files a program's root gets from its configuration.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::IpAddr;

use crn_protocol::guest::GuestConfig;

use crate::error::{Context, Result};

/// `/etc/hosts` for this guest.
#[must_use]
pub fn hosts(config: &GuestConfig) -> String {
    let own = config.network.as_ref().and_then(|network| {
        let ipv4 = network.ipv4.map(|(address, ..)| IpAddr::V4(address));
        ipv4.or(network.ipv6.map(|(address, ..)| IpAddr::V6(address)))
    });
    let own = own.map_or_else(|| "127.0.1.1".to_owned(), |address| address.to_string());
    format!(
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{own} {}\n",
        config.hostname
    )
}

/// `/etc/resolv.conf` for these servers; resolv.conf(5) takes three.
#[must_use]
pub fn resolv_conf(servers: &[IpAddr]) -> String {
    servers
        .iter()
        .take(3)
        .fold(String::new(), |mut text, server| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "nameserver {server}");
            text
        })
}

/// Writes `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of the root this process is in.
///
/// # Errors
/// Making or writing the files.
pub fn write(config: &GuestConfig) -> Result<()> {
    fs::create_dir_all("/etc").context(|| "create the directory /etc".to_owned())?;
    let dns = config
        .network
        .as_ref()
        .map_or(&[][..], |network| &network.dns);
    for (path, content) in [
        ("/etc/hostname", format!("{}\n", config.hostname)),
        ("/etc/hosts", hosts(config)),
        ("/etc/resolv.conf", resolv_conf(dns)),
    ] {
        replace(path, &content).context(|| format!("write {path}"))?;
    }
    Ok(())
}

/// Runtimes carry symbolic links here (to a resolver's file in /run, for instance): the link is what goes.
fn replace(path: &str, content: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::write(path, content)
}

#[cfg(test)]
mod tests {
    use crn_protocol::guest::{Network, Workload};

    use super::*;

    fn config(network: Option<Network>) -> GuestConfig {
        GuestConfig {
            hostname: "abc".to_owned(),
            network,
            workload: Workload::Instance {
                root: "root".to_owned(),
            },
        }
    }

    #[test]
    fn the_host_name_resolves_to_the_guests_own_address() {
        let network = Network {
            ipv4: Some((
                "172.16.4.2".parse().unwrap(),
                24,
                "172.16.4.1".parse().unwrap(),
            )),
            ipv6: None,
            dns: vec![],
            mtu: 1500,
        };
        assert!(hosts(&config(Some(network))).ends_with("\n172.16.4.2 abc\n"));
        assert!(hosts(&config(None)).ends_with("\n127.0.1.1 abc\n"));
    }

    #[test]
    fn at_most_three_resolvers_are_written() {
        let servers: Vec<IpAddr> = ["10.0.2.3", "fec0::3", "1.1.1.1", "9.9.9.9"]
            .map(|a| a.parse().unwrap())
            .to_vec();
        assert_eq!(
            resolv_conf(&servers),
            "nameserver 10.0.2.3\nnameserver fec0::3\nnameserver 1.1.1.1\n"
        );
    }
}
