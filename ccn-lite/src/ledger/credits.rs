//! Posts about credits: granted, spent, handed on (spec ccn-api §4.7).

use aleph_message::Rejection;
use rusqlite::Connection;
use serde_json::{Map, Value};

use super::invalid;
use crate::config::Config;
use crate::money::Decimal;
use crate::pipeline::{Refusal, Verified};
use crate::store::StoreError;
use crate::store::credits::{self, Entry, Lot};

/// Credits of messages from before the cut-off were worth this many of today's.
const OLD_CREDIT: i64 = 10_000;
/// Provider of what the network itself books.
const NETWORK: &str = "ALEPH";

/// What an entry of the books needs of the message.
pub(super) struct Context<'a> {
    hash: &'a str,
    owner: &'a str,
    time: f64,
    /// Today's credits for one of the message's.
    worth: i64,
}

impl<'a> Context<'a> {
    pub(super) fn new(v: &'a Verified, config: &Config) -> Self {
        let time = v.content.time();
        Self {
            hash: v.hash(),
            owner: v.owner(),
            time,
            worth: if time < config.cutoffs.credit_precision as f64 {
                OLD_CREDIT
            } else {
                1
            },
        }
    }

    fn entry(&self, index: usize, address: &str, amount: i64) -> Entry {
        Entry {
            address: address.to_owned(),
            amount,
            credit_ref: self.hash.to_owned(),
            credit_index: position(index),
            message_time: self.time,
            ..Entry::default()
        }
    }

    fn lot(&self, index: usize, entry: &Entry, amount: i64, expiration: Option<f64>) -> Lot {
        Lot {
            address: entry.address.clone(),
            credit_ref: self.hash.to_owned(),
            credit_index: position(index),
            amount,
            remaining: amount,
            expiration,
            message_time: self.time,
            payment_method: entry.payment_method.clone(),
        }
    }
}

fn position(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

/// One item of the list `<part>.credits`, which knows where it stands.
struct Item<'a> {
    path: String,
    fields: &'a Map<String, Value>,
}

fn items<'a>(content: &'a Value, part: &str) -> Result<Vec<Item<'a>>, Refusal> {
    let list = content
        .get(part)
        .and_then(|part| part.get("credits"))
        .and_then(Value::as_array)
        .filter(|list| !list.is_empty())
        .ok_or_else(|| {
            invalid(
                &format!("{part}.credits"),
                "a list with at least one entry is required",
            )
        })?;
    list.iter()
        .enumerate()
        .map(|(index, item)| {
            let path = format!("{part}.credits[{index}]");
            match item.as_object() {
                Some(fields) => Ok(Item { path, fields }),
                None => Err(invalid(&path, "an object is required")),
            }
        })
        .collect()
}

impl Item<'_> {
    fn invalid(&self, name: &str, reason: &str) -> Refusal {
        invalid(&format!("{}.{name}", self.path), reason)
    }

    fn address(&self) -> Result<&str, Refusal> {
        self.fields
            .get("address")
            .and_then(Value::as_str)
            .filter(|address| !address.trim().is_empty())
            .ok_or_else(|| self.invalid("address", "an address is required"))
    }

    /// The amount in today's credits.
    fn amount(&self, worth: i64) -> Result<i64, Refusal> {
        self.fields
            .get("amount")
            .and_then(Value::as_i64)
            .filter(|amount| *amount > 0)
            .and_then(|amount| amount.checked_mul(worth))
            .ok_or_else(|| self.invalid("amount", "a positive integer is required"))
    }

    fn text(&self, name: &str) -> Result<Option<String>, Refusal> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.invalid(name, "text is expected")),
        }
    }

    fn required_text(&self, name: &str) -> Result<String, Refusal> {
        self.text(name)?
            .ok_or_else(|| self.invalid(name, "text is required"))
    }

    fn price(&self) -> Result<Option<String>, Refusal> {
        let text = match self.fields.get("price") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(_) => return Err(self.invalid("price", "a decimal number is expected")),
        };
        match text.parse::<Decimal>() {
            Ok(_) => Ok(Some(text)),
            Err(_) => Err(self.invalid("price", "a decimal number is expected")),
        }
    }

    /// Unix seconds, from milliseconds.
    fn expiration(&self) -> Result<Option<f64>, Refusal> {
        match self.fields.get("expiration") {
            None | Some(Value::Null) => Ok(None),
            // Zero is how clients write that there is none.
            Some(value) => match value.as_i64() {
                Some(0) => Ok(None),
                Some(milliseconds) => Ok(Some(milliseconds as f64 / 1000.0)),
                None => Err(self.invalid("expiration", "a time in milliseconds is expected")),
            },
        }
    }

    /// A value of any kind, as the network shows it.
    fn any(&self, name: &str) -> Option<String> {
        match self.fields.get(name)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }
}

