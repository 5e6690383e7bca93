//! What an address has: balance, credits, files, channels, post types, counters.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::paged;
use super::params::{Cursor, Params};
use super::render::iso;
use crate::money::Decimal;
use crate::node::Node;
use crate::pipeline::charge;
use crate::store::{StoreError, accounts, credits, files, messages, now};

/// `GET /addresses/{address}/balance`. Unknown addresses have nothing, which is an answer too.
pub async fn balance(
    State(node): State<Node>,
    Path(address): Path<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let chain = params.get("chain").map(str::to_owned);
    let with_lots = params.flag("include_credit_details");
    let body = node
        .store
        .read::<_, StoreError, _>(move |conn| {
            let now = now();
            let mut details = Map::new();
            let mut total = Decimal::zero();
            for row in accounts::balances(conn, &address)? {
                if chain.as_ref().is_some_and(|chain| *chain != row.chain) {
                    continue;
                }
                let amount: Decimal = row.balance.parse().unwrap_or_default();
                details.insert(row.chain, json!(amount.to_f64()));
                total = total.plus(&amount);
            }
            let lots = with_lots
                .then(|| credits::lots(conn, &address))
                .transpose()?
                .map(|lots| {
                    lots.iter()
                        .filter(|lot| lot.remaining > 0)
                        .filter(|lot| lot.expiration.is_none_or(|at| at > now))
                        .map(|lot| {
                            json!({
                                "expiration_date": lot.expiration.map(iso),
                                "amount": lot.remaining,
                            })
                        })
                        .collect::<Vec<_>>()
                });
            Ok(json!({
                "address": address,
                "balance": total.to_f64(),
                "details": (!details.is_empty()).then_some(details),
                "locked_amount": charge::locked_amount(conn, &address)?,
                "credit_balance": credits::balance(conn, &address, now)?,
                "credit_balance_details": lots,
            }))
        })
        .await?;
    Ok(Json(body))
}

/// `GET /addresses/{address}/files`.
///
/// Clients disagree on `created`: those that ask by page read text, those that ask by cursor read seconds.
pub async fn files(
    State(node): State<Node>,
    Path(address): Path<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let ascending = params.ascending()?;
    let file_hash = params.get("fileHash").map(str::to_owned);
    // The cursor of this list is the number of the next page.
    let by_cursor = params.has("cursor");
    let mut page = params.page(100, true)?;
    if by_cursor {
        page.limit = page.limit.min(200);
        page.page = params.number("cursor")?.unwrap_or(1).max(1);
    }
    let owner = address.clone();
    let (rows, total, bytes) = node
        .store
        .read::<_, StoreError, _>(move |conn| {
            files::of_owner(conn, &owner, file_hash.as_deref(), ascending, page)
        })
        .await?;
    if total == 0 {
        return Err(ApiError::not_found("No files found for this address"));
    }
    let items: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "file_hash": row.pin.file_hash,
                "size": row.size,
                "type": row.kind,
                "created": if by_cursor { json!(row.pin.created) } else { json!(iso(row.pin.created)) },
                "item_hash": row.pin.item_hash,
            })
        })
        .collect();
    let mut body = paged("files", items, page, total);
    body["address"] = json!(address);
    body["total_size"] = json!(bytes);
    if by_cursor {
        let more = page.page.saturating_mul(page.limit) < total;
        body["next_cursor"] = json!(more.then(|| (page.page + 1).to_string()));
    }
    Ok(Json(body))
}

/// `GET /addresses/{address}/post_types`.
pub async fn post_types(
    State(node): State<Node>,
    Path(address): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let owner = address.clone();
    let types = node
        .store
        .read::<_, StoreError, _>(move |conn| messages::post_types(conn, &owner))
        .await?;
    Ok(Json(json!({"address": address, "post_types": types})))
}

/// `GET /addresses/{address}/channels`.
pub async fn channels(
    State(node): State<Node>,
    Path(address): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let owner = address.clone();
    let channels = node
        .store
        .read::<_, StoreError, _>(move |conn| messages::channels(conn, Some(&owner)))
        .await?;
    Ok(Json(json!({"address": address, "channels": channels})))
}

