//! `ccn-lite.toml`: read once at start, unknown fields refused, errors name line and field.
//!
//! A private network, a test network and a follower of the public one are the same program with different files.

mod check;
mod genesis;
mod locate;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use genesis::{Genesis, GenesisAggregate, GenesisBalance, GenesisCredit, GenesisNode};

/// Owner of the `pricing` and `settings` aggregates on the public network.
pub const DEFAULT_PRICING_AUTHORITY: &str = "0xFba561a84A537fCaa567bb7A2257e7142701ae2A";
/// Owner of the `corechannel` aggregate on the public network, and author of balances there.
pub const DEFAULT_CORECHANNEL_AUTHORITY: &str = "0xa1B3bb7d2332383D96b7796B908fB7f7F3c2Be10";
/// Who grants and books credits on the public network.
pub const DEFAULT_CREDIT_AUTHORITY: &str = "0x2E4454fAD1906c0Ce6e45cBFA05cE898Ac3AC1dC";
/// Who measures the public network's nodes (spec ccn-api §5.5).
pub const DEFAULT_SCORING_AUTHORITY: &str = "0x4D52380D3191274a04846c89c069E6C3F2Ed94e4";

/// The whole configuration file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address and port the HTTP API listens on.
    pub listen: SocketAddr,
    /// Directory of the database, the files and the node key; created when missing.
    pub data_dir: PathBuf,
    /// Network name, the tag of node registrations.
    #[serde(default = "default_network")]
    pub network: String,
    /// What messages are published on.
    #[serde(default)]
    pub topics: Topics,
    /// Channels with a meaning of their own.
    #[serde(default)]
    pub channels: Channels,
    /// Size and rate limits.
    #[serde(default)]
    pub limits: Limits,
    /// Owners of network-wide aggregates.
    #[serde(default)]
    pub authorities: Authorities,
    /// Moments at which payment rules change.
    #[serde(default)]
    pub cutoffs: Cutoffs,
    /// The embedded scheduler.
    #[serde(default)]
    pub scheduler: Scheduler,
    /// State present from the beginning, applied at every start.
    #[serde(default)]
    pub genesis: Genesis,
}

/// What messages are published on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topics {
    /// The topic of the older way to publish.
    pub messages: String,
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            messages: "ALEPH-TEST".into(),
        }
    }
}

/// Channels with a meaning of their own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Channels {
    /// Channels in which posts about credits count; all when empty.
    pub credits: Vec<String>,
}

impl Default for Channels {
    fn default() -> Self {
        Self {
            credits: vec!["ALEPH_CREDIT".into()],
        }
    }
}

/// Size and rate limits.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest file accepted with a signed STORE message, bytes.
    pub max_file_bytes: u64,
    /// Largest file accepted without one, bytes.
    pub max_unauthenticated_file_bytes: u64,
    /// Messages a minute taken from one sender; as many may come at once. 0 is no limit.
    pub messages_per_minute: u32,
    /// Bytes a minute taken from one sender, messages and files together; as many may come at once. 0 is no limit.
    pub bytes_per_minute: u64,
    /// How far in the future a message's time may be, seconds.
    pub max_clock_skew_seconds: u32,
    /// Below this much free space on the disk nothing new is taken, bytes.
    pub min_free_disk_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_file_bytes: 8 << 30,
            max_unauthenticated_file_bytes: 25 << 20,
            messages_per_minute: 12_000,
            bytes_per_minute: 16 << 30,
            max_clock_skew_seconds: 24 * 3600,
            min_free_disk_bytes: 256 << 20,
        }
    }
}

/// Addresses the network listens to.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Authorities {
    /// Owner of `pricing`, and of `settings` unless that has another one.
    pub pricing: String,
    /// Owner of `settings`, when it is not the owner of `pricing`.
    pub settings: Option<String>,
    /// Owner of `corechannel`.
    pub corechannel: String,
    /// Who may say how many tokens an address holds.
    pub balances: Vec<String>,
    /// Who may grant credits and book expenses.
    pub credits: Vec<String>,
    /// Who measures nodes.
    pub scoring: Vec<String>,
}

impl Authorities {
    /// Owner of `settings`.
    pub fn settings(&self) -> &str {
        self.settings.as_ref().unwrap_or(&self.pricing)
    }
}

impl Default for Authorities {
    fn default() -> Self {
        Self {
            pricing: DEFAULT_PRICING_AUTHORITY.into(),
            settings: None,
            corechannel: DEFAULT_CORECHANNEL_AUTHORITY.into(),
            balances: vec![DEFAULT_CORECHANNEL_AUTHORITY.into()],
            credits: vec![DEFAULT_CREDIT_AUTHORITY.into()],
            scoring: vec![DEFAULT_SCORING_AUTHORITY.into()],
        }
    }
}

/// Unix seconds compared with a message's `time`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cutoffs {
    /// Older STORE and on-demand PROGRAM messages are free.
    pub store_and_program_cost: i64,
    /// From here on instances and persistent programs must pay with credits.
    pub hold_and_stream: i64,
    /// From here on everything that costs must pay with credits.
    pub credit_only: i64,
    /// Credits in older messages are worth ten thousand of today's.
    pub credit_precision: i64,
}

impl Default for Cutoffs {
    fn default() -> Self {
        Self {
            store_and_program_cost: 1_743_775_079,
            hold_and_stream: 1_773_187_200,
            credit_only: 1_798_761_600,
            credit_precision: 1_769_990_400,
        }
    }
}

/// The embedded scheduler.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scheduler {
    /// Whether this node places workloads.
    pub enabled: bool,
}

