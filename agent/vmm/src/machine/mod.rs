//! KVM: the virtual machine, its vCPUs, and the bus on which they meet devices.

pub mod attach;
pub mod bus;
mod copy;
pub mod cpuid;
pub mod events;
pub mod gate;
pub mod launch;
pub mod parts;
pub mod plug;
#[allow(
    unsafe_code,
    reason = "signalfd(2) has no safe wrapper among the crates in use"
)]
pub mod signals;
pub mod vcpu;
#[allow(
    unsafe_code,
    reason = "handing guest memory to KVM is a promise the compiler cannot check"
)]
pub mod vm;
pub mod wiring;

pub use launch::{Machine, launch};
