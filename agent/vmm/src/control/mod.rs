//! The control socket: the controller's lines in, replies and events out; see [`crn_protocol::control`].

mod blueprint;
mod connection;

pub use blueprint::{Blueprint, Disk, Files, Nic, Parts, Source};
pub use connection::{Controller, Gone};
