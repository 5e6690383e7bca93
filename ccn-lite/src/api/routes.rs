//! The table of routes: path, handler, and what the document says about it.

use aleph_message::MessageType;
use axum::Router;
use axum::extract::DefaultBodyLimit;

use super::docs::{Api, Kind, Operation, Param, Schema, op, param};
use super::filter::STATUSES;
use super::{
    accounts, aggregates, car, info, measurements, messages, metrics, money_routes, posts, publish,
    storage, upload, websocket,
};
use crate::node::Node;

/// Largest JSON body, as on the public network's nodes.
const MAX_BODY: usize = 1 << 20;

const TYPES: &[&str] = &[
    MessageType::Post.as_str(),
    MessageType::Aggregate.as_str(),
    MessageType::Store.as_str(),
    MessageType::Program.as_str(),
    MessageType::Instance.as_str(),
    MessageType::VerifiableProgram.as_str(),
    MessageType::Forget.as_str(),
];

pub(super) const ORDER: &[Param] = &[param("sortOrder", Kind::Direction, "1 for oldest first")];
pub(super) const PAGE: &[Param] = &[
    param(
        "pagination",
        Kind::Number,
        "rows a page; 0 for all where there is no cursor",
    ),
    param("page", Kind::Count, "number of the page"),
    param("cursor", Kind::Text, "where to go on; empty to begin"),
];
pub(super) const PERIOD: &[Param] = &[
    param("startDate", Kind::Seconds, "not before"),
    param("endDate", Kind::Seconds, "before"),
];
const MESSAGES: &[Param] = &[
    param("msgType", Kind::Words(TYPES), "types"),
    param("msgTypes", Kind::Words(TYPES), "types"),
    param(
        "msgStatuses",
        Kind::Words(&STATUSES),
        "statuses; forgotten and removed only alone",
    ),
    param("addresses", Kind::Texts, "senders"),
    param("owners", Kind::Texts, "owners, content.address"),
    param("refs", Kind::Texts, "content.ref"),
    param("contentHashes", Kind::Hashes, "files of STORE messages"),
    param("contentKeys", Kind::Texts, "keys of AGGREGATE messages"),
    param("contentTypes", Kind::Texts, "types of POST messages"),
    param("chains", Kind::Texts, "chains of senders"),
    param("channels", Kind::Texts, "channels"),
    param("tags", Kind::Texts, "tags, any of"),
    param("hashes", Kind::Hashes, "item hashes"),
    param(
        "paymentTypes",
        Kind::Words(&["hold", "superfluid", "credit"]),
        "ways of paying",
    ),
    param(
        "startBlock",
        Kind::Number,
        "confirmed not before, or not confirmed",
    ),
    param("endBlock", Kind::Number, "confirmed before"),
    param(
        "contentFormat",
        Kind::OneOf(&["full", "headers", "none"]),
        "how much of the content",
    ),
    param(
        "excludeContent",
        Kind::Flag,
        "the same as contentFormat=none",
    ),
];
const SORT: &[Param] = &[param(
    "sortBy",
    Kind::OneOf(&["time", "tx-time"]),
    "by which time",
)];
const POSTS: &[Param] = &[
    param("addresses", Kind::Texts, "owners"),
    param("hashes", Kind::Hashes, "hashes of originals"),
    param("refs", Kind::Texts, "what originals refer to"),
    param("types", Kind::Texts, "types of originals"),
    param("tags", Kind::Texts, "tags of the latest content, any of"),
    param("channels", Kind::Texts, "channels"),
];
const RULES: &[Param] = &[
    param("channels", Kind::Texts, "rules for these channels"),
    param("types", Kind::Texts, "rules for these types"),
    param("postTypes", Kind::Texts, "rules for these types of posts"),
    param("chains", Kind::Texts, "rules for these chains"),
    param("aggregateKeys", Kind::Texts, "rules for these keys"),
    param("pagination", Kind::Count, "addresses a page"),
    param("page", Kind::Count, "number of the page"),
];

fn message_list(summary: &'static str) -> Operation {
    op(summary, Schema::Messages)
        .with(MESSAGES)
        .with(PERIOD)
        .with(SORT)
        .with(ORDER)
        .with(PAGE)
}

fn post_list(summary: &'static str, schema: Schema) -> Operation {
    op(summary, schema)
        .with(POSTS)
        .with(PERIOD)
        .with(SORT)
        .with(ORDER)
        .with(PAGE)
}

