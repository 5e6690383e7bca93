//! What is left of forgotten messages, taken from another node: a FORGET whose target is nowhere any more would wait for it
//! in vain.
//!
//! Nothing proves what the message said, but its signature proves who sent it. So it is taken as forgotten when a FORGET by
//! the same sender names it: who signed a message could have created it.

use aleph_message::{Envelope, ErrorCode, Rejection};
use rusqlite::Connection;
use serde_json::Value;

use super::bulk::Fate;
use crate::node::Node;
use crate::store::messages::{self, Message};
use crate::store::{StoreError, gone, now, pending};

/// A message without its content, as lists of forgotten messages have it; its signature was checked.
pub struct Remains {
    envelope: Envelope,
    owner: String,
    payment_type: Option<String>,
    size: Option<i64>,
    at: f64,
    by: Vec<String>,
}

/// Whether `value` stands for a forgotten message.
pub fn is_forgotten(value: &Value) -> bool {
    value["status"] == "forgotten" && value["item_content"].is_null()
}

/// Reads and checks what is left of a message. Blocks on arithmetic.
///
/// # Errors
/// When a field is malformed, or the signature does not prove the sender.
pub fn prepare(value: &Value) -> Result<Remains, Rejection> {
    let envelope = Envelope::parse_remains(value)?;
    envelope.verify_signature()?;
    let missing = |field: &str| Rejection::invalid_format(format!("{field}: Field required"));
    let by = value["forgotten_by"].as_array();
    let by = by.ok_or_else(|| missing("forgotten_by"))?;
    Ok(Remains {
        owner: value["owner"]
            .as_str()
            .ok_or_else(|| missing("owner"))?
            .to_owned(),
        payment_type: value["payment_type"].as_str().map(str::to_owned),
        size: value["size"].as_i64(),
        at: value["forgotten_at"]
            .as_f64()
            .ok_or_else(|| missing("forgotten_at"))?,
        by: by
            .iter()
            .filter_map(|hash| Some(hash.as_str()?.to_owned()))
            .collect(),
        envelope,
    })
}

/// Records some as forgotten, in one commit.
///
/// # Errors
/// When the database fails; then none of them is recorded.
pub async fn bury(node: &Node, remains: Vec<Remains>) -> Result<Vec<Fate>, StoreError> {
    node.store
        .write(move |conn| remains.iter().map(|r| r.bury(conn)).collect())
        .await
}

impl Remains {
    fn bury(&self, conn: &Connection) -> Result<Fate, StoreError> {
        let hash = self.envelope.item_hash.as_str();
        if messages::status(conn, hash)?.is_some() {
            return Ok(Fate::Known);
        }
        for forget in &self.by {
            if self.is_named_by(conn, forget)? {
                let now = now();
                gone::insert(conn, &self.message(now), Some(forget), self.at, self.size)?;
                pending::wake(conn, hash, now)?;
                return Ok(Fate::Taken);
            }
        }
        Ok(Fate::Refused(Rejection::new(
            ErrorCode::PermissionDenied,
            format!("no FORGET here by {} names it", self.envelope.sender),
        )))
    }

    /// Whether the message `forget`, in force or waiting, is a FORGET of this one by the same sender.
    fn is_named_by(&self, conn: &Connection, forget: &str) -> Result<bool, StoreError> {
        let (kind, chain, sender, content) = match messages::get(conn, forget)? {
            Some(m) => (m.kind, m.chain, m.sender, m.content),
            None => {
                let Some(p) = pending::get(conn, forget)? else {
                    return Ok(false);
                };
                let text = |field: &str| p.envelope[field].as_str().unwrap_or_default();
                let content = serde_json::from_str(text("item_content")).unwrap_or_default();
                let (kind, chain, sender) = (text("type"), text("chain"), text("sender"));
                (kind.into(), chain.into(), sender.into(), content)
            }
        };
        let hash = self.envelope.item_hash.as_str();
        let names = |hashes: &Value| {
            let hashes = hashes.as_array();
            hashes.is_some_and(|hashes| hashes.iter().any(|named| named == hash))
        };
        Ok(kind == "FORGET"
            && chain == self.envelope.chain.as_str()
            && sender == self.envelope.sender
            && (names(&content["hashes"]) || names(&content["aggregates"])))
    }

    fn message(&self, now: f64) -> Message {
        let e = &self.envelope;
        Message {
            item_hash: e.item_hash.to_string(),
            status: "forgotten".into(),
            kind: e.message_type.to_string(),
            chain: e.chain.to_string(),
            sender: e.sender.clone(),
            signature: e.signature.clone(),
            item_type: e.item_type.to_string(),
            item_content: None,
            content: Value::Null,
            time: e.time,
            channel: e.channel.clone(),
            size: 0,
            reception_time: now,
            owner: self.owner.clone(),
            content_type: None,
            content_ref: None,
            content_key: None,
            content_item_hash: None,
            payment_type: self.payment_type.clone(),
            tags: None,
            content_time: None,
        }
    }
}
