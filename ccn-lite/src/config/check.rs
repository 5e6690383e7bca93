//! What the types of the configuration cannot say.

use aleph_message::Chain;

use super::Config;
use crate::money::Decimal;

/// A value that makes no sense.
pub(super) struct Flaw {
    /// Path of the field, such as `genesis.balances[1].amount`.
    pub field: String,
    /// What is wrong.
    pub reason: String,
}

fn flaw(field: impl Into<String>, reason: impl Into<String>) -> Flaw {
    Flaw {
        field: field.into(),
        reason: reason.into(),
    }
}

fn filled(field: impl Into<String>, text: &str) -> Result<(), Flaw> {
    if text.trim().is_empty() {
        return Err(flaw(field, "must not be empty"));
    }
    Ok(())
}

pub(super) fn check(config: &Config) -> Result<(), Flaw> {
    filled("network", &config.network)?;
    filled("topics.messages", &config.topics.messages)?;
    let authorities = &config.authorities;
    filled("authorities.pricing", &authorities.pricing)?;
    filled("authorities.settings", authorities.settings())?;
    filled("authorities.corechannel", &authorities.corechannel)?;
    for (name, list) in [
        ("authorities.balances", &authorities.balances),
        ("authorities.credits", &authorities.credits),
        ("authorities.scoring", &authorities.scoring),
        ("channels.credits", &config.channels.credits),
    ] {
        for (i, text) in list.iter().enumerate() {
            filled(format!("{name}[{i}]"), text)?;
        }
    }
    let limits = &config.limits;
    if limits.max_unauthenticated_file_bytes > limits.max_file_bytes {
        return Err(flaw(
            "limits.max_unauthenticated_file_bytes",
            format!(
                "{} is more than limits.max_file_bytes, {}",
                limits.max_unauthenticated_file_bytes, limits.max_file_bytes
            ),
        ));
    }
    let cutoffs = &config.cutoffs;
    if cutoffs.credit_only < cutoffs.hold_and_stream {
        return Err(flaw(
            "cutoffs.credit_only",
            "must not be before cutoffs.hold_and_stream",
        ));
    }
    check_genesis(config)
}

fn check_genesis(config: &Config) -> Result<(), Flaw> {
    let genesis = &config.genesis;
    for (i, balance) in genesis.balances.iter().enumerate() {
        let at = |name: &str| format!("genesis.balances[{i}].{name}");
        filled(at("address"), &balance.address)?;
        match balance.amount.parse::<Decimal>() {
            Ok(amount) if amount >= Decimal::zero() => {}
            _ => {
                return Err(flaw(
                    at("amount"),
                    format!("{:?} is not a decimal number", balance.amount),
                ));
            }
        }
        if balance.chain.parse::<Chain>().is_err() {
            return Err(flaw(
                at("chain"),
                format!("{:?} is not a chain", balance.chain),
            ));
        }
    }
    for (i, credit) in genesis.credits.iter().enumerate() {
        filled(format!("genesis.credits[{i}].address"), &credit.address)?;
        if i64::try_from(credit.amount).is_err() {
            return Err(flaw(format!("genesis.credits[{i}].amount"), "too large"));
        }
    }
    for (i, aggregate) in genesis.aggregates.iter().enumerate() {
        let at = |name: &str| format!("genesis.aggregates[{i}].{name}");
        filled(at("address"), &aggregate.address)?;
        filled(at("key"), &aggregate.key)?;
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&aggregate.content)
            .map_err(|error| flaw(at("content"), format!("not a JSON object: {error}")))?;
    }
    for (i, node) in genesis.nodes.iter().enumerate() {
        let digits = node.hash.bytes();
        if node.hash.len() != 64
            || !digits
                .into_iter()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(flaw(
                format!("genesis.nodes[{i}].hash"),
                "expected 64 lower-case hexadecimal digits",
            ));
        }
    }
    Ok(())
}
