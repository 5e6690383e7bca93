//! The shapes of answers and parameters.

use serde_json::{Map, Value, json};

/// What a query parameter may be.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Any text.
    Text,
    /// Texts separated by commas.
    Texts,
    /// Item hashes separated by commas.
    Hashes,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Some of these words, separated by commas.
    Words(&'static [&'static str]),
    /// A whole number from 0.
    Number,
    /// A whole number from 1.
    Count,
    /// Unix seconds.
    Seconds,
    /// `true` or `false`.
    Flag,
    /// 1 or -1.
    Direction,
}

impl Kind {
    /// As a JSON schema.
    pub fn schema(self) -> Value {
        match self {
            Self::Text | Self::Texts | Self::Hashes => json!({"type": "string"}),
            Self::OneOf(words) => json!({"type": "string", "enum": words}),
            Self::Words(words) => {
                let any = words.join("|");
                json!({"type": "string", "pattern": format!("^({any})(,({any}))*$")})
            }
            Self::Number => json!({"type": "integer", "minimum": 0}),
            Self::Count => json!({"type": "integer", "minimum": 1}),
            Self::Seconds => json!({"type": "number", "minimum": 0}),
            Self::Flag => json!({"type": "boolean"}),
            Self::Direction => json!({"type": "integer", "enum": [1, -1]}),
        }
    }
}

/// Shapes of answers.
#[derive(Clone, Copy, Debug)]
pub enum Schema {
    Any,
    AccountBalance,
    AddressStats,
    AddressStatsV1,
    Aggregate,
    Aggregates,
    Authorizations,
    Balances,
    Channels,
    ConsumedCredits,
    Costs,
    Count,
    CreditBalances,
    CreditHistory,
    CreditSummary,
    File,
    FileContent,
    FileReference,
    Files,
    Hashes,
    Limits,
    MessageStatus,
    Messages,
    Metrics,
    NodeMetrics,
    PostTypes,
    Posts,
    PostsV1,
    Price,
    PubSub,
    PublicInfo,
    Publication,
    Refusal,
    SingleMessage,
    Subscriptions,
    Uploaded,
    Version,
}

const ALL: [Schema; 37] = [
    Schema::Any,
    Schema::AccountBalance,
    Schema::AddressStats,
    Schema::AddressStatsV1,
    Schema::Aggregate,
    Schema::Aggregates,
    Schema::Authorizations,
    Schema::Balances,
    Schema::Channels,
    Schema::ConsumedCredits,
    Schema::Costs,
    Schema::Count,
    Schema::CreditBalances,
    Schema::CreditHistory,
    Schema::CreditSummary,
    Schema::File,
    Schema::FileContent,
    Schema::FileReference,
    Schema::Files,
    Schema::Hashes,
    Schema::Limits,
    Schema::MessageStatus,
    Schema::Messages,
    Schema::Metrics,
    Schema::NodeMetrics,
    Schema::PostTypes,
    Schema::Posts,
    Schema::PostsV1,
    Schema::Price,
    Schema::PubSub,
    Schema::PublicInfo,
    Schema::Publication,
    Schema::Refusal,
    Schema::SingleMessage,
    Schema::Subscriptions,
    Schema::Uploaded,
    Schema::Version,
];

pub(super) fn text() -> Value {
    json!({"type": "string"})
}

pub(super) fn number() -> Value {
    json!({"type": "number"})
}

pub(super) fn integer() -> Value {
    json!({"type": "integer"})
}

fn flag() -> Value {
    json!({"type": "boolean"})
}

pub(super) fn or_null(kind: &str) -> Value {
    json!({"type": [kind, "null"]})
}

pub(super) fn list(of: Value) -> Value {
    json!({"type": "array", "items": of})
}

/// An object with these members, all of them required.
pub(super) fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let required: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
    let mut schema = json!({"type": "object", "required": required});
    let members = members.map(|(name, schema)| (name.to_owned(), schema));
    schema["properties"] = Value::Object(Map::from_iter(members));
    schema
}

/// `schema` with more members that need not be there.
pub(super) fn and_perhaps<const N: usize>(mut schema: Value, members: [(&str, Value); N]) -> Value {
    for (name, member) in members {
        schema["properties"][name] = member;
    }
    schema
}

/// A list by page, or by cursor.
pub(super) fn paged(key: &str, item: Value) -> Value {
    let list = object([(key, list(item)), ("pagination_per_page", integer())]);
    and_perhaps(
        list,
        [
            ("pagination_item", json!({"const": key})),
            ("pagination_page", integer()),
            ("pagination_total", integer()),
            ("next_cursor", or_null("string")),
        ],
    )
}

fn status() -> Value {
    json!({"enum": crate::api::filter::STATUSES})
}

fn listed_message() -> Value {
    let message = object([
        ("item_hash", text()),
        ("type", text()),
        ("chain", text()),
        ("sender", text()),
        ("signature", or_null("string")),
        ("item_type", json!({"enum": ["inline", "storage", "ipfs"]})),
        ("time", number()),
        ("channel", or_null("string")),
    ]);
    and_perhaps(
        message,
        [
            ("item_content", or_null("string")),
            ("content", json!({"type": "object"})),
            ("size", or_null("integer")),
            ("confirmed", flag()),
            ("confirmations", list(json!({"type": "object"}))),
            ("owner", text()),
            ("payment_type", text()),
            ("status", status()),
            ("forgotten_at", number()),
            ("forgotten_by", list(text())),
        ],
    )
}

