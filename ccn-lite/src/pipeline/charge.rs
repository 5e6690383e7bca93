//! What a message costs and whether its owner can pay.

use std::collections::BTreeMap;

use aleph_message::{Body, Content, ErrorCode, ItemHash, PaymentType, Rejection};
use rusqlite::Connection;
use serde_json::json;

use super::{Refusal, Verified};
use crate::config::Config;
use crate::kinds::vm::resolve;
use crate::ledger;
use crate::money::{
    self, CompatibleGpus, CostRow, CostType, Decimal, Prices, Tariff, check_payment_method,
    is_free, payment_type, required_credits, total,
};
use crate::store::accounts::{self, Cost};
use crate::store::{StoreError, aggregates, credits, files, messages};

/// Sizes claimed by whoever asks for an estimate, bytes, by STORE message or file.
pub type Sizes = BTreeMap<String, u64>;

/// The price of a message.
#[derive(Debug, Clone)]
pub struct Quote {
    /// Who pays.
    pub owner: String,
    /// How.
    pub payment: PaymentType,
    /// What it consists of.
    pub rows: Vec<CostRow>,
}

/// Amounts in the database were written by this program.
fn amount(text: &str) -> Decimal {
    text.parse().unwrap_or_default()
}

fn to_record(row: &CostRow, owner: &str, hash: &str, payment: PaymentType) -> Cost {
    Cost {
        owner: owner.to_owned(),
        item_hash: hash.to_owned(),
        kind: row.cost_type.as_str().to_owned(),
        name: row.name.clone(),
        reference: row.reference.clone(),
        payment_type: payment.to_string(),
        hold: row.hold.to_fixed(),
        stream: row.stream.to_fixed(),
        credit: row.credit.to_fixed(),
        size_mib: row.size_mib.as_ref().map(Decimal::to_string),
    }
}

fn from_record(cost: Cost) -> CostRow {
    CostRow {
        cost_type: CostType::ALL
            .into_iter()
            .find(|known| known.as_str() == cost.kind)
            .unwrap_or(CostType::Execution),
        name: cost.name,
        reference: cost.reference,
        hold: amount(&cost.hold),
        stream: amount(&cost.stream),
        credit: amount(&cost.credit),
        size_mib: cost.size_mib.as_deref().map(amount),
    }
}

/// Tokens held by everything the owner runs and stores, for display.
pub fn locked_amount(conn: &Connection, owner: &str) -> Result<f64, StoreError> {
    Ok(accounts::charged(conn, owner, PaymentType::Hold.as_str())?.to_f64())
}

/// Prices in force, or those of a time (Unix seconds): the `pricing` aggregate of its authority, and the GPUs of the
/// `settings` aggregate, which are not dated.
fn tariff_at(conn: &Connection, config: &Config, at: Option<f64>) -> Result<Tariff, StoreError> {
    let owner = &config.authorities.pricing;
    let pricing = match at {
        None => aggregates::get(conn, owner, "pricing")?.map(|aggregate| aggregate.content),
        Some(at) => aggregates::as_of(conn, owner, "pricing", at)?,
    };
    let prices = pricing.map_or_else(Prices::default, |content| {
        Prices::from_aggregate(&content).unwrap_or_else(|error| {
            tracing::warn!(%error, "unusable price list, using the built-in one");
            Prices::default()
        })
    });
    let settings = aggregates::get(conn, config.authorities.settings(), "settings")?;
    let gpus = settings.map_or_else(CompatibleGpus::default, |settings| {
        CompatibleGpus::from_aggregate(&settings.content)
    });
    Ok(Tariff { prices, gpus })
}

fn tariff(conn: &Connection, config: &Config) -> Result<Tariff, StoreError> {
    tariff_at(conn, config, None)
}

fn rows(
    conn: &Connection,
    tariff: &Tariff,
    content: &Content,
    sizes: &Sizes,
) -> Result<Vec<CostRow>, Refusal> {
    let is_store = matches!(content.body, Body::Store(_));
    let size_of = |reference: &ItemHash, use_latest: bool| {
        let reference = reference.as_str();
        let known = if is_store {
            files::get(conn, reference).map(|file| file.map(|(size, _)| size.unsigned_abs()))
        } else {
            resolve(conn, reference, use_latest).map(|file| file.map(|(_, size)| size))
        };
        known.unwrap_or_else(|error| {
            tracing::error!(%error, reference, "cannot read the size of a file");
            None
        })
    };
    // What is claimed comes first, as on the network: an estimate may be about a file still to come under a known name.
    let size_of = |reference: &ItemHash, use_latest: bool| {
        let claimed = sizes.get(reference.as_str()).copied();
        claimed.or_else(|| size_of(reference, use_latest))
    };
    money::costs(content, payment_type(content), tariff, &size_of).map_err(|error| {
        // The price list or the list of GPUs may still change, so this is worth another attempt.
        Rejection::new(ErrorCode::InternalError, error.to_string()).into()
    })
}

