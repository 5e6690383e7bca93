//! What the tests run on: machines made for the occasion.
//!
//! [`nested`] gives a real `/dev/kvm` on any host, [`bench`] measures boots inside it.

#![forbid(unsafe_code)]

pub mod bench;
pub mod nested;
pub mod testbed;
