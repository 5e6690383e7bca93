//! PID 1 of a guest.
//!
//! In: a [`crn_protocol::guest::GuestConfig`] over vsock, and disks found by their serial. Out: a running program
//! (served on vsock, reported over vsock), or another machine's init in this process's place. Nothing here survives a
//! failure: it is reported to the host, printed on the console, and the machine powers off.
//!
//! * [`boot`]: the straight line from the first instruction to one of the two workloads.
//! * [`program`]: a function; [`instance`]: a machine of its own.
//! * [`control`], [`vsock`]: the host. [`network`], [`files`]: the guest's place in the world.
//! * [`loader`]: an image's own kernel, found and started.
//! * [`identity`]: what a copy of a guest is told to become.
//! * [`disks`], [`gpt`], [`root`], [`code`], [`archive`], [`volumes`]: what is mounted where.
//! * [`launch`], [`notify`], [`supervise`], [`proxy`], [`power_button`]: a program's life.
//! * [`system`]: the machine itself: console, power, early mounts.

#![deny(unsafe_code)]

pub mod archive;
pub mod boot;
pub mod code;
pub mod control;
pub mod disks;
pub mod error;
pub mod files;
pub mod gpt;
pub mod identity;
pub mod instance;
pub mod launch;
pub mod loader;
pub mod network;
pub mod notify;
pub mod power_button;
pub mod program;
pub mod proxy;
pub mod root;
pub mod supervise;
pub mod system;
pub mod volumes;
pub mod vsock;