fn of_messages(api: Api) -> Api {
    api.post(
        "/messages",
        publish::messages,
        op("Publish a message", Schema::Publication)
            .takes_json()
            .also(&[202, 410]),
    )
    .post(
        "/ipfs/pubsub/pub",
        publish::pubsub,
        op("Publish a message the older way", Schema::PubSub).takes_json(),
    )
    .post(
        "/p2p/pubsub/pub",
        publish::pubsub,
        op("Publish a message the older way", Schema::PubSub).takes_json(),
    )
    .get(
        "/messages.json",
        messages::list,
        message_list("List messages"),
    )
    .get(
        "/messages/page/{page}",
        messages::list_numbered,
        message_list("A page of the list of messages").dot_json(),
    )
    .get(
        "/messages/hashes",
        messages::hashes,
        op("List what is known, by when it came in", Schema::Hashes)
            .with(&[
                param("status", Kind::Words(&STATUSES), "statuses"),
                param("hash_only", Kind::Flag, "false for statuses and times, too"),
                param("pagination", Kind::Number, "rows a page"),
                param("page", Kind::Count, "number of the page"),
            ])
            .with(PERIOD)
            .with(ORDER),
    )
    .get(
        "/messages/{hash}",
        messages::one,
        op("A message", Schema::SingleMessage),
    )
    .get(
        "/messages/{hash}/content",
        messages::content,
        op("The content of a message", Schema::Any),
    )
    .get(
        "/messages/{hash}/status",
        messages::status,
        op("Where a message stands", Schema::MessageStatus),
    )
    .get(
        "/messages/{hash}/consumed_credits",
        messages::consumed_credits,
        op("Credits spent on a message", Schema::ConsumedCredits),
    )
    .get(
        "/posts.json",
        posts::list_v0,
        post_list("List posts, amends merged", Schema::Posts),
    )
    .get(
        "/posts/page/{page}",
        posts::list_v0_numbered,
        post_list("A page of the list of posts", Schema::Posts).dot_json(),
    )
    .get(
        "/programs/on/message",
        info::on_message,
        op("Programs that start on messages", Schema::Subscriptions).with(ORDER),
    )
}

fn of_addresses(api: Api) -> Api {
    let aggregates_list = || {
        op("List aggregates", Schema::Aggregates)
            .with(&[
                param("keys", Kind::Texts, "keys"),
                param("addresses", Kind::Texts, "owners"),
                param(
                    "sortBy",
                    Kind::OneOf(&["last_modified", "creation_time"]),
                    "by which time",
                ),
            ])
            .with(ORDER)
            .with(PAGE)
    };
    api.get(
        "/aggregates/{address}",
        aggregates::of_address,
        op("The aggregates of an address", Schema::Aggregate)
            .with(&[
                param("keys", Kind::Texts, "keys"),
                param("limit", Kind::Number, "without effect"),
                param(
                    "with_info",
                    Kind::Flag,
                    "say when and by which messages they were made",
                ),
                param("value_only", Kind::Flag, "with one key, only its content"),
            ])
            .dot_json(),
    )
    .get("/aggregates", aggregates::list, aggregates_list())
    .get("/aggregates.json", aggregates::list, aggregates_list())
    .get(
        "/authorizations/granted/{address}",
        aggregates::granted,
        op("Whom an address authorised", Schema::Authorizations)
            .with(&[param("grantee", Kind::Text, "only this one")])
            .with(RULES)
            .dot_json(),
    )
    .get(
        "/authorizations/received/{address}",
        aggregates::received,
        op("Who authorised an address", Schema::Authorizations)
            .with(&[param("granter", Kind::Text, "only this one")])
            .with(RULES)
            .dot_json(),
    )
    .get(
        "/addresses/stats.json",
        accounts::stats_v0,
        op("Messages of addresses", Schema::AddressStats).with(&[param(
            "addresses[]",
            Kind::Texts,
            "these addresses; all when absent",
        )]),
    )
    .get(
        "/addresses/{address}/balance",
        accounts::balance,
        op("Balance and credits", Schema::AccountBalance).with(&[
            param("chain", Kind::Text, "tokens on this chain"),
            param(
                "include_credit_details",
                Kind::Flag,
                "each lot of credits, too",
            ),
        ]),
    )
    .get(
        "/addresses/{address}/files",
        accounts::files,
        op("Files", Schema::Files)
            .with(&[param("file_hash", Kind::Text, "claims on this file")])
            .with(ORDER)
            .with(PAGE),
    )
    .get(
        "/addresses/{address}/post_types",
        accounts::post_types,
        op("Types of posts", Schema::PostTypes),
    )
    .get(
        "/addresses/{address}/channels",
        accounts::channels,
        op("Channels", Schema::Channels),
    )
    .get(
        "/channels/list.json",
        accounts::all_channels,
        op("All channels", Schema::Channels),
    )
}

