//! The embedded core channel node: takes signed messages, keeps what they say, charges for it, and answers about it.
//!
//! A message comes in over HTTP (`api`), is checked and applied (`pipeline`, `kinds`) in one transaction of the
//! database (`store`); file contents stand beside it (`files`). What changes goes out to WebSocket clients and to the
//! scheduler.
#![forbid(unsafe_code)]

pub mod activity;
pub mod admin;
pub mod api;
pub mod backup;
pub mod config;
pub mod export;
pub mod files;
pub mod genesis;
pub mod import;
pub mod key;
pub mod kinds;
pub mod ledger;
pub mod limits;
pub mod money;
pub mod node;
pub mod outbound;
pub mod pipeline;
pub mod publish;
pub mod scheduler;
pub mod serve;
pub mod store;
pub mod verify;
