//! Which messages a client asks for: the filters that lists and WebSockets have in common.

use aleph_message::{Chain, ItemHash, MessageType, PaymentType};

use super::error::ApiError;
use super::params::Params;
use super::render::ContentFormat;
use crate::store::messages::Filter;

/// Statuses a message can have.
pub const STATUSES: [&str; 6] = [
    "pending",
    "processed",
    "rejected",
    "forgotten",
    "removing",
    "removed",
];

/// What a list holds when nobody asks for anything else.
const IN_FORCE: [&str; 2] = ["processed", "removing"];

/// Reads the filters.
///
/// # Errors
/// 422, naming the parameter.
pub fn filter(params: &Params) -> Result<Filter, ApiError> {
    let mut statuses = params.words(
        &[
            "msgStatuses",
            "msgStatus",
            "messageStatuses",
            "messageStatus",
        ],
        |word| STATUSES.contains(&word),
    )?;
    if statuses.is_empty() {
        statuses = IN_FORCE.map(str::to_owned).to_vec();
    }
    let is_hash = |word: &str| word.parse::<ItemHash>().is_ok();
    let (start, end) = params.period()?;
    Ok(Filter {
        types: params.words(
            &["msgTypes", "msgType", "messageTypes", "messageType"],
            |word| word.parse::<MessageType>().is_ok(),
        )?,
        statuses,
        senders: params.list("addresses"),
        owners: params.list("owners"),
        refs: params.list("refs"),
        content_hashes: params.words(&["contentHashes"], is_hash)?,
        content_keys: params.list("contentKeys"),
        content_types: params.list("contentTypes"),
        chains: params.words(&["chains"], |word| word.parse::<Chain>().is_ok())?,
        channels: params.list("channels"),
        tags: params.list("tags"),
        hashes: params.words(&["hashes"], is_hash)?,
        payment_types: params.words(&["paymentTypes"], |word| {
            word.parse::<PaymentType>().is_ok()
        })?,
        start,
        end,
        confirmed: confirmed(params)?,
    })
}

/// `startBlock` keeps what is not confirmed, `endBlock` does not.
fn confirmed(params: &Params) -> Result<bool, ApiError> {
    let start = params.number::<u64>("startBlock")?.unwrap_or(0);
    let end = params.number::<u64>("endBlock")?.unwrap_or(0);
    if end > 0 && end < start {
        return Err(ApiError::unprocessable("endBlock is before startBlock"));
    }
    Ok(end > 0)
}

/// `sortOrder`, and `sortBy` checked: what is not confirmed keeps the order of its time when sorted by block.
///
/// # Errors
/// 422, naming the parameter.
pub fn ascending(params: &Params) -> Result<bool, ApiError> {
    let by = params.one_of("sortBy", &["time", "tx-time"])?;
    if by == Some("tx-time") && params.has("cursor") {
        return Err(ApiError::unprocessable(
            "sortBy: tx-time does not go with a cursor",
        ));
    }
    params.ascending()
}

/// `contentFormat` and its older spelling `excludeContent`.
///
/// # Errors
/// 422, naming the parameter.
pub fn content_format(params: &Params) -> Result<ContentFormat, ApiError> {
    Ok(
        match params.one_of("contentFormat", &["full", "headers", "none"])? {
            Some("headers") => ContentFormat::Headers,
            Some("none") => ContentFormat::None,
            None if params.flag("excludeContent") => ContentFormat::None,
            _ => ContentFormat::Full,
        },
    )
}
