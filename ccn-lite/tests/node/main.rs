//! A whole node on a real socket, spoken to as clients do: really signed messages, files, lists, live feeds.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test like the tests themselves"
)]

mod clients;
mod delegation;
mod documents;
mod feeds;
mod files;
mod forgetting;
mod lists;
mod measurements;
mod publishing;
mod schema;
mod support;
