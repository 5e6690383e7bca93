//! The agent as a process of its own, with real machines under the host's own KVM, killed at random instants; a disk that
//! is full; core channel nodes that are dead, lying or slow; and told to end with an answer under way. Afterwards ledger,
//! host and guests must agree and nothing may be left over.
//!
//! The guest is four bytes that stand still for ever, so that this also runs where stock kernels do not: it never says
//! that it is ready, and `starting` is as far as a machine comes. Without /dev/kvm nothing is tested.
//! `AGENT_KILLS` is the number of rounds.

#![allow(clippy::unwrap_used, reason = "tests")]

/// The bench of many machines sets its node up in the same way.
#[path = "../../../tests/src/still.rs"]
mod still;
#[path = "../support/mod.rs"]
mod support;

mod apart;
mod ccn;
mod end;
mod host;
mod kills;
mod versions;
