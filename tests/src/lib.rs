//! What the tests run on: machines made for the occasion.
//!
//! [`nested`] gives a real `/dev/kvm` on any host, [`bench`] measures boots inside it; [`still`] does without Linux guests.

#![deny(unsafe_code)]

pub mod bench;
pub mod nested;
pub mod still;
#[allow(unsafe_code, reason = "ioctls and inherited descriptors")]
pub mod tap;
pub mod testbed;
