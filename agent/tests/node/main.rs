//! The agent from its HTTP API down to the host's seam.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod allocations;
mod answers;
mod changes;
mod end;
mod fixtures;
mod life;
mod logs;
mod messages;
mod operator;
mod owners;
mod programs;
mod status;
