//! AGGREGATE: a change to one key of an owner's map.

use aleph_message::AggregateContent;
use rusqlite::Connection;

use crate::pipeline::Verified;
use crate::store::StoreError;
use crate::store::aggregates::{self, Element};

pub(super) fn apply(
    conn: &Connection,
    v: &Verified,
    content: &AggregateContent,
) -> Result<(), StoreError> {
    aggregates::add(
        conn,
        &Element {
            item_hash: v.hash(),
            owner: v.owner(),
            key: &content.key,
            content: &content.content,
            created: v.content.time(),
        },
    )
}