/// Refuses when the owner cannot pay `rows` on top of everything else: code 5 or 6.
fn check_funds(
    conn: &Connection,
    owner: &str,
    payment: PaymentType,
    rows: &[CostRow],
    now: f64,
) -> Result<(), Refusal> {
    let needed = accounts::charged(conn, owner, payment.as_str())?.plus(&total(rows, payment));
    match payment {
        PaymentType::Superfluid => Ok(()),
        PaymentType::Hold => {
            let held = accounts::total_balance(conn, owner)?;
            if held >= needed {
                return Ok(());
            }
            Err(Rejection::with_details(
                ErrorCode::BalanceInsufficient,
                json!({"errors": [{
                    "required_balance": needed.to_string(),
                    "account_balance": held.to_string(),
                }]}),
            )
            .into())
        }
        PaymentType::Credit => {
            let credits = credits::balance(conn, owner, now)?;
            let required = required_credits(&needed);
            if Decimal::from(credits) >= required {
                return Ok(());
            }
            Err(Rejection::with_details(
                ErrorCode::CreditInsufficient,
                json!({"errors": [{
                    "required_credits": required.to_string(),
                    "account_credits": credits.to_string(),
                    "min_runtime_days": 1,
                }]}),
            )
            .into())
        }
    }
}

fn check(
    conn: &Connection,
    config: &Config,
    content: &Content,
    time: f64,
    file_bytes: u64,
    now: f64,
) -> Result<Vec<CostRow>, Refusal> {
    // Most messages cost nothing; for them the price list is not even read.
    if matches!(
        content.body,
        Body::Post(_) | Body::Aggregate(_) | Body::Forget(_)
    ) {
        return Ok(Vec::new());
    }
    check_payment_method(content, time, &config.cutoffs)?;
    let mut sizes = Sizes::new();
    if let Body::Store(store) = &content.body {
        sizes.insert(store.item_hash.to_string(), file_bytes);
    }
    let rows = rows(conn, &tariff(conn, config)?, content, &sizes)?;
    // What is free is written down all the same: it counts for what comes after it.
    let small = config.limits.max_unauthenticated_file_bytes;
    if !is_free(content, time, file_bytes, small, &config.cutoffs) {
        check_funds(conn, content.address(), payment_type(content), &rows, now)?;
    }
    Ok(rows)
}

/// The checks of payment; returns the cost rows to record.
pub fn charge(
    conn: &Connection,
    config: &Config,
    v: &Verified,
    now: f64,
) -> Result<Vec<Cost>, Refusal> {
    let content = &v.content;
    let file_bytes = match &content.body {
        Body::Store(store) => {
            files::get(conn, store.item_hash.as_str())?.map_or(0, |(size, _)| size.unsigned_abs())
        }
        _ => 0,
    };
    let rows = check(conn, config, content, v.envelope.time, file_bytes, now)?;
    let payment = payment_type(content);
    Ok(rows
        .iter()
        .map(|row| to_record(row, v.owner(), v.hash(), payment))
        .collect())
}

/// The same checks for a STORE whose file of `size` bytes is not stored yet.
pub fn check_store(
    conn: &Connection,
    config: &Config,
    content: &Content,
    time: f64,
    size: u64,
    now: f64,
) -> Result<(), Refusal> {
    check(conn, config, content, time, size, now).map(drop)
}

/// What `content` would cost.
pub fn quote(
    conn: &Connection,
    config: &Config,
    content: &Content,
    sizes: &Sizes,
) -> Result<Quote, Refusal> {
    Ok(Quote {
        owner: content.address().to_owned(),
        payment: payment_type(content),
        rows: rows(conn, &tariff(conn, config)?, content, sizes)?,
    })
}

/// What a message in force costs, at the prices of when it was processed.
pub fn recorded(conn: &Connection, hash: &str) -> Result<Vec<CostRow>, StoreError> {
    let records = accounts::costs_of_message(conn, hash)?;
    Ok(records.into_iter().map(from_record).collect())
}

/// What is left of a STORE that was removed or forgotten would cost now; none for anything else.
pub fn quote_remains(
    conn: &Connection,
    config: &Config,
    hash: &str,
) -> Result<Option<Quote>, StoreError> {
    let Some((owner, payment, size)) = ledger::remains_of_store(conn, hash)? else {
        return Ok(None);
    };
    let payment = payment.parse().unwrap_or(PaymentType::Hold);
    let rows = money::stored(&tariff(conn, config)?, size, payment);
    Ok(rows.ok().map(|rows| Quote {
        owner,
        payment,
        rows,
    }))
}

/// Writes down anew what a message in force costs, at the prices of its time; tells whether it costs anything.
pub fn recalculate(
    conn: &Connection,
    config: &Config,
    hash: &str,
    now: f64,
) -> Result<bool, StoreError> {
    let Some(message) = messages::get(conn, hash)? else {
        return Ok(false);
    };
    let kind = message.kind.parse().ok();
    let content = kind.and_then(|kind| Content::parse(kind, message.content).ok());
    let Some(content) = content else {
        return Ok(false);
    };
    let tariff = tariff_at(conn, config, Some(message.time))?;
    let rows = match rows(conn, &tariff, &content, &Sizes::new()) {
        Ok(rows) if rows.is_empty() => return Ok(false),
        Ok(rows) => rows,
        Err(Refusal::Store(error)) => return Err(error),
        Err(Refusal::Rejected { rejection, .. }) => {
            tracing::warn!(
                item_hash = hash,
                reason = rejection.reason(),
                "keeps its costs"
            );
            return Ok(false);
        }
    };
    let payment = payment_type(&content);
    accounts::remove_costs(conn, hash)?;
    for row in &rows {
        accounts::insert_cost(conn, &to_record(row, &message.owner, hash, payment))?;
    }
    ledger::removal::recheck(conn, config, &message.owner, now)?;
    Ok(true)
}
