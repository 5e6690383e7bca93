//! Aggregates and the authorizations kept in them.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::list::{by_cursor, paged};
use super::params::{Cursor, Params};
use super::render::iso;
use super::without_json;
use crate::node::Node;
use crate::store::aggregates::{self, Aggregate, Order, Place};
use crate::store::{Page, StoreError};

/// Largest page of aggregates and of authorizations.
const MAX_PAGE: u64 = 500;

/// `GET /aggregates/{address}.json`.
pub async fn of_address(
    State(node): State<Node>,
    Path(segment): Path<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let address = without_json(&segment)?.to_owned();
    let keys = params.list("keys");
    let rows = {
        let (address, keys) = (address.clone(), keys.clone());
        node.store
            .read::<_, ApiError, _>(move |conn| Ok(aggregates::of_owner(conn, &address, &keys)?))
            .await?
    };
    if rows.is_empty() {
        return Err(ApiError::not_found("No aggregate found for this address"));
    }
    if params.flag("value_only") && keys.len() == 1 {
        return Ok(Json(
            rows.into_iter()
                .next()
                .map(|a| a.content)
                .unwrap_or_default(),
        ));
    }
    let mut data = Map::new();
    let mut info = Map::new();
    for row in rows {
        if params.flag("with_info") {
            info.insert(
                row.key.clone(),
                json!({
                    "created": iso(row.created),
                    "last_updated": iso(row.last_updated),
                    "original_item_hash": row.first_hash,
                    "last_update_item_hash": row.last_hash,
                }),
            );
        }
        data.insert(row.key, row.content);
    }
    Ok(Json(
        json!({"address": address, "data": data, "info": info}),
    ))
}

/// `GET /aggregates`.
pub async fn list(State(node): State<Node>, params: Params) -> Result<Json<Value>, ApiError> {
    let ascending = params.ascending()?;
    let by = params.one_of("sortBy", &["last_modified", "creation_time"])?;
    let order = Order {
        by_creation: by == Some("creation_time"),
        ascending,
    };
    let (owners, keys) = (params.list("addresses"), params.list("keys"));
    let item = |a: &Aggregate| {
        json!({
            "address": a.owner,
            "key": a.key,
            "content": a.content,
            "created": iso(a.created),
            "last_updated": iso(a.last_updated),
        })
    };
    if let Some((page, cursor)) = params.cursor(20)? {
        let after = cursor.map(place_of).transpose()?;
        let rows = node
            .store
            .read::<_, StoreError, _>(move |conn| {
                aggregates::list(conn, &owners, &keys, order, page, after.as_ref())
            })
            .await?;
        let last = rows.last().map(|a| Cursor {
            time: order.time(a),
            // Neither part can hold a line break in a place that matters: the first one ends the owner.
            hash: format!("{}\n{}", a.owner, a.key),
        });
        let items = rows.iter().map(item).collect();
        return Ok(by_cursor("aggregates", items, page, last));
    }
    let page = params.page(20, false)?;
    if page.limit > MAX_PAGE {
        return Err(ApiError::unprocessable(format!(
            "pagination: at most {MAX_PAGE}"
        )));
    }
    let (rows, total) = node
        .store
        .read::<_, StoreError, _>(move |conn| {
            let rows = aggregates::list(conn, &owners, &keys, order, page, None)?;
            Ok((rows, aggregates::count(conn, &owners, &keys)?))
        })
        .await?;
    let items = rows.iter().map(item).collect();
    Ok(Json(paged("aggregates", items, page, total)))
}

/// The row a cursor of this list names.
fn place_of(cursor: Cursor) -> Result<Place, ApiError> {
    let (owner, key) = cursor
        .hash
        .split_once('\n')
        .ok_or_else(|| ApiError::unprocessable("cursor: invalid"))?;
    Ok(Place {
        time: cursor.time,
        owner: owner.to_owned(),
        key: key.to_owned(),
    })
}

