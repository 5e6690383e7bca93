//! The configuration file: read once at start, unknown keys refused, every error names its field.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aleph_message::ItemHash;
use serde::{Deserialize, Deserializer};

/// What the file may say. Paths are absolute; see `ARCHITECTURE.md` for the contract.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the HTTP API listens.
    pub listen: SocketAddr,
    /// Host part of this node's URL as clients use it, without a port.
    pub domain: String,
    /// Base URL of the core channel node, without a trailing slash.
    pub ccn: String,
    /// Ledger, cache and disks.
    pub state_dir: PathBuf,
    /// Control and vsock sockets.
    pub run_dir: PathBuf,
    /// The `crn-vmm` executable.
    pub vmm: PathBuf,
    /// The `crn-convert` executable.
    pub converter: PathBuf,
    /// Guest kernel, an ELF `vmlinux`.
    pub kernel: PathBuf,
    /// Guest initramfs, a cpio archive.
    pub initramfs: PathBuf,
    /// Who this node is.
    pub node: Node,
    /// Who may decide what runs here.
    pub trust: Trust,
    /// What guests are connected with.
    pub network: Network,
    /// What may be given to guests.
    pub limits: Limits,
    /// What keeps guests from the host.
    pub sandbox: Sandbox,
    /// Programs on demand.
    pub program: Program,
    /// How long what is not used stays.
    pub retention: Retention,
    /// What the node's checks of itself look at.
    pub checks: Checks,
}

/// `[node]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// This node's hash in the corechannel registry, 64 hexadecimal digits.
    pub hash: Option<String>,
    /// The operator's address.
    pub owner: Option<String>,
    /// The address payment streams go to; the owner's when absent.
    pub payment_receiver: Option<String>,
    /// The STORE message of the terms and conditions under which it is used; machines that have accepted others, or any
    /// where there are none, are refused.
    pub terms_and_conditions: Option<String>,
}

/// `[trust]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trust {
    /// Addresses that may push allocations.
    pub allocation_signers: Vec<String>,
    /// Files with one such address each, read again when they change.
    pub allocation_signer_files: Vec<PathBuf>,
    /// Base URLs of core channel nodes beside `ccn`.
    pub ccns: Vec<String>,
    /// How many of all core channel nodes must agree on what cannot be verified; more than half when absent.
    pub quorum: Option<usize>,
    /// An address whose aggregate `settings` names more of those who may push, as `authorized_allocation_signers`.
    pub settings: Option<String>,
    /// SHA-256 of the shared token that older schedulers send instead of a signature, 64 hexadecimal digits. Without
    /// it no token is accepted.
    pub legacy_token_sha256: Option<String>,
}

/// `[network]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// The interface to the outside; the default route's when absent.
    pub interface: Option<String>,
    /// Cut into a /24 for each machine.
    pub ipv4_pool: String,
    /// The node's own /64 or /56: machine addresses are computed in it.
    pub ipv6_pool: String,
    /// Resolvers for guests; the host's when empty.
    pub dns: Vec<IpAddr>,
    /// Host ports that may be forwarded to guests.
    #[serde(deserialize_with = "port_range")]
    pub host_ports: PortRange,
    /// Megabits a second each guest may send, and receive; 0 is without limit.
    pub guest_megabits: u32,
    /// Connections each guest may have open at once that it began, and as many that others began; 0 is without limit.
    pub guest_connections: u32,
}

impl Network {
    /// What one guest may use.
    #[must_use]
    pub const fn limits(&self) -> crate::net::Limits {
        const fn some(number: u32) -> Option<u32> {
            if number == 0 { None } else { Some(number) }
        }
        crate::net::Limits {
            connections: some(self.guest_connections),
            megabits: some(self.guest_megabits),
        }
    }
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// MiB of memory never given to guests.
    pub host_memory_mib: u64,
    /// vCPUs given out for each CPU of the host.
    pub vcpu_overcommit: u32,
    /// The longest file fetched into the cache, in bytes.
    pub max_file_bytes: u64,
    /// MiB of disk kept free.
    pub host_disk_mib: u64,
    /// A console log is begun again at this length, in bytes.
    pub console_bytes: u64,
    /// What is kept of each machine's log, in bytes.
    pub log_bytes: u64,
    /// Crashes in a row after which a machine is not started again by itself.
    pub crashes: u32,
}