impl Default for Scheduler {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, a field is unknown, missing or of the wrong type.
    #[error("{path}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        message: String,
    },
    /// A value makes no sense.
    #[error("{path}: line {line}: {field}: {reason}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Where the value, or the table that lacks it, stands; counted from 1.
        line: usize,
        /// Path of the field.
        field: String,
        /// What is wrong.
        reason: String,
    },
}

fn default_network() -> String {
    "mainnet".into()
}

impl Config {
    /// Reads and checks `path`.
    ///
    /// # Errors
    /// When the file cannot be read or says something unusable; the message names line and field.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.into(),
            source,
        })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Parse {
            path: path.into(),
            message: error.to_string(),
        })?;
        check::check(&config).map_err(|flaw| ConfigError::Value {
            path: path.into(),
            line: locate::line_of(text, &flaw.field),
            field: flaw.field,
            reason: flaw.reason,
        })?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    const MINIMAL: &str = "listen = \"127.0.0.1:0\"\ndata_dir = \"/tmp/x\"\n";

    fn load(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("ccn-lite.toml"))
    }

    fn flaw(more: &str) -> String {
        load(&format!("{MINIMAL}{more}")).unwrap_err().to_string()
    }

    #[test]
    fn minimal_file_takes_defaults() {
        let config = load("listen = \"127.0.0.1:0\"\ndata_dir = \"/tmp/x\"\n").unwrap();
        assert_eq!(config.authorities.pricing, DEFAULT_PRICING_AUTHORITY);
        assert!(config.scheduler.enabled);
    }

    #[test]
    fn unknown_field_is_named_with_its_line() {
        let error = load("listen = \"127.0.0.1:0\"\ndata_dir = \"/x\"\ncolour = 1\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("line 3") && error.contains("colour"),
            "{error}"
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_its_line() {
        let error = flaw("[limits]\nmax_file_bytes = \"many\"\n");
        assert!(
            error.contains("line 4") && error.contains("max_file_bytes"),
            "{error}"
        );
    }

    #[test]
    fn a_value_without_sense_is_named_with_its_line() {
        let node = format!(
            "hash = {:?}\nname = \"n\"\naddress = \"http://a\"\nowner = \"0x0\"\n",
            "g".repeat(64)
        );
        let cases = [
            ("[[genesis.aggregates]]\naddress = \"0x0\"\nkey = \"k\"\ncontent = \"[]\"\n".to_owned(), 6, "genesis.aggregates[0].content"),
            ("[[genesis.balances]]\naddress = \"0x0\"\namount = \"1\"\n\n[[genesis.balances]]\naddress = \"0x1\"\namount = \"1,5\"\n".to_owned(), 9, "genesis.balances[1].amount"),
            ("[[genesis.balances]]\naddress = \"0x0\"\namount = \"1\"\nchain = \"MOON\"\n".to_owned(), 6, "genesis.balances[0].chain"),
            ("[[genesis.credits]]\naddress = \"\"\namount = 1\n".to_owned(), 4, "genesis.credits[0].address"),
            (format!("[[genesis.nodes]]\n{node}"), 4, "genesis.nodes[0].hash"),
            ("[authorities]\nbalances = [\"0xA\",\n  \"\"]\n".to_owned(), 5, "authorities.balances[1]"),
            ("[topics]\nmessages = \"\"\n".to_owned(), 4, "topics.messages"),
            ("[cutoffs]\nhold_and_stream = 20\ncredit_only = 10\n".to_owned(), 5, "cutoffs.credit_only"),
            ("[limits]\nmax_file_bytes = 5\n".to_owned(), 3, "limits.max_unauthenticated_file_bytes"),
        ];
        for (text, line, field) in cases {
            let error = flaw(&text);
            assert!(
                error.starts_with(&format!("ccn-lite.toml: line {line}: {field}: ")),
                "{error}"
            );
        }
    }

    #[test]
    fn the_public_network_and_a_private_one_differ_in_their_files_only() {
        let private = load(&format!(
            "{MINIMAL}network = \"lab\"\n[topics]\nmessages = \"LAB\"\n[channels]\ncredits = [\"LAB_CREDIT\"]\n\
             [authorities]\npricing = \"0x1\"\nsettings = \"0x2\"\ncorechannel = \"0x3\"\nbalances = [\"0x4\"]\ncredits = [\"0x5\", \"0x6\"]\n\
             [limits]\nmessages_per_minute = 0\nmax_clock_skew_seconds = 60\n[cutoffs]\ncredit_precision = 0\n\
             [[genesis.balances]]\naddress = \"0x7\"\namount = \"12.5\"\nchain = \"BASE\"\n\
             [[genesis.credits]]\naddress = \"0x7\"\namount = 5\n"
        ))
        .unwrap();
        assert_eq!(private.authorities.settings(), "0x2");
        assert_eq!(private.genesis.balances[0].chain, "BASE");
        let public = load(MINIMAL).unwrap();
        assert_eq!(public.authorities.settings(), DEFAULT_PRICING_AUTHORITY);
        assert_eq!(public.topics.messages, "ALEPH-TEST");
        assert_eq!(public.channels.credits, ["ALEPH_CREDIT"]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\PC|\n){0,200}") {
            let _ = load(&text);
        }

        #[test]
        fn any_value_of_a_known_field_is_read_or_refused(value in "\\PC{0,40}", field in prop::sample::select(vec![
            "network", "limits.max_file_bytes", "authorities.balances", "cutoffs.credit_only", "genesis.nodes", "topics",
        ])) {
            let _ = load(&format!("{MINIMAL}{field} = {value}\n"));
        }
    }
}
