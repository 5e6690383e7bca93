//! What can no longer be paid goes: first out of force, a day later for good (spec ccn-api §4.6).
//!
//! Means are handed out in the order in which messages were taken; who comes too late waits in `removing`. Enough money
//! again, and it is back. Accounts are looked at when their means change, and when credits expire.

use std::time::Duration;

use aleph_message::PaymentType;
use rusqlite::Connection;

use crate::config::Config;
use crate::kinds;
use crate::money::{Decimal, required_credits};
use crate::node::Node;
use crate::store::{StoreError, accounts, credits, files, messages, now, removing};

/// From being out of force to being gone, seconds.
const GRACE: f64 = 25.0 * 3600.0;
/// How often the clock is compared with what is to end: two look-ups in an index.
const INTERVAL: Duration = Duration::from_secs(2);

/// Looks at everything `address` pays for again.
///
/// # Errors
/// When the database fails.
pub fn recheck(
    conn: &Connection,
    config: &Config,
    address: &str,
    now: f64,
) -> Result<(), StoreError> {
    let held = accounts::total_balance(conn, address)?;
    walk(conn, config, address, PaymentType::Hold, held, now)?;
    let credits = credits::balance(conn, address, now)?;
    let credits = Decimal::from(credits);
    walk(conn, config, address, PaymentType::Credit, credits, now)
}

fn walk(
    conn: &Connection,
    config: &Config,
    address: &str,
    payment: PaymentType,
    mut left: Decimal,
    now: f64,
) -> Result<(), StoreError> {
    let all = needed(
        payment,
        &accounts::charged(conn, address, payment.as_str())?,
    );
    // Who can pay for everything, with nothing on its way out, loses nothing and gets nothing back.
    if left >= all && !removing::any_of(conn, address)? {
        return Ok(());
    }
    for charged in accounts::charged_messages(conn, address, payment.as_str())? {
        let needed = needed(payment, &charged.cost);
        let paid = left >= needed || is_exempt(&charged, payment, config);
        left = left.plus(&needed.negated());
        let hash = &charged.item_hash;
        match (paid, charged.status.as_str()) {
            (false, "processed") => {
                tracing::info!(item_hash = hash, address, %payment, "can no longer be paid");
                removing::begin(conn, hash, now + GRACE)?;
                files::expire_pin(conn, hash, Some(now + GRACE))?;
            }
            (true, "removing") => {
                tracing::info!(item_hash = hash, address, %payment, "can be paid again");
                removing::spare(conn, hash)?;
                files::expire_pin(conn, hash, None)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// What an account must have for something of this cost to stay.
fn needed(payment: PaymentType, cost: &Decimal) -> Decimal {
    match payment {
        PaymentType::Credit => required_credits(cost),
        PaymentType::Hold | PaymentType::Superfluid => cost.clone(),
    }
}

/// Messages from before anything was charged, and small files of those who hold tokens, stay.
fn is_exempt(charged: &accounts::Charged, payment: PaymentType, config: &Config) -> bool {
    let small = config.limits.max_unauthenticated_file_bytes;
    let free_before = matches!(charged.kind.as_str(), "STORE" | "PROGRAM")
        && charged.time < config.cutoffs.store_and_program_cost as f64;
    let is_small = charged.kind == "STORE"
        && payment == PaymentType::Hold
        && charged
            .file_size
            .is_some_and(|size| size.unsigned_abs() <= small);
    free_before || is_small
}

/// Takes away for good what was out of force long enough.
fn finish(conn: &Connection, now: f64) -> Result<(), StoreError> {
    for hash in removing::due(conn, now)? {
        if let Some(message) = messages::get(conn, &hash)? {
            tracing::info!(item_hash = hash, "removed");
            kinds::remove(conn, &message, now)?;
        }
    }
    Ok(())
}

async fn round(node: &Node, seen: f64) -> Result<f64, StoreError> {
    let until = now();
    let due = node
        .store
        .read::<_, StoreError, _>(move |conn| {
            let expired = !credits::expired(conn, seen, until)?.is_empty();
            Ok(expired || !removing::due(conn, until)?.is_empty())
        })
        .await?;
    if due {
        let config = node.config.clone();
        node.store
            .write::<_, StoreError, _>(move |conn| {
                for address in credits::expired(conn, seen, until)? {
                    recheck(conn, &config, &address, until)?;
                }
                finish(conn, until)
            })
            .await?;
    }
    Ok(until)
}

/// Acts when credits expire and when a grace ends, for ever. What happened while the node was off is made up for first.
pub async fn run(node: Node) {
    let mut seen = 0.0;
    loop {
        match round(&node, seen).await {
            Ok(until) => seen = until,
            Err(StoreError::Closed) => return,
            Err(error) => tracing::error!(%error, "cannot look for what is no longer paid"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
