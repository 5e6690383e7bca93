//! `GET /costs`: what everything costs, summed up, listed, and taken apart (spec ccn-api §3.7).

use aleph_message::PaymentType;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::check_hash;
use super::error::ApiError;
use super::list::paged;
use super::params::Params;
use crate::money::{CostRow, detail_json};
use crate::node::Node;
use crate::pipeline::charge;
use crate::store::accounts::{self, CostFilter};
use crate::store::{Page, StoreError, credits};

const PAGES: std::ops::RangeInclusive<u64> = 10..=1000;

struct Query {
    filter: CostFilter,
    /// 0 for the sums, 1 for the messages too, 2 for their rows as well.
    details: u8,
    with_sizes: bool,
    page: Page,
}

impl Query {
    fn read(params: &Params) -> Result<Self, ApiError> {
        let payment: PaymentType = params
            .get("paymentType")
            .unwrap_or("credit")
            .parse()
            .map_err(|_| {
                ApiError::unprocessable("payment_type: none of hold, superfluid and credit")
            })?;
        let item_hash = params.get("itemHash").map(str::to_owned);
        item_hash.as_deref().map(check_hash).transpose()?;
        let details = params.number::<u8>("includeDetails")?.unwrap_or(0);
        if details > 2 {
            return Err(ApiError::unprocessable("include_details: 0, 1 or 2"));
        }
        let limit = params.number::<u64>("pagination")?.unwrap_or(100);
        if !PAGES.contains(&limit) {
            return Err(ApiError::unprocessable("pagination: from 10 to 1000"));
        }
        let page = params.number::<u64>("page")?.unwrap_or(1);
        if page == 0 {
            return Err(ApiError::unprocessable("page: counts from 1"));
        }
        let filter = CostFilter {
            owner: params.get("address").map(str::to_owned),
            item_hash,
            payment_type: Some(payment.to_string()),
        };
        if details == 2 && filter.owner.is_none() && filter.item_hash.is_none() {
            return Err(ApiError::unprocessable(
                "include_details=2 needs an address or an item_hash",
            ));
        }
        Ok(Self {
            filter,
            details,
            with_sizes: params.flag("includeSize"),
            page: Page { limit, page },
        })
    }
}

/// `GET /costs`.
pub async fn list(State(node): State<Node>, params: Params) -> Result<Json<Value>, ApiError> {
    let query = Query::read(&params)?;
    let body = node
        .store
        .read::<_, StoreError, _>(move |conn| answer(conn, &query))
        .await?;
    Ok(Json(body))
}

fn answer(conn: &rusqlite::Connection, query: &Query) -> Result<Value, StoreError> {
    let filter = &query.filter;
    let sum = accounts::sum_costs(conn, filter)?;
    let consumed =
        credits::consumed_by(conn, filter.owner.as_deref(), filter.item_hash.as_deref())?;
    let summary = json!({
        "total_consumed_credits": consumed,
        "total_cost_hold": sum.hold.to_fixed(),
        "total_cost_stream": sum.stream.to_fixed(),
        "total_cost_credit": sum.credit.to_fixed(),
        "resource_count": sum.resources,
    });
    let filters = json!({
        "address": filter.owner,
        "item_hash": filter.item_hash,
        "payment_type": filter.payment_type,
    });
    if query.details == 0 {
        return Ok(json!({"summary": summary, "filters": filters}));
    }
    let mut items = Vec::new();
    for hash in accounts::resources(conn, filter, query.page)? {
        items.push(resource(conn, query, &hash)?);
    }
    let mut body = paged("resources", items, query.page, sum.resources);
    body["summary"] = summary;
    body["filters"] = filters;
    Ok(body)
}

fn resource(conn: &rusqlite::Connection, query: &Query, hash: &str) -> Result<Value, StoreError> {
    let recorded = accounts::costs_of_message(conn, hash)?;
    let first = recorded.first();
    let owner = first.map(|cost| cost.owner.clone());
    let payment_type = first.map(|cost| cost.payment_type.clone());
    let rows = charge::recorded(conn, hash)?;
    let sum = |amount: fn(&CostRow) -> &crate::money::Decimal| {
        let sum: crate::money::Decimal = rows.iter().map(|row| amount(row).clone()).sum();
        sum.to_fixed()
    };
    let mut item = json!({
        "item_hash": hash,
        "owner": owner,
        "payment_type": payment_type,
        "consumed_credits": credits::consumed(conn, hash)?,
        "cost_hold": sum(|row| &row.hold),
        "cost_stream": sum(|row| &row.stream),
        "cost_credit": sum(|row| &row.credit),
    });
    if query.details == 2 {
        item["detail"] = detail_json(&rows, query.with_sizes);
    }
    Ok(item)
}
