//! Delegation: who may act for whom, by the owner's `security` aggregate.

use aleph_message::{ErrorCode, Rejection};
use rusqlite::Connection;
use serde_json::Value;

use super::Refusal;
use crate::store::aggregates;

/// What a sender wants to do for an owner.
#[derive(Debug, Clone)]
pub struct Action<'a> {
    /// Who signs.
    pub sender: &'a str,
    /// For whom, `content.address`.
    pub owner: &'a str,
    /// Chain of the message.
    pub chain: &'a str,
    /// Channel of the message.
    pub channel: Option<&'a str>,
    /// Type of the message.
    pub kind: &'a str,
    /// POST type.
    pub post_type: Option<&'a str>,
    /// AGGREGATE key.
    pub aggregate_key: Option<&'a str>,
}

fn allows(rule: &Value, action: &Action<'_>) -> bool {
    let contains = |name: &str, value: Option<&str>| match rule[name].as_array() {
        Some(list) if !list.is_empty() => {
            value.is_some_and(|value| list.iter().any(|item| item.as_str() == Some(value)))
        }
        _ => true,
    };
    let sender = rule["address"]
        .as_str()
        .is_some_and(|address| address.eq_ignore_ascii_case(action.sender));
    let chain = match rule["chain"].as_str() {
        Some(chain) if !chain.is_empty() => chain == action.chain,
        _ => true,
    };
    sender
        && chain
        && contains("channels", action.channel)
        && contains("types", Some(action.kind))
        && (action.kind != "POST" || contains("post_types", action.post_type))
        && (action.kind != "AGGREGATE" || contains("aggregate_keys", action.aggregate_key))
}

/// Refuses with code 2 unless the sender is the owner or the owner authorised it.
pub fn permit(conn: &Connection, action: &Action<'_>) -> Result<(), Refusal> {
    if action.sender.eq_ignore_ascii_case(action.owner) {
        return Ok(());
    }
    let allowed = aggregates::get(conn, action.owner, "security")?.is_some_and(|security| {
        security.content["authorizations"]
            .as_array()
            .is_some_and(|rules| rules.iter().any(|rule| allows(rule, action)))
    });
    if allowed {
        Ok(())
    } else {
        Err(Rejection::new(
            ErrorCode::PermissionDenied,
            format!("{} may not act for {}", action.sender, action.owner),
        )
        .into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const ACTION: Action<'_> = Action {
        sender: "0xAB",
        owner: "0x00",
        chain: "ETH",
        channel: Some("c"),
        kind: "POST",
        post_type: Some("t"),
        aggregate_key: None,
    };

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "(0xAB|POST|c|t|ETH|)".prop_map(Value::from),
        ];
        let key = "(address|chain|channels|types|post_types|aggregate_keys|authorizations)";
        leaf.prop_recursive(3, 24, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key, inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_but_a_rule_for_the_sender_allows(rule in any_json()) {
            if allows(&rule, &ACTION) {
                let address = rule["address"].as_str().unwrap_or_default();
                prop_assert!(address.eq_ignore_ascii_case(ACTION.sender));
                for (filter, value) in [("channels", "c"), ("types", "POST"), ("post_types", "t")] {
                    let list = rule[filter].as_array().map(Vec::as_slice).unwrap_or_default();
                    prop_assert!(list.is_empty() || list.contains(&json!(value)));
                }
            }
        }
    }

    #[test]
    fn empty_filters_allow_and_set_filters_must_match() {
        assert!(allows(&json!({"address": "0xab"}), &ACTION));
        assert!(allows(&json!({"address": "0xab", "types": []}), &ACTION));
        assert!(!allows(
            &json!({"address": "0xab", "types": ["STORE"]}),
            &ACTION
        ));
        assert!(!allows(&json!({"address": "0xcd"}), &ACTION));
        assert!(!allows(
            &json!({"address": "0xab", "post_types": ["u"]}),
            &ACTION
        ));
        assert!(!allows(
            &json!({"address": "0xab", "chain": "SOL"}),
            &ACTION
        ));
        assert!(allows(
            &json!({"address": "0xab", "aggregate_keys": ["k"]}),
            &ACTION
        ));
    }
}
