//! What compute nodes say about themselves when asked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::place::Readiness;

/// A node that did not answer for this long is away.
const AWAY_AFTER: Duration = Duration::from_secs(60);

/// A machine seen on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Execution {
    /// Whether it runs, rather than being prepared.
    pub(super) running: bool,
    /// Its IPv6 address, when it has one.
    pub(super) ipv6: Option<String>,
}

/// The last that was heard from a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    pub(super) last_seen: Option<Instant>,
    /// `/status/config`.
    pub(super) config: Value,
    /// `/about/usage/system`.
    pub(super) usage: Value,
    /// `/status/check/ipv6`.
    pub(super) ipv6: Value,
    /// By item hash; none when the list could not be read.
    pub(super) executions: Option<BTreeMap<String, Execution>>,
    /// Errors of the last push, by item hash.
    pub(super) errors: BTreeMap<String, String>,
}

impl Observed {
    pub(super) fn is_online(&self) -> bool {
        self.last_seen
            .is_some_and(|seen| seen.elapsed() < AWAY_AFTER)
    }

    pub(super) fn is_confidential(&self) -> bool {
        self.config
            .pointer("/computing/ENABLE_CONFIDENTIAL_COMPUTING")
            == Some(&Value::Bool(true))
    }

    pub(super) fn readiness(&self) -> Readiness {
        Readiness {
            online: self.is_online(),
            confidential: self.is_confidential(),
        }
    }

    pub(super) fn version(&self) -> Option<&str> {
        self.config.get("version").and_then(Value::as_str)
    }

    pub(super) fn ipv6_pool(&self) -> Option<&str> {
        self.config
            .pointer("/networking/IPV6_ADDRESS_POOL")
            .and_then(Value::as_str)
    }

    /// `{"host": bool, "vm": bool}`, false for what is not known.
    pub(super) fn ipv6_check(&self) -> Value {
        let flag = |name| self.ipv6.get(name) == Some(&Value::Bool(true));
        json!({"host": flag("host"), "vm": flag("vm")})
    }

    pub(super) fn supports_ipv6(&self) -> bool {
        self.ipv6.get("vm") == Some(&Value::Bool(true))
    }

    /// What the node says of a machine.
    pub(super) fn execution(&self, vm: &str) -> Option<&Execution> {
        self.executions.as_ref()?.get(vm)
    }
}

/// Reads `/v2/about/executions/list`.
pub(super) fn executions(list: &Value) -> Option<BTreeMap<String, Execution>> {
    let entries = list.as_object()?.iter().map(|(hash, entry)| {
        let running = entry
            .get("running")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        let ipv6 = entry
            .pointer("/networking/ipv6_ip")
            .and_then(Value::as_str)
            .map(str::to_owned);
        (hash.clone(), Execution { running, ipv6 })
    });
    Some(entries.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_are_read_leniently() {
        let list = json!({"h": {"running": true, "networking": {"ipv6_ip": "fd00::1"}}, "p": {"networking": {}}});
        let read = executions(&list).unwrap();
        assert_eq!(
            read["h"],
            Execution {
                running: true,
                ipv6: Some("fd00::1".into())
            }
        );
        assert_eq!(
            read["p"],
            Execution {
                running: false,
                ipv6: None
            }
        );
        assert_eq!(executions(&json!([])), None);
    }
}
