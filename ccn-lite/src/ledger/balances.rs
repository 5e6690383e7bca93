//! `balances-update` posts: token balances as an authority saw them at a block (spec ccn-api §4.5).

use aleph_message::Chain;
use rusqlite::Connection;
use serde_json::Value;

use super::invalid;
use crate::money::Decimal;
use crate::pipeline::Refusal;
use crate::store::accounts;

/// Sets the balances that are newer than what is known; returns the accounts whose balance changed.
pub(super) fn update(conn: &Connection, content: &Value) -> Result<Vec<String>, Refusal> {
    let chain: Chain = content
        .get("chain")
        .and_then(Value::as_str)
        .and_then(|chain| chain.parse().ok())
        .ok_or_else(|| invalid("chain", "a chain is required"))?;
    let height = content
        .get("main_height")
        .and_then(Value::as_i64)
        .filter(|height| *height >= 0)
        .ok_or_else(|| invalid("main_height", "a block number is required"))?;
    let balances = content
        .get("balances")
        .and_then(Value::as_object)
        .ok_or_else(|| invalid("balances", "a map of addresses is required"))?;
    let dapp = match content.get("dapp") {
        None | Some(Value::Null) => None,
        Some(Value::String(dapp)) => Some(dapp.as_str()).filter(|dapp| !dapp.is_empty()),
        Some(_) => return Err(invalid("dapp", "a name is expected")),
    };
    let mut changed = Vec::new();
    for (address, balance) in balances {
        let amount: Decimal = match balance {
            Value::Number(number) => number.to_string().parse().ok(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        }
        .ok_or_else(|| invalid(&format!("balances.{address}"), "a number is required"))?;
        let text = amount.to_fixed();
        if accounts::set_balance(conn, address, chain.as_str(), dapp, &text, height)? {
            changed.push(address.clone());
        }
    }
    Ok(changed)
}
