//! Wire types between the three programs of a virtual machine.
//!
//! * [`control`]: agent ⇄ `crn-vmm`, over the machine's control socket. JSON lines; file descriptors ride along.
//! * [`devices`]: limits and counters of a machine's devices, part of the former.
//! * [`guest`]: agent ⇄ `crn-init`, over virtio-vsock. JSON lines.
//! * [`lines`]: the framing both share: one JSON document a line, with a cap on a line's length.
//! * `descriptors` (feature): a UNIX stream socket that carries lines and file descriptors together.
//! * `start` (feature): how `crn-vmm` is to be started.
//!
//! Nothing here opens or decides anything.

#![deny(unsafe_code)]

pub mod control;
#[cfg(feature = "descriptors")]
pub mod descriptors;
pub mod devices;
pub mod guest;
pub mod lines;
#[cfg(feature = "start")]
#[allow(unsafe_code, reason = "unshare(2) is a promise about descriptors")]
pub mod start;
