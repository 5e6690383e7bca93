//! Balances and credits of everybody, and what happened to one account's credits (spec ccn-api §3.5).

use axum::Json;
use axum::extract::{Path, State};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::ApiError;
use super::list::paged;
use super::params::Params;
use super::render::iso;
use crate::money::Decimal;
use crate::node::Node;
use crate::store::accounts::{self, BalanceFilter};
use crate::store::credits::{self, Entry, HistoryAfter, HistoryFilter, HistoryOrder, Summary};
use crate::store::{Page, StoreError, now};

/// Largest page in cursor mode.
const CURSOR_PAGE: u64 = 200;

/// Page of a request, and where it continues when it is one with a cursor.
struct Place<T> {
    page: Page,
    by_cursor: bool,
    after: Option<T>,
}

impl<T: DeserializeOwned> Place<T> {
    fn of(params: &Params, default: u64) -> Result<Self, ApiError> {
        if !params.has("cursor") {
            return Ok(Self {
                page: params.page(default, true)?,
                by_cursor: false,
                after: None,
            });
        }
        let asked: Option<u64> = params.number("pagination")?;
        if asked == Some(0) {
            return Err(ApiError::unprocessable(
                "pagination: must not be 0 with a cursor",
            ));
        }
        let decode = |text: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
            serde_json::from_slice(&bytes).ok()
        };
        let after = params
            .get("cursor")
            .map(|text| decode(text).ok_or_else(|| ApiError::unprocessable("cursor: invalid")))
            .transpose()?;
        let limit = asked.unwrap_or(default).clamp(1, CURSOR_PAGE);
        Ok(Self {
            page: Page { limit, page: 1 },
            by_cursor: true,
            after,
        })
    }

    /// The page as an answer; `last` is where the next one continues.
    fn answer<C: Serialize>(
        &self,
        key: &str,
        items: Vec<Value>,
        total: u64,
        last: Option<C>,
    ) -> Value {
        if !self.by_cursor {
            return paged(key, items, self.page, total);
        }
        let full = items.len() as u64 == self.page.limit;
        let next = last
            .filter(|_| full)
            .and_then(|last| serde_json::to_vec(&last).ok())
            .map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
        let mut body = json!({
            "pagination_per_page": self.page.limit,
            "next_cursor": next,
            "pagination_item": key,
        });
        body[key] = items.into();
        body
    }
}

/// `GET /balances`.
pub async fn balances(State(node): State<Node>, params: Params) -> Result<Json<Value>, ApiError> {
    let place: Place<(String, String)> = Place::of(&params, 100)?;
    let filter = BalanceFilter {
        chains: params.list("chains"),
        min_balance: params.number("min_balance")?.unwrap_or(0.0),
    };
    let (page, after) = (place.page, place.after.clone());
    let (rows, total) = node
        .store
        .read::<_, StoreError, _>(move |conn| {
            accounts::all_balances(conn, &filter, page, after.as_ref())
        })
        .await?;
    let last = rows
        .last()
        .map(|row| (row.address.clone(), row.chain.clone()));
    let items = rows
        .into_iter()
        .map(|row| {
            let balance: Decimal = row.balance.parse().unwrap_or_default();
            json!({"address": row.address, "balance": balance.to_f64(), "chain": row.chain})
        })
        .collect();
    Ok(Json(place.answer("balances", items, total, last)))
}

/// `GET /credit_balances`.
pub async fn credit_balances(
    State(node): State<Node>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let place: Place<String> = Place::of(&params, 100)?;
    let min: i64 = params.number("min_balance")?.unwrap_or(0);
    let (page, after) = (place.page, place.after.clone());
    let (rows, total) = node
        .store
        .read::<_, StoreError, _>(move |conn| {
            credits::all(conn, now(), min, page, after.as_deref())
        })
        .await?;
    let last = rows.last().map(|(address, _)| address.clone());
    let items = rows
        .into_iter()
        .map(|(address, credits)| json!({"address": address, "credits": credits}))
        .collect();
    Ok(Json(place.answer("credit_balances", items, total, last)))
}

