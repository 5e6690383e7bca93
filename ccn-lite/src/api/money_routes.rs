//! The routes about prices, costs, balances and credits, and what the document says about them.

use axum::Router;
use axum::routing::post;

use super::docs::{Api, Kind, Param, Schema, op, param};
use super::routes::{ORDER, PAGE, PERIOD};
use super::{costs, credits, prices};
use crate::node::Node;

const HISTORY: &[Param] = &[
    param("tx_hash", Kind::Text, "of this transaction"),
    param("token", Kind::Text, "paid in this token"),
    param("chain", Kind::Text, "paid on this chain"),
    param("provider", Kind::Text, "paid to this provider"),
    param("origin", Kind::Text, "about this"),
    param("origin_ref", Kind::Text, "about this"),
    param("payment_method", Kind::Text, "paid like this"),
    param("exclude_payment_method", Kind::Text, "not paid like this"),
    param("has_expiration", Kind::Flag, "whether the credits end"),
    param(
        "direction",
        Kind::OneOf(&["incoming", "outgoing"]),
        "what came, or what went",
    ),
    param("resourceTypes", Kind::Texts, "spent on these types"),
    param("resource", Kind::Text, "spent on this message"),
];

pub(super) fn of_money(api: Api) -> Api {
    api.get(
        "/balances",
        credits::balances,
        op("Tokens of everybody", Schema::Balances)
            .with(&[
                param("chains", Kind::Texts, "chains"),
                param("min_balance", Kind::Number, "tokens at least"),
            ])
            .with(PAGE),
    )
    .get(
        "/credit_balances",
        credits::credit_balances,
        op("Credits of everybody", Schema::CreditBalances)
            .with(&[param("min_balance", Kind::Number, "credits at least")])
            .with(PAGE),
    )
    .get(
        "/costs",
        costs::list,
        op("What everything costs", Schema::Costs).with(&[
            param("address", Kind::Text, "of this account"),
            param("item_hash", Kind::Text, "of this message"),
            param(
                "payment_type",
                Kind::OneOf(&["hold", "superfluid", "credit"]),
                "paid like this",
            ),
            param(
                "include_details",
                Kind::Number,
                "1 for the messages, 2 for their parts, too",
            ),
            param("include_size", Kind::Flag, "sizes of the parts"),
            param("pagination", Kind::Count, "messages a page, 10 to 1000"),
            param("page", Kind::Count, "number of the page"),
        ]),
    )
    .post(
        "/price/estimate",
        prices::estimate,
        op("What a message would cost", Schema::Price).takes_json(),
    )
    .post(
        "/price/estimate/instance",
        prices::estimate_instance,
        op("What an instance would cost", Schema::Price).takes_json(),
    )
    .post(
        "/price/recalculate",
        prices::recalculate_publicly,
        op("Not for everybody", Schema::Any),
    )
    .post(
        "/price/{hash}/recalculate",
        prices::recalculate_publicly,
        op("Not for everybody", Schema::Any),
    )
    .get(
        "/price/{hash}",
        prices::of_message,
        op("What a message costs", Schema::Price).with(&[param(
            "include_size",
            Kind::Flag,
            "sizes of the parts",
        )]),
    )
    .get(
        "/addresses/{address}/credit_history",
        credits::history,
        op("Credits that came and went", Schema::CreditHistory)
            .with(HISTORY)
            .with(PERIOD)
            .with(&[param(
                "sortBy",
                Kind::OneOf(&["message_timestamp", "amount", "expiration_date"]),
                "by what",
            )])
            .with(ORDER)
            .with(PAGE),
    )
    .get(
        "/addresses/{address}/credit_history/summary",
        credits::summary,
        op("Sums of credits that came and went", Schema::CreditSummary)
            .with(HISTORY)
            .with(PERIOD),
    )
}

/// What only those may do who have access to the machine: served on a socket in the data directory.
pub fn admin(node: Node) -> Router {
    Router::new()
        .route("/api/v0/price/recalculate", post(prices::recalculate_all))
        .route(
            "/api/v0/price/{hash}/recalculate",
            post(prices::recalculate),
        )
        .with_state(node)
}
