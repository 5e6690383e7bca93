//! Calls on one machine: a wallet authorises a short-lived key, the key signs the call, and the wallet is the owner's
//! or one its `security` aggregate names.

use aleph_message::operator::AuthenticatedSender;
use serde_json::Value;

use crate::intake::ccns::Ccns;
use crate::ledger::{Kind, Record};

/// Whether `sender` may operate the machine. When the owner's delegations cannot be read, there are none.
pub async fn may_operate(ccn: &Ccns, record: &Record, sender: &AuthenticatedSender) -> bool {
    let Some(owner) = &record.owner else {
        return false;
    };
    if owner.eq_ignore_ascii_case(&sender.address) {
        return true;
    }
    match ccn.aggregate(owner, "security").await {
        Ok(security) => {
            security.is_some_and(|security| delegates(&security, record.kind, &sender.address))
        }
        Err(error) => {
            tracing::warn!(vm = %record.hash, "delegations cannot be read: {}", crate::chain(&error));
            false
        }
    }
}

fn delegates(security: &Value, kind: Option<Kind>, address: &str) -> bool {
    let word = if kind == Some(Kind::Instance) {
        "INSTANCE"
    } else {
        "PROGRAM"
    };
    let entries = security.get("authorizations").and_then(Value::as_array);
    entries.into_iter().flatten().any(|entry| {
        let same = entry
            .get("address")
            .and_then(Value::as_str)
            .is_some_and(|a| a.eq_ignore_ascii_case(address));
        let types = entry.get("types").and_then(Value::as_array);
        same && types
            .is_none_or(|types| types.is_empty() || types.iter().any(|t| t.as_str() == Some(word)))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::any::any_json;

    #[test]
    fn a_delegation_holds_for_its_types() {
        let security = json!({"authorizations": [
            {"address": "0xAA"}, {"address": "0xbb", "types": []}, {"address": "0xcc", "types": ["INSTANCE"]},
            {"address": "0xdd", "types": ["POST"]}, {"types": []}, 7,
        ]});
        let instance = |address| delegates(&security, Some(Kind::Instance), address);
        assert!(instance("0xaa") && instance("0xBB") && instance("0xcc"));
        assert!(!instance("0xdd") && !instance("0xee"));
        assert!(!delegates(&security, Some(Kind::Microvm), "0xcc"));
        assert!(!delegates(&json!(null), None, "0xaa"));
    }

    proptest! {
        #[test]
        fn whatever_stands_in_an_aggregate_a_stranger_operates_nothing(
            security in any_json("authorizations|address|types|INSTANCE"),
        ) {
            prop_assert!(!delegates(&security, Some(Kind::Instance), "0xstranger"));
        }
    }
}