/// `aleph_credit_distribution`: new lots.
pub(super) fn distribute(
    conn: &Connection,
    context: &Context<'_>,
    content: &Value,
) -> Result<Vec<String>, Refusal> {
    let common = |name: &str| {
        content["distribution"][name]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| invalid(&format!("distribution.{name}"), "text is required"))
    };
    let (token, chain) = (common("token")?, common("chain")?);
    let mut touched = Vec::new();
    for (index, item) in items(content, "distribution")?.into_iter().enumerate() {
        let amount = item.amount(context.worth)?;
        let price = item.price()?;
        let entry = Entry {
            price: Some(
                price.ok_or_else(|| item.invalid("price", "a decimal number is required"))?,
            ),
            bonus_amount: item.any("bonus_amount"),
            tx_hash: Some(item.required_text("tx_hash")?),
            token: Some(token.clone()),
            chain: Some(chain.clone()),
            provider: Some(item.required_text("provider")?),
            origin: item.text("origin")?,
            origin_ref: item.text("ref")?,
            payment_method: item.text("payment_method")?,
            expiration: item.expiration()?,
            ..context.entry(index, item.address()?, amount)
        };
        credits::grant(conn, &context.lot(index, &entry, amount, entry.expiration))?;
        credits::record(conn, &entry)?;
        touched.push(entry.address);
    }
    Ok(touched)
}

/// `aleph_credit_expense`: lots shrink, oldest first. Who owes more than is there has nothing left; the history keeps
/// the whole expense.
pub(super) fn expend(
    conn: &Connection,
    context: &Context<'_>,
    content: &Value,
) -> Result<Vec<String>, Refusal> {
    let mut touched = Vec::new();
    for (index, item) in items(content, "expense")?.into_iter().enumerate() {
        let amount = item.amount(context.worth)?;
        let entry = Entry {
            price: item.price()?,
            tx_hash: item.text("node_id")?,
            provider: Some(NETWORK.to_owned()),
            origin: item.text("execution_id")?,
            origin_ref: item.text("ref")?,
            payment_method: Some("credit_expense".to_owned()),
            expense_count: item.fields.get("count").and_then(Value::as_i64),
            expense_size_mib: item.fields.get("size").and_then(Value::as_f64),
            ..context.entry(index, item.address()?, -amount)
        };
        credits::spend(conn, &entry.address, amount, context.time)?;
        credits::record(conn, &entry)?;
        touched.push(entry.address);
    }
    Ok(touched)
}

/// `aleph_credit_transfer`: credits change hands and keep the earlier of their own and the asked for expiry. An
/// authority hands on what did not exist before.
pub(super) fn transfer(
    conn: &Connection,
    context: &Context<'_>,
    content: &Value,
    mints: bool,
    now: f64,
) -> Result<Vec<String>, Refusal> {
    let items = items(content, "transfer")?;
    let mut recipients: Vec<String> = Vec::new();
    let mut sum: i64 = 0;
    for item in &items {
        let address = item.address()?.to_ascii_lowercase();
        if address.eq_ignore_ascii_case(context.owner) {
            return Err(item.invalid("address", "credits cannot be transferred to oneself"));
        }
        if recipients.contains(&address) {
            return Err(item.invalid("address", "each recipient may be named once"));
        }
        recipients.push(address);
        sum = sum
            .checked_add(item.amount(context.worth)?)
            .ok_or_else(|| item.invalid("amount", "the sum is too large"))?;
    }
    let available = spendable(conn, context, now)?;
    if !mints && available < sum {
        let reason = format!(
            "Insufficient credit balance for transfer: {sum} required, {available} available"
        );
        return Err(Rejection::invalid_format(reason).into());
    }
    let mut touched = vec![context.owner.to_owned()];
    let mut entries = 0..;
    let mut lots = 0..;
    let next = |numbers: &mut std::ops::RangeFrom<usize>| numbers.next().unwrap_or(usize::MAX);
    for item in items {
        let amount = item.amount(context.worth)?;
        let asked = item.expiration()?;
        let booked = |entry: Entry, other: &str| Entry {
            provider: Some(NETWORK.to_owned()),
            origin: Some(other.to_owned()),
            payment_method: Some("credit_transfer".to_owned()),
            ..entry
        };
        let recipient = item.address()?;
        let portions = if mints {
            vec![credits::Portion {
                amount,
                expiration: None,
            }]
        } else {
            let entry = context.entry(next(&mut entries), context.owner, -amount);
            credits::record(conn, &booked(entry, recipient))?;
            credits::spend(conn, context.owner, amount, context.time)?
        };
        let gained = Entry {
            expiration: asked,
            ..booked(
                context.entry(next(&mut entries), recipient, amount),
                context.owner,
            )
        };
        for portion in portions {
            let expiration = match (portion.expiration, asked) {
                (Some(own), Some(asked)) => Some(own.min(asked)),
                (own, asked) => own.or(asked),
            };
            let lot = context.lot(next(&mut lots), &gained, portion.amount, expiration);
            credits::grant(conn, &lot)?;
        }
        touched.push(gained.address.clone());
        credits::record(conn, &gained)?;
    }
    Ok(touched)
}

/// What the sender can hand on: valid now and at the time of the message, so that what is promised is there.
fn spendable(conn: &Connection, context: &Context<'_>, now: f64) -> Result<i64, StoreError> {
    let valid = |lot: &Lot, at: f64| lot.expiration.is_none_or(|expiration| expiration > at);
    Ok(credits::lots(conn, context.owner)?
        .iter()
        .filter(|lot| {
            valid(lot, now) && valid(lot, context.time) && lot.message_time <= context.time
        })
        .map(|lot| lot.remaining)
        .sum())
}