fn rules(security: &Aggregate) -> &[Value] {
    security.content["authorizations"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn wanted(rule: &Value, params: &Params) -> bool {
    let overlaps = |name: &str, asked: &str| {
        let asked = params.list(asked);
        let list = rule[name].as_array();
        asked.is_empty()
            || list.is_none_or(Vec::is_empty)
            || list.is_some_and(|list| {
                list.iter()
                    .filter_map(Value::as_str)
                    .any(|item| asked.iter().any(|a| a == item))
            })
    };
    let chains = params.list("chains");
    overlaps("channels", "channels")
        && overlaps("types", "types")
        && overlaps("post_types", "postTypes")
        && overlaps("aggregate_keys", "aggregateKeys")
        && (chains.is_empty()
            || rule["chain"]
                .as_str()
                .filter(|chain| !chain.is_empty())
                .is_none_or(|chain| chains.iter().any(|c| c == chain)))
}

fn without_address(rule: &Value) -> Value {
    let mut rule = rule.clone();
    if let Value::Object(map) = &mut rule {
        map.remove("address");
        for key in ["channels", "types", "post_types", "aggregate_keys"] {
            map.entry(key).or_insert_with(|| json!([]));
        }
    }
    rule
}

fn authorizations(address: &str, found: Vec<(String, Value)>, mut page: Page) -> Json<Value> {
    page.limit = page.limit.min(MAX_PAGE);
    let mut grouped: Map<String, Value> = Map::new();
    for (other, rule) in found {
        let list = grouped.entry(other).or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.push(rule);
        }
    }
    let total = grouped.len();
    let skip = page.limit.saturating_mul(page.page - 1);
    let shown: Map<String, Value> = grouped
        .into_iter()
        .skip(usize::try_from(skip).unwrap_or(usize::MAX))
        .take(usize::try_from(page.limit).unwrap_or(usize::MAX))
        .collect();
    Json(json!({
        "authorizations": shown,
        "pagination_page": page.page,
        "pagination_per_page": page.limit,
        "pagination_total": total,
        "pagination_item": "authorizations",
        "address": address,
    }))
}

/// `GET /authorizations/granted/{address}.json`: whom the address authorised.
pub async fn granted(
    State(node): State<Node>,
    Path(segment): Path<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let address = without_json(&segment)?.to_owned();
    let page = params.page(20, false)?;
    let grantee = params.get("grantee").map(str::to_owned);
    let owner = address.clone();
    let security = node
        .store
        .read::<_, ApiError, _>(move |conn| Ok(aggregates::get(conn, &owner, "security")?))
        .await?;
    let found = security
        .iter()
        .flat_map(rules)
        .filter(|rule| wanted(rule, &params))
        .filter_map(|rule| Some((rule["address"].as_str()?.to_owned(), without_address(rule))))
        .filter(|(other, _)| {
            grantee
                .as_ref()
                .is_none_or(|g| g.eq_ignore_ascii_case(other))
        })
        .collect();
    Ok(authorizations(&address, found, page))
}

/// `GET /authorizations/received/{address}.json`: who authorised the address.
pub async fn received(
    State(node): State<Node>,
    Path(segment): Path<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let address = without_json(&segment)?.to_owned();
    let page = params.page(20, false)?;
    let granter = params.get("granter").map(str::to_owned);
    let all = node
        .store
        .read::<_, ApiError, _>(|conn| Ok(aggregates::with_key(conn, "security")?))
        .await?;
    let mut found = Vec::new();
    for security in &all {
        if granter.as_ref().is_some_and(|g| *g != security.owner) {
            continue;
        }
        for rule in rules(security) {
            let mine = rule["address"]
                .as_str()
                .is_some_and(|a| a.eq_ignore_ascii_case(&address));
            if mine && wanted(rule, &params) {
                found.push((security.owner.clone(), without_address(rule)));
            }
        }
    }
    Ok(authorizations(&address, found, page))
}