/// Each takes some MiB of memory and is of use for one start.
const MAX_SPARE: usize = 64;

/// `[sandbox]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sandbox {
    /// Whether each machine has a control group that limits its memory, CPU, threads and disk. A host that cannot is
    /// refused; `false` is the operator's word that nothing limits them.
    pub cgroups: bool,
    /// Bytes a second each machine may read from, and write to, the disk of `state_dir`; 0 is without limit.
    pub disk_bytes_per_second: u64,
    /// Monitors kept started for the next machines, at most [`MAX_SPARE`]; 0 for none.
    pub spare: usize,
}

impl Sandbox {
    /// The limit of a machine's disk.
    #[must_use]
    pub const fn disk_rate(&self) -> Option<u64> {
        match self.disk_bytes_per_second {
            0 => None,
            rate => Some(rate),
        }
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            cgroups: true,
            disk_bytes_per_second: 0,
            spare: 2,
        }
    }
}

/// `[program]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Program {
    /// Seconds from the start of a program's machine until it must answer.
    #[serde(rename = "start_timeout_seconds", deserialize_with = "seconds")]
    pub start_timeout: Duration,
    /// Seconds without a request after which a program is stopped.
    #[serde(rename = "idle_seconds", deserialize_with = "seconds")]
    pub idle: Duration,
    /// The least time a program has for its answer, whatever its message says.
    #[serde(rename = "min_timeout_seconds", deserialize_with = "seconds")]
    pub min_timeout: Duration,
    /// `resources.seconds` is multiplied by this.
    pub timeout_multiplier: u32,
    /// Seconds that an agent which is told to end gives programs to finish their answers.
    #[serde(rename = "drain_seconds", deserialize_with = "seconds")]
    pub drain: Duration,
}

/// `[retention]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Hours after which a program that is no longer asked for, and holds no data, is erased.
    pub program_hours: u32,
    /// Hours after which any other stopped machine is erased, with its data; absent: never.
    pub stopped_hours: Option<u32>,
    /// Unused programs go before their time when more than this share of the slots or the disk is held.
    pub program_quota_percent: u8,
    /// Hours for which a file of the cache that no machine uses is kept for the next one.
    pub cache_hours: u32,
    /// MiB that such files may take together; the longest unused go first.
    pub cache_mib: u64,
}

/// `[checks]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checks {
    /// The diagnostic program, 64 hexadecimal digits; absent: `/status/check/fastapi` says so.
    pub program: Option<String>,
    /// An IPv4 address and TCP port that answer when the node reaches the internet.
    pub ipv4: SocketAddr,
    /// The same over IPv6.
    pub ipv6: SocketAddr,
    /// A host name that has addresses of both families, and a web server.
    pub host: String,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            program_hours: 24,
            stopped_hours: None,
            program_quota_percent: 90,
            cache_hours: 72,
            cache_mib: 10_240,
        }
    }
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            program: None,
            // A public resolver (spec crn-api §1.7 asks for any answer from the internet).
            ipv4: SocketAddr::from(([9, 9, 9, 9], 443)),
            ipv6: SocketAddr::from(([0x2620, 0xfe, 0, 0, 0, 0, 0, 0xfe], 443)),
            host: "example.org".to_owned(),
        }
    }
}