fn of_files(api: Api) -> Api {
    api.post(
        "/storage/add_json",
        upload::storage_json,
        op("Keep JSON under its sha256", Schema::Uploaded).takes_json(),
    )
    .post(
        "/ipfs/add_json",
        upload::ipfs_json,
        op("Keep JSON under its CID", Schema::Uploaded).takes_json(),
    )
    .get(
        "/storage/metadata/{hash}",
        storage::metadata,
        op("About a file", Schema::File),
    )
    .get(
        "/storage/count/{hash}",
        storage::count,
        op("Claims on a file", Schema::Count),
    )
    .get(
        "/storage/limits.json",
        storage::limits,
        op("Limits of uploads", Schema::Limits),
    )
    .get(
        "/storage/by-message-hash/{hash}",
        storage::by_message_hash,
        op("The file of a STORE", Schema::FileReference),
    )
    .get(
        "/storage/by-ref/{ref}",
        storage::by_ref,
        op(
            "The newest file of a STORE and its updates",
            Schema::FileReference,
        ),
    )
    .get(
        "/storage/by-ref/{address}/{ref}",
        storage::by_owner_ref,
        op("The newest file under a name", Schema::FileReference),
    )
    .get(
        "/storage/raw/{hash}",
        storage::raw,
        op(
            "A file; a directory as tar; either as an archive of its blocks",
            Schema::Any,
        )
        .with(&[param("format", Kind::OneOf(&["car"]), "archive of blocks")])
        .answers(&[
            "application/octet-stream",
            "application/x-tar",
            "application/vnd.ipld.car",
        ])
        .also(&[206]),
    )
    .get(
        "/storage/{hash}",
        storage::base64_json,
        op("A file in base64", Schema::FileContent),
    )
}

fn uploads() -> Api {
    Api::default()
        .post(
            "/storage/add_file",
            upload::storage_file,
            op("Keep a file under its sha256", Schema::Uploaded)
                .takes_file()
                .also(&[202, 410]),
        )
        .post(
            "/ipfs/add_file",
            upload::ipfs_file,
            op("Keep a file under its CID", Schema::Uploaded)
                .takes_file()
                .also(&[202, 410]),
        )
        .post(
            "/ipfs/add_car",
            car::add_car,
            op(
                "Keep what an archive holds under its root",
                Schema::Uploaded,
            )
            .takes_file()
            .also(&[202, 410]),
        )
        // Enforced while the file streams to disk, by who sends it.
        .layered(|router| router.layer(DefaultBodyLimit::disable()))
}

fn of_nodes(api: Api) -> Api {
    let measured = || {
        op("What was measured at a node", Schema::NodeMetrics)
            .with(PERIOD)
            .with(&[param(
                "sort",
                Kind::OneOf(&["1", "-1", "ASC", "DESC"]),
                "-1 for newest first",
            )])
    };
    api.get("/core/{node}/metrics", measurements::core, measured())
        .get("/compute/{node}/metrics", measurements::compute, measured())
}

/// All routes of the node.
pub fn router(node: Node) -> Router {
    let v0 = money_routes::of_money(of_files(of_addresses(of_messages(
        of_nodes(Api::default()),
    ))))
    .get(
        "/info/public.json",
        info::public,
        op("Addresses of the node", Schema::PublicInfo),
    )
    .get(
        "/version",
        info::version,
        op("Version of the node", Schema::Version),
    )
    .layered(|router| router.layer(DefaultBodyLimit::max(MAX_BODY)));
    v0.merge(uploads())
        .below("/api/v0")
        .get(
            "/api/v1/posts.json",
            posts::list_v1,
            post_list("List posts, amends merged", Schema::PostsV1),
        )
        .get(
            "/api/v1/posts/page/{page}",
            posts::list_v1_numbered,
            post_list("A page of the list of posts", Schema::PostsV1).dot_json(),
        )
        .get(
            "/api/v1/addresses/stats.json",
            accounts::stats_v1,
            op("Messages of addresses", Schema::AddressStatsV1)
                .with(&[
                    param("addressContains", Kind::Text, "addresses with this in them"),
                    param(
                        "sortBy",
                        Kind::OneOf(&accounts::COUNTERS),
                        "by which counter",
                    ),
                ])
                .with(ORDER)
                .with(PAGE),
        )
        .get(
            "/api/ws0/messages",
            websocket::messages,
            op("Messages as they come into force (WebSocket)", Schema::Any)
                .with(MESSAGES)
                .with(PERIOD)
                .with(&[param(
                    "history",
                    Kind::Number,
                    "messages of the past, at most 199",
                )])
                .also(&[101]),
        )
        .get(
            "/api/ws0/status",
            websocket::status,
            op("Metrics as they change (WebSocket)", Schema::Any).also(&[101]),
        )
        .get(
            "/version",
            info::version,
            op("Version of the node", Schema::Version),
        )
        .get(
            "/metrics",
            metrics::metrics,
            op("Metrics for Prometheus", Schema::Any).answers(&["text/plain"]),
        )
        .get(
            "/metrics.json",
            metrics::metrics_json,
            op("Metrics", Schema::Metrics),
        )
        .finish()
        .with_state(node)
}
