//! How long and how much: boots of our VMM beside a reference, measured in the same machine.
//!
//! [`boot`] runs on the host, starts a nested machine whose clock counts instructions, and has [`measure`] start
//! the contestants there in turn. [`report`] is what comes out.

pub mod boot;
pub mod measure;
pub mod report;