/// Host ports, first and last included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 4020)),
            domain: "127.0.0.1".to_owned(),
            ccn: "http://127.0.0.1:4024".to_owned(),
            state_dir: "/var/lib/crn".into(),
            run_dir: "/run/crn".into(),
            vmm: "/usr/bin/crn-vmm".into(),
            converter: "/usr/bin/crn-convert".into(),
            kernel: "/usr/lib/crn/vmlinux".into(),
            initramfs: "/usr/lib/crn/initramfs".into(),
            node: Node::default(),
            trust: Trust::default(),
            network: Network::default(),
            limits: Limits::default(),
            sandbox: Sandbox::default(),
            program: Program::default(),
            retention: Retention::default(),
            checks: Checks::default(),
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            interface: None,
            ipv4_pool: "172.16.0.0/12".to_owned(),
            ipv6_pool: "fc00:1:2:3::/64".to_owned(),
            dns: Vec::new(),
            host_ports: PortRange {
                first: 24000,
                last: 24999,
            },
            guest_megabits: 0,
            guest_connections: 16384,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            host_memory_mib: 512,
            vcpu_overcommit: 4,
            max_file_bytes: 64 << 30,
            host_disk_mib: 512,
            console_bytes: 8 << 20,
            log_bytes: 8 << 20,
            crashes: 10,
        }
    }
}

