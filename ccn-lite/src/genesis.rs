//! State present from the beginning: applied at every start, with the same result each time.
//!
//! Genesis aggregates are elements created at time zero, so messages that arrive later are merged on top of them.

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::money::{self, Decimal};
use crate::store::accounts;
use crate::store::aggregates::{self, Element};
use crate::store::credits::{self, Entry, Lot};
use crate::store::{Store, StoreError};

fn name_hash(parts: &[&str]) -> String {
    hex::encode(Sha256::digest(parts.join("\n")))
}

/// What clients require to be in `settings`, for this node.
fn default_settings(address: &str) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("compatible_gpus".into(), json!([]));
    map.insert("last_crn_version".into(), json!("0.0.0"));
    map.insert("community_wallet_address".into(), json!(address));
    map.insert("community_wallet_timestamp".into(), json!(0));
    map.insert("authorized_allocation_signers".into(), json!([address]));
    map
}

/// The registry: this node and the compute nodes linked to it.
fn corechannel(config: &Config, address: &str) -> Map<String, Value> {
    let ccn = name_hash(&["core channel node", address]);
    let common = |name: &str, owner: &str, reward: &str| {
        json!({
            "owner": owner,
            "manager": owner,
            "reward": reward,
            "stream_reward": reward,
            "locked": false,
            "authorized": [],
            "time": 0.0,
            "score": 1.0,
            "decentralization": 1.0,
            "performance": 1.0,
            "inactive_since": null,
            "name": name,
            "multiaddress": "",
            "picture": "",
            "banner": "",
            "description": "",
            "registration_url": "",
            "terms_and_conditions": "",
        })
    };
    let compute: Vec<Value> = config
        .genesis
        .nodes
        .iter()
        .map(|node| {
            let receiver = node.payment_receiver.as_deref().unwrap_or(&node.owner);
            let mut entry = common(&node.name, &node.owner, receiver);
            entry["hash"] = json!(node.hash);
            entry["type"] = json!("compute");
            entry["status"] = json!("linked");
            entry["parent"] = json!(ccn);
            entry["address"] = json!(node.address.trim_end_matches('/'));
            entry
        })
        .collect();
    let mut core = common(&config.network, address, address);
    core["hash"] = json!(ccn);
    core["status"] = json!("active");
    core["address"] = json!("");
    core["stakers"] = json!({});
    core["total_staked"] = json!(0.0);
    core["has_bonus"] = json!(false);
    core["resource_nodes"] = config.genesis.nodes.iter().map(|n| json!(n.hash)).collect();
    let mut map = Map::new();
    map.insert("nodes".into(), json!([core]));
    map.insert("resource_nodes".into(), json!(compute));
    map
}

/// All genesis aggregates: the defaults clients need, with the operator's on top.
fn collect(config: &Config, address: &str) -> BTreeMap<(String, String), Map<String, Value>> {
    let pricing = &config.authorities.pricing;
    let mut all = BTreeMap::new();
    all.insert(
        (
            config.authorities.settings().to_owned(),
            "settings".to_owned(),
        ),
        default_settings(address),
    );
    if let Value::Object(prices) = money::default_price_aggregate() {
        all.insert((pricing.clone(), "pricing".to_owned()), prices);
    }
    all.insert(
        (
            config.authorities.corechannel.clone(),
            "corechannel".to_owned(),
        ),
        corechannel(config, address),
    );
    for aggregate in &config.genesis.aggregates {
        // Checked when the configuration was read.
        let content: Map<String, Value> =
            serde_json::from_str(&aggregate.content).unwrap_or_default();
        all.entry((aggregate.address.clone(), aggregate.key.clone()))
            .or_default()
            .extend(content);
    }
    all
}

fn write(conn: &Connection, config: &Config, address: &str) -> Result<(), StoreError> {
    for ((owner, key), content) in &collect(config, address) {
        let hash = name_hash(&["genesis", owner, key]);
        // Replaced, not merged: an entry taken out of the configuration disappears.
        aggregates::remove_element(conn, &hash)?;
        aggregates::add(
            conn,
            &Element {
                item_hash: &hash,
                owner,
                key,
                content,
                created: 0.0,
            },
        )?;
    }
    for balance in &config.genesis.balances {
        let amount: Decimal = balance.amount.parse().unwrap_or_default();
        accounts::set_balance(
            conn,
            &balance.address,
            &balance.chain,
            None,
            &amount.to_fixed(),
            0,
        )?;
    }
    for credit in &config.genesis.credits {
        let amount = i64::try_from(credit.amount).unwrap_or(i64::MAX);
        let lot = Lot {
            address: credit.address.clone(),
            credit_ref: name_hash(&["genesis", &credit.address.to_lowercase()]),
            credit_index: 0,
            amount,
            remaining: amount,
            expiration: None,
            message_time: 0.0,
            payment_method: Some("genesis".into()),
        };
        credits::grant(conn, &lot)?;
        credits::record(
            conn,
            &Entry {
                address: lot.address,
                amount,
                credit_ref: lot.credit_ref,
                payment_method: lot.payment_method,
                ..Entry::default()
            },
        )?;
    }
    Ok(())
}

/// Applies the genesis in one transaction.
pub async fn apply(store: &Store, config: &Config, address: &str) -> Result<(), StoreError> {
    let (config, address) = (config.clone(), address.to_owned());
    store
        .write(move |conn| write(conn, &config, &address))
        .await
}
