//! Rows as the JSON clients know.

use aleph_message::Content;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::store::gone::{Departure, Gone};
use crate::store::messages::Message;

const ISO: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]");

/// `2026-01-01T00:00:00.123456+00:00`.
pub fn iso(seconds: f64) -> String {
    let micros = (seconds * 1e6).round() as i128;
    OffsetDateTime::from_unix_timestamp_nanos(micros * 1000)
        .ok()
        .and_then(|time| time.format(ISO).ok())
        .map(|text| text + "+00:00")
        .unwrap_or_else(|| "1970-01-01T00:00:00.000000+00:00".into())
}

fn envelope(m: &Message) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("sender".into(), json!(m.sender));
    map.insert("chain".into(), json!(m.chain));
    map.insert("signature".into(), json!(m.signature));
    map.insert("type".into(), json!(m.kind));
    map.insert("item_content".into(), json!(m.item_content));
    map.insert("item_type".into(), json!(m.item_type));
    map.insert("item_hash".into(), json!(m.item_hash));
    map.insert("time".into(), json!(m.time));
    map.insert("channel".into(), json!(m.channel));
    map.insert("content".into(), m.content.clone());
    map.insert("confirmed".into(), json!(false));
    map.insert("confirmations".into(), json!([]));
    map
}

/// A message on its own: `GET /messages/{hash}` and live WebSocket frames. Its content has all defaults written out.
pub fn message(m: &Message) -> Value {
    let mut map = envelope(m);
    if let Some(content) = completed(m) {
        map.insert("content".into(), content);
    }
    Value::Object(map)
}

/// The content as its schema reads it; `None` for one that came in under other rules.
fn completed(m: &Message) -> Option<Value> {
    let content = Content::parse(m.kind.parse().ok()?, m.content.clone()).ok()?;
    let mut value = serde_json::to_value(&content.body).ok()?;
    if m.content["key"].is_object() {
        value["key"] = m.content["key"].clone();
    }
    Some(value)
}

/// How much of the content a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentFormat {
    /// All.
    Full,
    /// Address and what identifies the content.
    Headers,
    /// None.
    None,
}

/// Why a message is on its way out, or gone.
pub fn reason(payment_type: Option<&str>) -> Value {
    match payment_type {
        Some("credit") => json!("credit_insufficient"),
        _ => json!("balance_insufficient"),
    }
}

/// What is left of a message that is gone.
pub fn gone(m: &Gone) -> Value {
    json!({
        "sender": m.sender,
        "chain": m.chain,
        "signature": m.signature,
        "type": m.kind,
        "item_type": m.item_type,
        "item_hash": m.item_hash,
        "time": m.time,
        "channel": m.channel,
        "owner": m.owner,
        "payment_type": m.payment_type,
        "size": m.size,
    })
}

/// What is left of a message, in a list.
pub fn gone_item(m: &Gone, departure: Departure) -> Value {
    let mut item = gone(m);
    item["status"] = json!(departure.as_str());
    match departure {
        Departure::Removed => item["removed_at"] = json!(m.at),
        Departure::Forgotten => {
            item["forgotten_at"] = json!(m.at);
            item["forgotten_by"] = json!(m.forgotten_by);
        }
    }
    item
}

/// A message in a list.
pub fn list_item(m: &Message, format: ContentFormat) -> Value {
    let mut map = envelope(m);
    map.insert("size".into(), json!(m.size));
    match format {
        ContentFormat::Full => {}
        ContentFormat::None => {
            map.remove("content");
            map.remove("item_content");
        }
        ContentFormat::Headers => {
            let keys: &[&str] = match m.kind.as_str() {
                "POST" => &["address", "type", "ref"],
                "AGGREGATE" => &["address", "key"],
                "STORE" => &["address", "item_hash", "ref"],
                _ => &["address"],
            };
            let reduced: Map<String, Value> = keys
                .iter()
                .filter_map(|key| Some(((*key).to_owned(), m.content.get(key)?.clone())))
                .collect();
            map.insert("content".into(), Value::Object(reduced));
            map.remove("item_content");
        }
    }
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_text_has_fraction_and_offset() {
        assert_eq!(iso(0.0), "1970-01-01T00:00:00.000000+00:00");
        assert_eq!(
            iso(1_767_225_600.123_456),
            "2026-01-01T00:00:00.123456+00:00"
        );
    }
}