impl Default for Program {
    fn default() -> Self {
        Self {
            start_timeout: Duration::from_secs(60),
            idle: Duration::from_secs(3600),
            min_timeout: Duration::from_secs(10),
            timeout_multiplier: 1,
            drain: Duration::from_secs(30),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what is expected; the cause names line and key.
    #[error("cannot understand {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: toml::de::Error,
    },
    /// One field's value makes no sense.
    #[error("{field}: {problem}")]
    Field {
        /// Its name, dotted.
        field: &'static str,
        /// What is wrong and what is expected.
        problem: String,
    },
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut config: Self = toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source,
        })?;
        for url in std::iter::once(&mut config.ccn).chain(&mut config.trust.ccns) {
            url.truncate(url.trim_end_matches('/').len());
        }
        config.check()?;
        Ok(config)
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// [`ConfigError::Field`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |field, problem: &str| {
            Err(ConfigError::Field {
                field,
                problem: problem.to_owned(),
            })
        };
        if self.domain.is_empty() || self.domain.contains(['/', ':', ' ']) {
            return wrong(
                "domain",
                "expected a host name or address without scheme and port",
            );
        }
        if !is_url(&self.ccn) {
            return wrong("ccn", "expected an http:// or https:// URL");
        }
        if !self.trust.ccns.iter().all(|url| is_url(url)) {
            return wrong("trust.ccns", "expected http:// or https:// URLs");
        }
        let nodes: Vec<_> = self.ccns().collect();
        if (1..nodes.len()).any(|at| nodes[..at].contains(&nodes[at])) {
            return wrong("trust.ccns", "a node is named twice, and would count twice");
        }
        if self
            .trust
            .quorum
            .is_some_and(|quorum| !(1..=nodes.len()).contains(&quorum))
        {
            return wrong(
                "trust.quorum",
                "expected 1 or more, and no more than there are core channel nodes",
            );
        }
        for (field, path) in [
            ("state_dir", &self.state_dir),
            ("run_dir", &self.run_dir),
            ("vmm", &self.vmm),
            ("kernel", &self.kernel),
            ("initramfs", &self.initramfs),
        ] {
            if !path.is_absolute() {
                return wrong(field, "expected an absolute path");
            }
        }
        if self.sandbox.spare > MAX_SPARE {
            return wrong("sandbox.spare", "expected 64 or fewer");
        }
        if let Some(hash) = &self.node.hash
            && !is_digest(hash)
        {
            return wrong("node.hash", "expected 64 lower-case hexadecimal digits");
        }
        if let Some(terms) = &self.node.terms_and_conditions
            && terms.parse::<ItemHash>().is_err()
        {
            return wrong("node.terms_and_conditions", "expected an item hash");
        }
        for (field, address) in [
            ("node.owner", &self.node.owner),
            ("node.payment_receiver", &self.node.payment_receiver),
            ("trust.settings", &self.trust.settings),
        ] {
            if let Some(address) = address
                && !is_address(address)
            {
                return wrong(field, "expected 0x and 40 hexadecimal digits");
            }
        }
        if !self
            .trust
            .allocation_signers
            .iter()
            .all(|address| is_address(address))
        {
            return wrong(
                "trust.allocation_signers",
                "expected addresses of 0x and 40 hexadecimal digits",
            );
        }
        match pool::<std::net::Ipv4Addr>(&self.network.ipv4_pool) {
            Some((_, 8..=23)) => {}
            _ => {
                return wrong(
                    "network.ipv4_pool",
                    "expected an IPv4 network from /8 to /23",
                );
            }
        }
        match pool::<std::net::Ipv6Addr>(&self.network.ipv6_pool) {
            Some((_, 56 | 64)) => {}
            _ => {
                return wrong(
                    "network.ipv6_pool",
                    "expected an IPv6 network of /64 or /56",
                );
            }
        }
        if self.network.host_ports.first < 1024
            || self.network.host_ports.first > self.network.host_ports.last
        {
            return wrong(
                "network.host_ports",
                "expected first-last, both 1024 or more",
            );
        }
        if (self.network.host_ports.first..=self.network.host_ports.last)
            .contains(&self.listen.port())
        {
            return wrong(
                "network.host_ports",
                "the port of `listen` is among them, and would lead to a guest",
            );
        }
        if self.network.guest_megabits > crate::net::MAX_MEGABITS {
            return wrong(
                "network.guest_megabits",
                "expected 100000 or less, or 0 for no limit",
            );
        }
        if self.limits.vcpu_overcommit == 0 {
            return wrong("limits.vcpu_overcommit", "expected 1 or more");
        }
        if self.limits.crashes == 0 {
            return wrong("limits.crashes", "expected 1 or more");
        }
        if self.retention.program_quota_percent > 100 {
            return wrong("retention.program_quota_percent", "expected 0 to 100");
        }
        for (field, digits) in [
            ("trust.legacy_token_sha256", &self.trust.legacy_token_sha256),
            ("checks.program", &self.checks.program),
        ] {
            if digits.as_ref().is_some_and(|digits| !is_digest(digits)) {
                return wrong(field, "expected 64 lower-case hexadecimal digits");
            }
        }
        if self.program.timeout_multiplier == 0 {
            return wrong("program.timeout_multiplier", "expected 1 or more");
        }
        Ok(())
    }

    /// All core channel nodes' base URLs.
    pub fn ccns(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.ccn)
            .chain(&self.trust.ccns)
            .map(String::as_str)
    }

    /// The address payment streams go to, empty when the operator named none.
    #[must_use]
    pub fn payment_receiver(&self) -> &str {
        self.node
            .payment_receiver
            .as_deref()
            .or(self.node.owner.as_deref())
            .unwrap_or_default()
    }
}

fn is_url(text: &str) -> bool {
    text.parse::<http::Uri>()
        .is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
}

fn is_digest(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
}

fn is_address(text: &str) -> bool {
    text.strip_prefix("0x")
        .is_some_and(|digits| digits.len() == 40 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn pool<A: std::str::FromStr>(text: &str) -> Option<(A, u8)> {
    let (address, length) = text.split_once('/')?;
    Some((address.parse().ok()?, length.parse().ok()?))
}

fn port_range<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PortRange, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.split_once('-')
        .and_then(|(first, last)| {
            Some(PortRange {
                first: first.trim().parse().ok()?,
                last: last.trim().parse().ok()?,
            })
        })
        .ok_or_else(|| {
            serde::de::Error::custom("host_ports: expected \"first-last\", such as \"24000-24999\"")
        })
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Ok(Duration::from_secs(u64::from(u32::deserialize(
        deserializer,
    )?)))
}

#[cfg(test)]
mod tests;
