//! What a network begins with.

use serde::Deserialize;

/// State present from the beginning.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Genesis {
    /// ALEPH balances.
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
    /// The chain they are on.
    #[serde(default = "ethereum")]
    pub chain: String,
}

fn ethereum() -> String {
    "ETH".into()
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
