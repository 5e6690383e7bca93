//! The compute node's daemon, in the order a workload walks through it:
//!
//! [`api`] (HTTP) → [`auth`] (owner, scheduler) → [`intake`] (fetch and verify the message, resolve what it names) →
//! [`ledger`] (SQLite: desired state, observed state, leases, capacity; the only truth) → [`reconcile`] (one small state
//! machine a VM: desired against observed) → [`content`] (verified cache) → [`net`], [`volume`], [`machine`] (what a VM
//! stands on) → [`program`] (HTTP to a guest). [`logs`] keeps what guests print, [`metrics`] says how the host
//! and its machines are.
//!
//! What comes in: signed messages, allocation pushes, owners' calls, requests for programs. What goes out: running
//! machines. What may be touched: the state and run directories of the configuration, TAP devices named `vmtap*`, the
//! nftables table `inet crn`.

#[cfg(test)]
mod any;
pub mod api;
pub mod auth;
pub mod config;
pub mod content;
pub mod intake;
pub mod ledger;
pub mod logs;
pub mod machine;
pub mod metrics;
pub mod net;
pub mod program;
pub mod reconcile;
pub mod volume;

/// An error and its causes in one sentence, for logs and for owners.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some libraries repeat their cause in their own text.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
