//! The shapes of answers about accounts: prices, costs, balances, credits, files.

use serde_json::{Value, json};

use super::schema::{Schema, and_perhaps, integer, list, number, object, or_null, paged, text};

/// A decimal number with 18 places.
fn amount() -> Value {
    json!({"type": "string", "pattern": r"^-?\d+\.\d{18}$"})
}

fn date_or_null() -> Value {
    json!({"type": ["string", "null"], "format": "date-time"})
}

fn payment() -> Value {
    json!({"enum": ["hold", "superfluid", "credit"]})
}

fn detail() -> Value {
    list(object([
        ("type", text()),
        ("name", text()),
        ("cost_hold", amount()),
        ("cost_stream", amount()),
        ("cost_credit", amount()),
        ("size_mib", or_null("number")),
    ]))
}

fn costs() -> Value {
    let resource = object([
        ("item_hash", text()),
        ("owner", or_null("string")),
        ("payment_type", or_null("string")),
        ("consumed_credits", integer()),
        ("cost_hold", amount()),
        ("cost_stream", amount()),
        ("cost_credit", amount()),
    ]);
    let summary = object([
        ("total_consumed_credits", integer()),
        ("total_cost_hold", amount()),
        ("total_cost_stream", amount()),
        ("total_cost_credit", amount()),
        ("resource_count", integer()),
    ]);
    let filters = object([
        ("address", or_null("string")),
        ("item_hash", or_null("string")),
        ("payment_type", payment()),
    ]);
    and_perhaps(
        object([("summary", summary), ("filters", filters)]),
        [
            (
                "resources",
                list(and_perhaps(resource, [("detail", detail())])),
            ),
            ("pagination_item", json!({"const": "resources"})),
            ("pagination_page", integer()),
            ("pagination_per_page", integer()),
            ("pagination_total", integer()),
        ],
    )
}

fn history() -> Value {
    let entry = object([
        ("amount", integer()),
        ("price", or_null("string")),
        (
            "bonus_amount",
            json!({"type": ["string", "number", "null"]}),
        ),
        ("tx_hash", or_null("string")),
        ("token", or_null("string")),
        ("chain", or_null("string")),
        ("provider", or_null("string")),
        ("origin", or_null("string")),
        ("origin_ref", or_null("string")),
        ("payment_method", or_null("string")),
        ("credit_ref", text()),
        ("credit_index", integer()),
        ("expiration_date", date_or_null()),
        ("message_timestamp", text()),
        ("expense_count", or_null("integer")),
        ("expense_size_mib", or_null("number")),
    ]);
    and_perhaps(paged("credit_history", entry), [("address", text())])
}

fn files() -> Value {
    let file = object([
        ("file_hash", text()),
        ("size", integer()),
        ("type", json!({"enum": ["file", "dir"]})),
        // Text in pages, seconds in parts of a cursor.
        ("created", json!({"type": ["string", "number"]})),
        ("item_hash", text()),
    ]);
    and_perhaps(
        paged("files", file),
        [("address", text()), ("total_size", integer())],
    )
}

/// Counters by address.
fn stats() -> Value {
    let counters = object([
        ("messages", integer()),
        ("aggregate", integer()),
        ("forget", integer()),
        ("instance", integer()),
        ("post", integer()),
        ("program", integer()),
        ("store", integer()),
    ]);
    json!({"type": "object", "additionalProperties": counters})
}

/// A shape about accounts.
pub(super) fn describe(schema: Schema) -> Value {
    match schema {
        Schema::AccountBalance => object([
            ("address", text()),
            ("balance", number()),
            ("details", or_null("object")),
            ("locked_amount", number()),
            ("credit_balance", integer()),
            (
                "credit_balance_details",
                json!({"type": ["array", "null"], "items": object([
                    ("expiration_date", date_or_null()), ("amount", integer())])}),
            ),
        ]),
        Schema::AddressStats => object([("data", stats())]),
        Schema::AddressStatsV1 => and_perhaps(
            object([
                ("data", stats()),
                ("pagination_per_page", integer()),
                ("pagination_item", json!({"const": "addresses"})),
            ]),
            [
                ("pagination_page", integer()),
                ("pagination_total", integer()),
                ("next_cursor", or_null("string")),
            ],
        ),
        Schema::Balances => paged(
            "balances",
            object([
                ("address", text()),
                ("balance", number()),
                ("chain", text()),
            ]),
        ),
        Schema::Costs => costs(),
        Schema::CreditBalances => paged(
            "credit_balances",
            object([("address", text()), ("credits", integer())]),
        ),
        Schema::CreditHistory => history(),
        Schema::CreditSummary => object([
            ("address", text()),
            ("entry_count", integer()),
            ("total_amount", integer()),
            ("total_incoming", integer()),
            ("total_outgoing", integer()),
        ]),
        Schema::Files => files(),
        Schema::NodeMetrics => object([(
            "metrics",
            and_perhaps(
                object([("item_hash", list(text())), ("measured_at", list(number()))]),
                [("base_latency", list(or_null("number")))],
            ),
        )]),
        Schema::PostTypes => object([("address", text()), ("post_types", list(text()))]),
        Schema::Price => object([
            ("required_tokens", number()),
            ("payment_type", payment()),
            ("cost", amount()),
            ("detail", detail()),
            ("charged_address", text()),
        ]),
        // Every other shape is described beside its list.
        _ => json!({"type": ["object", "array", "string", "number", "boolean", "null"]}),
    }
}