/// `GET /channels/list.json`.
pub async fn all_channels(State(node): State<Node>) -> Result<Json<Value>, ApiError> {
    let channels = node
        .store
        .read::<_, StoreError, _>(|conn| messages::channels(conn, None))
        .await?;
    Ok(Json(json!({"channels": channels})))
}

async fn counters(
    node: &Node,
    addresses: Vec<String>,
) -> Result<BTreeMap<String, Value>, ApiError> {
    let rows = node
        .store
        .read::<_, StoreError, _>(move |conn| messages::stats(conn, &addresses))
        .await?;
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    for (owner, kind, count) in rows {
        let entry = all.entry(owner).or_insert_with(|| {
            json!({"messages": 0, "aggregate": 0, "forget": 0, "instance": 0, "post": 0, "program": 0, "store": 0})
        });
        let sum = entry["messages"].as_i64().unwrap_or(0) + count;
        entry["messages"] = json!(sum);
        entry[kind] = json!(count);
    }
    Ok(all)
}

/// `GET /api/v0/addresses/stats.json`.
pub async fn stats_v0(State(node): State<Node>, params: Params) -> Result<Json<Value>, ApiError> {
    let addresses = params.first_list(&["addresses[]", "addresses"]);
    Ok(Json(json!({"data": counters(&node, addresses).await?})))
}

/// What addresses can be sorted by.
pub const COUNTERS: [&str; 8] = [
    "messages",
    "aggregate",
    "forget",
    "instance",
    "post",
    "program",
    "store",
    "total",
];

/// An object whose members stay in the order they were put in.
struct Ordered(Vec<(String, Value)>);

impl Serialize for Ordered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// The body of `/api/v1/addresses/stats.json`.
#[derive(Serialize)]
pub struct Stats {
    data: Ordered,
    #[serde(flatten)]
    place: Value,
}

/// `GET /api/v1/addresses/stats.json`: the addresses in order of a counter.
pub async fn stats_v1(State(node): State<Node>, params: Params) -> Result<Json<Stats>, ApiError> {
    let cursor = params.cursor(20)?;
    let page = match &cursor {
        Some((page, _)) => *page,
        None => params.page(20, true)?,
    };
    let key = match params.one_of("sortBy", &COUNTERS)? {
        None | Some("total") => "messages",
        Some(key) => key,
    };
    let ascending = params.ascending()?;
    let part = params
        .get("addressContains")
        .unwrap_or_default()
        .to_ascii_lowercase();
    let mut rows: Vec<(i64, String, Value)> = counters(&node, Vec::new())
        .await?
        .into_iter()
        .filter(|(address, _)| address.to_ascii_lowercase().contains(&part))
        .map(|(address, counters)| {
            let count = counters[key].as_i64().unwrap_or(0);
            (if ascending { count } else { -count }, address, counters)
        })
        .collect();
    rows.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let total = rows.len();
    let skip = match &cursor {
        None => usize::try_from(page.limit.saturating_mul(page.page - 1)).unwrap_or(usize::MAX),
        Some((_, None)) => 0,
        // Counters change between pages, so the place is a value and not a number of rows.
        Some((_, Some(after))) => {
            rows.partition_point(|row| (row.0 as f64, &row.1) <= (after.time, &after.hash))
        }
    };
    let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
    let shown: Vec<_> = rows.into_iter().skip(skip).take(limit).collect();
    let place = if cursor.is_some() {
        let last = shown.last().map(|(count, address, _)| Cursor {
            time: *count as f64,
            hash: address.clone(),
        });
        let more = skip.saturating_add(shown.len()) < total;
        json!({
            "pagination_per_page": page.limit,
            "next_cursor": last.filter(|_| more).map(|last| last.encode()),
            "pagination_item": "addresses",
        })
    } else {
        json!({
            "pagination_per_page": page.limit,
            "pagination_page": page.page,
            "pagination_total": total,
            "pagination_item": "addresses",
        })
    };
    let data = shown
        .into_iter()
        .map(|(_, address, counters)| (address, counters));
    Ok(Json(Stats {
        data: Ordered(data.collect()),
        place,
    }))
}
