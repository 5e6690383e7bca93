//! `ccn-lite.toml`: read once at start, unknown fields refused, errors name line and field.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Owner of the `pricing` and `settings` aggregates on the public network.
pub const DEFAULT_PRICING_AUTHORITY: &str = "0xFba561a84A537fCaa567bb7A2257e7142701ae2A";
/// Owner of the `corechannel` aggregate on the public network.
pub const DEFAULT_CORECHANNEL_AUTHORITY: &str = "0xa1B3bb7d2332383D96b7796B908fB7f7F3c2Be10";

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
    /// Size limits.
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

/// Size limits, in bytes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest file accepted with a signed STORE message.
    pub max_file_bytes: u64,
    /// Largest file accepted without one.
    pub max_unauthenticated_file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_file_bytes: 8 << 30,
            max_unauthenticated_file_bytes: 25 << 20,
        }
    }
}

/// Addresses that own network-wide aggregates.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Authorities {
    /// Owner of `pricing` and `settings`.
    pub pricing: String,
    /// Owner of `corechannel`.
    pub corechannel: String,
}

impl Default for Authorities {
    fn default() -> Self {
        Self {
            pricing: DEFAULT_PRICING_AUTHORITY.into(),
            corechannel: DEFAULT_CORECHANNEL_AUTHORITY.into(),
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
}

impl Default for Cutoffs {
    fn default() -> Self {
        Self {
            store_and_program_cost: 1_743_775_079,
            hold_and_stream: 1_773_187_200,
            credit_only: 1_798_761_600,
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

/// State present from the beginning.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Genesis {
    /// ALEPH balances on chain ETH.
    pub balances: Vec<GenesisBalance>,
    /// Credit lots that never expire.
    pub credits: Vec<GenesisCredit>,
    /// Aggregates.
    pub aggregates: Vec<GenesisAggregate>,
    /// Compute nodes of the registry.
    pub nodes: Vec<GenesisNode>,
}

/// An ALEPH balance.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisBalance {
    /// The account.
    pub address: String,
    /// Tokens, a decimal number.
    pub amount: String,
}

/// A credit lot.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisCredit {
    /// The account.
    pub address: String,
    /// Credits.
    pub amount: u64,
}

/// An aggregate.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisAggregate {
    /// Owner.
    pub address: String,
    /// Key.
    pub key: String,
    /// JSON object, as text.
    pub content: String,
}

/// A compute node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisNode {
    /// 64 hexadecimal digits.
    pub hash: String,
    /// Display name.
    pub name: String,
    /// Base URL.
    pub address: String,
    /// Owner address.
    pub owner: String,
    /// Address that receives payments; the owner when absent.
    pub payment_receiver: Option<String>,
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
    #[error("{field}: {reason}")]
    Value {
        /// Path of the field.
        field: String,
        /// What is wrong.
        reason: String,
    },
}

fn default_network() -> String {
    "mainnet".into()
}

fn value_error(field: String, reason: impl Into<String>) -> ConfigError {
    ConfigError::Value {
        field,
        reason: reason.into(),
    }
}

impl Config {
    /// Reads and checks `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.into(),
            source,
        })?;
        let config: Self = toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.into(),
            message: error.to_string(),
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        for (i, balance) in self.genesis.balances.iter().enumerate() {
            let valid = !balance.amount.is_empty()
                && balance
                    .amount
                    .bytes()
                    .all(|b| b.is_ascii_digit() || b == b'.')
                && balance.amount.bytes().filter(|b| *b == b'.').count() <= 1;
            if !valid {
                return Err(value_error(
                    format!("genesis.balances[{i}].amount"),
                    format!("{:?} is not a decimal number", balance.amount),
                ));
            }
        }
        for (i, credit) in self.genesis.credits.iter().enumerate() {
            if i64::try_from(credit.amount).is_err() {
                return Err(value_error(
                    format!("genesis.credits[{i}].amount"),
                    "too large",
                ));
            }
        }
        for (i, aggregate) in self.genesis.aggregates.iter().enumerate() {
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&aggregate.content)
                .map_err(|error| {
                    value_error(
                        format!("genesis.aggregates[{i}].content"),
                        format!("not a JSON object: {error}"),
                    )
                })?;
        }
        for (i, node) in self.genesis.nodes.iter().enumerate() {
            if node.hash.len() != 64
                || !node
                    .hash
                    .bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            {
                return Err(value_error(
                    format!("genesis.nodes[{i}].hash"),
                    "expected 64 lower-case hexadecimal digits",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(file.path())
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
    fn aggregate_that_is_not_an_object_is_refused() {
        let error = load(
            "listen = \"127.0.0.1:0\"\ndata_dir = \"/x\"\n[[genesis.aggregates]]\naddress = \"0x0\"\nkey = \"k\"\ncontent = \"[]\"\n",
        )
        .unwrap_err()
        .to_string();
        assert!(error.contains("genesis.aggregates[0].content"), "{error}");
    }
}
