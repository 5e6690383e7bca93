//! How long and how much: boots of our VMM beside a reference, measured in the same machine, and our core channel node
//! under load.
//!
//! [`ccn`] and [`agent`] run the node and the agent on this machine. The other suites, [`boot`], [`copies`], [`program`],
//! [`disk`], [`net`], [`memory`] and [`stock`], run on the host, start a nested machine whose clock counts instructions, and
//! have [`measure`] start the contestants there in turn. [`report`] is what comes out.

pub mod agent;
pub mod boot;
pub mod ccn;
pub mod copies;
pub mod disk;
pub mod measure;
pub mod memory;
pub mod net;
pub mod process;
pub mod program;
pub mod report;
pub mod setup;
pub mod stock;