fn post_v0() -> Value {
    let mut post = object([
        ("chain", text()),
        ("item_hash", text()),
        ("sender", text()),
        ("type", text()),
        ("channel", or_null("string")),
        ("confirmed", flag()),
        ("content", json!({})),
        ("item_content", or_null("string")),
        ("item_type", text()),
        ("signature", or_null("string")),
        ("size", integer()),
        ("time", number()),
        ("confirmations", list(json!({}))),
        ("original_item_hash", text()),
        ("original_signature", or_null("string")),
        ("original_type", text()),
        ("hash", text()),
        ("ref", or_null("string")),
        ("address", text()),
    ]);
    // Clients drop a post with any member they do not know.
    post["additionalProperties"] = json!(false);
    post
}

impl Schema {
    /// A reference to it.
    pub fn reference(self) -> Value {
        json!({"$ref": format!("#/components/schemas/{self:?}")})
    }

    fn describe(self) -> Value {
        let byte_limit = || object([("max_unauthenticated_upload_file_size", integer())]);
        match self {
            Self::Any => json!({}),
            Self::Aggregates => paged(
                "aggregates",
                object([
                    ("address", text()),
                    ("key", text()),
                    ("content", json!({"type": "object"})),
                    ("created", text()),
                    ("last_updated", text()),
                ]),
            ),
            Self::Aggregate => json!({"type": "object"}),
            Self::Authorizations => paged_map("authorizations"),
            Self::Channels => object([("channels", list(text()))]),
            Self::ConsumedCredits => {
                object([("item_hash", text()), ("consumed_credits", integer())])
            }
            Self::Count => integer(),
            Self::File => object([
                ("file_hash", text()),
                ("type", json!({"enum": ["file", "dir"]})),
                ("size", integer()),
                ("download_url", text()),
            ]),
            Self::FileContent => object([
                ("status", text()),
                ("hash", text()),
                ("engine", json!({"enum": ["storage", "ipfs"]})),
                ("content", text()),
            ]),
            Self::FileReference => object([
                ("ref", text()),
                ("owner", text()),
                ("file_hash", text()),
                ("download_url", text()),
                ("size", or_null("integer")),
            ]),
            Self::Hashes => paged("hashes", json!({"type": ["string", "object"]})),
            Self::Limits => object([("storage", byte_limit()), ("ipfs", byte_limit())]),
            Self::Messages => paged("messages", listed_message()),
            Self::MessageStatus => object([
                ("status", status()),
                ("item_hash", text()),
                ("reception_time", text()),
            ]),
            Self::Metrics => object([
                (
                    "pyaleph_build_info",
                    object([("python_version", text()), ("version", text())]),
                ),
                ("pyaleph_status_sync_messages_total", integer()),
                ("pyaleph_status_sync_pending_messages_total", integer()),
            ]),
            Self::Posts => paged("posts", post_v0()),
            Self::PostsV1 => paged(
                "posts",
                object([
                    ("item_hash", text()),
                    ("content", json!({})),
                    ("original_item_hash", text()),
                    ("original_type", text()),
                    ("address", text()),
                    ("ref", or_null("string")),
                    ("channel", or_null("string")),
                    ("created", text()),
                    ("last_updated", text()),
                ]),
            ),
            Self::Publication => object([
                (
                    "publication_status",
                    object([("status", text()), ("failed", list(text()))]),
                ),
                ("message_status", status()),
            ]),
            Self::PubSub => object([("status", text()), ("failed", list(text()))]),
            Self::PublicInfo => object([("node_multi_addresses", list(text()))]),
            Self::Refusal => json!({"type": "object"}),
            Self::SingleMessage => {
                let message = object([
                    ("status", status()),
                    ("item_hash", text()),
                    ("reception_time", text()),
                ]);
                and_perhaps(
                    message,
                    [
                        ("message", json!({"type": "object"})),
                        ("messages", list(json!({"type": "object"}))),
                        ("error_code", integer()),
                        ("details", or_null("object")),
                        ("forgotten_by", list(text())),
                        ("reason", text()),
                    ],
                )
            }
            Self::Subscriptions => list(object([
                ("item_hash", text()),
                ("content", json!({"type": "object"})),
            ])),
            Self::Uploaded => and_perhaps(
                object([("status", text()), ("hash", text())]),
                [("name", text()), ("size", integer())],
            ),
            Self::Version => object([("version", text())]),
            Self::AccountBalance
            | Self::AddressStats
            | Self::AddressStatsV1
            | Self::Balances
            | Self::Costs
            | Self::CreditBalances
            | Self::CreditHistory
            | Self::CreditSummary
            | Self::Files
            | Self::NodeMetrics
            | Self::PostTypes
            | Self::Price => super::money::describe(self),
        }
    }
}

fn paged_map(key: &str) -> Value {
    object([
        (key, json!({"type": "object"})),
        ("address", text()),
        ("pagination_page", integer()),
        ("pagination_per_page", integer()),
        ("pagination_total", integer()),
        ("pagination_item", json!({"const": key})),
    ])
}

/// All shapes by name.
pub fn components() -> Map<String, Value> {
    let named = |schema: Schema| (format!("{schema:?}"), schema.describe());
    ALL.into_iter().map(named).collect()
}
