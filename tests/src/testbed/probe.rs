//! Looking at the appliance's host from inside, without a shell in the image: the testbed adds a socket-activated unit
//! that prints the state of the host to whoever connects. The image under test is the released one.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};

const SECTIONS: [(&str, &str); 6] = [
    ("links", "/usr/bin/ip -br link"),
    ("neighbours", "/usr/bin/ip -6 neigh show proxy"),
    ("firewall", "/usr/sbin/nft list ruleset"),
    (
        "files",
        "/usr/bin/find /run/crn /var/lib/crn -not -name *.sqlite* -not -path */spare/*",
    ),
    // Monitors that wait for a machine; each has a directory under another name.
    ("spares", "/usr/bin/find /run/crn/spare -name vmm.pid"),
    // A monitor has left the mount of its program: which path is shown depends on where that was.
    (
        "processes",
        "/usr/bin/find /proc -maxdepth 2 -name exe -lname *bin/crn-vmm*",
    ),
];

/// The credentials that add the probe; see [`super::credentials`].
#[must_use]
pub fn units() -> Vec<(&'static str, String)> {
    let socket = "[Unit]\nDescription=Testbed probe\nDefaultDependencies=no\n[Socket]\nListenStream=4999\nAccept=yes\n";
    let mut service = String::from(
        "[Unit]\nDescription=Testbed probe\nDefaultDependencies=no\nCollectMode=inactive-or-failed\n\
         [Service]\nType=oneshot\nStandardOutput=socket\nStandardError=null\n",
    );
    for (name, command) in SECTIONS {
        service.push_str(&format!(
            "ExecStart=-/usr/bin/echo ==={name}\nExecStart=-{command}\n"
        ));
    }
    vec![
        ("systemd.extra-unit.probe.socket", socket.to_owned()),
        ("systemd.extra-unit.probe@.service", service),
        (
            "systemd.unit-dropin.multi-user.target",
            "[Unit]\nWants=probe.socket\n".to_owned(),
        ),
    ]
}

/// The host's state at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// TAP devices.
    pub taps: BTreeSet<String>,
    /// Proxied neighbours.
    pub neighbours: BTreeSet<String>,
    /// The firewall's rules and elements, line by line.
    pub firewall: BTreeSet<String>,
    /// Files under the agent's directories, its database aside.
    pub files: BTreeSet<String>,
    /// Running monitors less those in reserve.
    pub monitors: usize,
}

impl Host {
    /// Asks the probe on a forwarded port.
    ///
    /// # Errors
    /// When it does not answer or leaves a section out.
    pub fn look(port: u16) -> Result<Self> {
        let mut stream =
            TcpStream::connect(("127.0.0.1", port)).context("connecting to the probe")?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut text = String::new();
        stream
            .read_to_string(&mut text)
            .context("reading from the probe")?;
        let section = |name: &str| -> Result<BTreeSet<String>> {
            let start = text
                .find(&format!("==={name}\n"))
                .with_context(|| format!("no section {name} in:\n{text}"))?;
            Ok(text[start..]
                .lines()
                .skip(1)
                .take_while(|line| !line.starts_with("==="))
                .map(str::trim_end)
                .filter(|l| !l.is_empty())
                .map(str::to_owned)
                .collect())
        };
        Ok(Self {
            taps: section("links")?
                .into_iter()
                .filter(|l| l.starts_with("vmtap"))
                .collect(),
            neighbours: section("neighbours")?,
            firewall: section("firewall")?
                .into_iter()
                // Counters move on their own.
                .map(|l| {
                    l.split(" counter packets")
                        .next()
                        .unwrap_or_default()
                        .to_owned()
                })
                .collect(),
            files: section("files")?,
            monitors: section("processes")?
                .len()
                .saturating_sub(section("spares")?.len()),
        })
    }
}
