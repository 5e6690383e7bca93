//! What messages do to the accounts of others: balances, credits, and what can no longer be paid.
//!
//! A POST of an authority changes balances (spec ccn-api §4.5) or credits (§4.7), anybody's POST can hand on credits.
//! Whenever an account's means or its costs change, everything it pays for is looked at again (§4.6). All of it
//! happens in the transaction of the message that caused it.

mod balances;
mod credits;
pub mod removal;

use aleph_message::{Body, PostContent, Rejection};
use rusqlite::Connection;

use crate::config::Config;
use crate::pipeline::{Refusal, Verified};
use crate::store::{StoreError, gone, measurements};

/// The effects of a message on accounts.
///
/// # Errors
/// `INVALID_FORMAT` for a post about balances or credits that says nothing usable.
pub fn apply(conn: &Connection, config: &Config, v: &Verified, now: f64) -> Result<(), Refusal> {
    match &v.content.body {
        Body::Post(post) => apply_post(conn, config, v, post, now),
        Body::Forget(forget) => {
            for hash in forget.hashes.iter().chain(&forget.aggregates) {
                let hash = hash.as_str();
                if let Some(target) = gone::get(conn, hash)? {
                    // What was forgotten costs no more, which may spare something else.
                    removal::recheck(conn, config, &target.owner, now)?;
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn apply_post(
    conn: &Connection,
    config: &Config,
    v: &Verified,
    post: &PostContent,
    now: f64,
) -> Result<(), Refusal> {
    let is_one_of = |addresses: &[String]| addresses.iter().any(|a| a == v.owner());
    let in_channel = || {
        let channels = &config.channels.credits;
        channels.is_empty()
            || v.envelope
                .channel
                .as_ref()
                .is_some_and(|channel| channels.contains(channel))
    };
    let is_credit_authority = is_one_of(&config.authorities.credits);
    let touched = match post.post_type.as_str() {
        // Posts without content are ordinary ones on the network's nodes.
        _ if is_empty(&post.content) => return Ok(()),
        "balances-update" if is_one_of(&config.authorities.balances) => {
            balances::update(conn, &post.content)?
        }
        "aleph_credit_distribution" if is_credit_authority && in_channel() => {
            let context = credits::Context::new(v, config);
            credits::distribute(conn, &context, &post.content)?
        }
        "aleph_credit_expense" if is_credit_authority && in_channel() => {
            let context = credits::Context::new(v, config);
            credits::expend(conn, &context, &post.content)?
        }
        "aleph_credit_transfer" if in_channel() => {
            let context = credits::Context::new(v, config);
            credits::transfer(conn, &context, &post.content, is_credit_authority, now)?
        }
        "aleph-network-metrics" if is_one_of(&config.authorities.scoring) => {
            return Ok(measurements::record(conn, v.hash(), &post.content, now)?);
        }
        _ => return Ok(()),
    };
    for address in touched {
        removal::recheck(conn, config, &address, now)?;
    }
    Ok(())
}

fn is_empty(content: &serde_json::Value) -> bool {
    match content {
        serde_json::Value::Null | serde_json::Value::Bool(false) => true,
        serde_json::Value::Object(map) => map.is_empty(),
        serde_json::Value::Array(list) => list.is_empty(),
        serde_json::Value::String(text) => text.is_empty(),
        serde_json::Value::Number(number) => number.as_f64() == Some(0.0),
        serde_json::Value::Bool(true) => false,
    }
}

/// `INVALID_FORMAT` about a field of a post's content.
fn invalid(field: &str, reason: &str) -> Refusal {
    Rejection::invalid_format(format!("{field}: {reason}")).into()
}

/// What is known of a STORE that was removed or forgotten: `(owner, payment, bytes)`.
///
/// # Errors
/// When the database fails.
pub fn remains_of_store(
    conn: &Connection,
    hash: &str,
) -> Result<Option<(String, String, u64)>, StoreError> {
    Ok(gone::get(conn, hash)?.and_then(|m| {
        let size = u64::try_from(m.size?).ok()?;
        (m.kind == "STORE").then_some((m.owner, m.payment_type, size))
    }))
}