fn history_filter(params: &Params) -> Result<HistoryFilter, ApiError> {
    const EQUAL: [(&str, &str); 7] = [
        ("txHash", "tx_hash"),
        ("token", "token"),
        ("chain", "chain"),
        ("provider", "provider"),
        ("origin", "origin"),
        ("originRef", "origin_ref"),
        ("paymentMethod", "payment_method"),
    ];
    let incoming = match params.get("direction") {
        None => None,
        Some("incoming") => Some(true),
        Some("outgoing") => Some(false),
        Some(other) => {
            return Err(ApiError::unprocessable(format!(
                "direction: {other:?} is neither incoming nor outgoing"
            )));
        }
    };
    let has_expiration = params
        .get("hasExpiration")
        .map(|_| params.flag("hasExpiration"));
    let seconds = |name: &str| -> Result<Option<f64>, ApiError> {
        let time: Option<f64> = params.number(name)?;
        Ok(time.filter(|time| *time > 0.0))
    };
    let types = params.list("resourceTypes");
    Ok(HistoryFilter {
        equal: EQUAL
            .into_iter()
            .filter_map(|(name, column)| Some((column, params.get(name)?.to_owned())))
            .collect(),
        exclude_payment_method: params.get("excludePaymentMethod").map(str::to_owned),
        has_expiration,
        start: seconds("startDate")?,
        end: seconds("endDate")?,
        incoming,
        resource_types: types.iter().map(|kind| kind.to_uppercase()).collect(),
        resource: params.get("resource").map(str::to_owned),
    })
}

fn history_order(params: &Params) -> Result<HistoryOrder, ApiError> {
    match params.get("sortBy") {
        None | Some("message_timestamp" | "time") => Ok(HistoryOrder::Time),
        Some("amount") => Ok(HistoryOrder::Amount),
        Some("expiration_date") => Ok(HistoryOrder::Expiration),
        Some(other) => Err(ApiError::unprocessable(format!(
            "sortBy: {other:?} is none of message_timestamp, amount and expiration_date"
        ))),
    }
}

fn history_item(entry: &Entry) -> Value {
    // Written as a number where it was one.
    let bonus = entry.bonus_amount.as_ref().map(|text| {
        serde_json::from_str::<serde_json::Number>(text)
            .map_or_else(|_| json!(text), |number| json!(number))
    });
    json!({
        "amount": entry.amount,
        "price": entry.price,
        "bonus_amount": bonus,
        "tx_hash": entry.tx_hash,
        "token": entry.token,
        "chain": entry.chain,
        "provider": entry.provider,
        "origin": entry.origin,
        "origin_ref": entry.origin_ref,
        "payment_method": entry.payment_method,
        "credit_ref": entry.credit_ref,
        "credit_index": entry.credit_index,
        "expiration_date": entry.expiration.map(iso),
        "message_timestamp": iso(entry.message_time),
        "expense_count": entry.expense_count,
        "expense_size_mib": entry.expense_size_mib,
    })
}

/// `GET /addresses/{address}/credit_history`.
pub async fn history(
    State(node): State<Node>,
    Path(address): Path<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    // Without a cursor no page size means everything.
    let place: Place<(u64, String, i64)> =
        Place::of(&params, if params.has("cursor") { CURSOR_PAGE } else { 0 })?;
    let filter = history_filter(&params)?;
    let order = history_order(&params)?;
    let ascending = params.ascending()?;
    let after = place
        .after
        .clone()
        .map(|(bits, credit_ref, credit_index)| HistoryAfter {
            value: f64::from_bits(bits),
            credit_ref,
            credit_index,
        });
    let (page, account) = (place.page, address.clone());
    let (entries, summary) = node
        .store
        .read::<_, StoreError, _>(move |conn| {
            let summary = credits::summary(conn, &account, &filter)?;
            let entries = credits::history(
                conn,
                &account,
                &filter,
                order,
                ascending,
                page,
                after.as_ref(),
            )?;
            Ok((entries, summary))
        })
        .await?;
    if summary.entries == 0 {
        return Err(ApiError::not_found(
            "No credit history found for this address",
        ));
    }
    let value = |entry: &Entry| match order {
        HistoryOrder::Time => entry.message_time,
        HistoryOrder::Amount => entry.amount as f64,
        HistoryOrder::Expiration => entry.expiration.unwrap_or(9e99),
    };
    let last = entries.last().map(|entry| {
        (
            value(entry).to_bits(),
            entry.credit_ref.clone(),
            entry.credit_index,
        )
    });
    let items = entries.iter().map(history_item).collect();
    let total = summary.entries.unsigned_abs();
    let mut body = place.answer("credit_history", items, total, last);
    body["address"] = json!(address);
    Ok(Json(body))
}

/// `GET /addresses/{address}/credit_history/summary`: the sums over the same entries, also of none.
pub async fn summary(
    State(node): State<Node>,
    Path(address): Path<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let filter = history_filter(&params)?;
    let account = address.clone();
    let Summary {
        entries,
        incoming,
        outgoing,
    } = node
        .store
        .read::<_, StoreError, _>(move |conn| credits::summary(conn, &account, &filter))
        .await?;
    Ok(Json(json!({
        "address": address,
        "entry_count": entries,
        "total_amount": incoming - outgoing,
        "total_incoming": incoming,
        "total_outgoing": outgoing,
    })))
}
