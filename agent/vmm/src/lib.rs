//! The virtual machine monitor: one process is one virtual machine.
//!
//! In comes a [`crn_protocol::control::VmSpec`] with open file descriptors (over the control socket, or from the
//! command line of `crn-vmm run`); out go the guest's console, events and an exit status. Nothing is opened by path
//! once [`sandbox`] has taken the rest of the host away.
//!
//! A machine's way through the modules: [`control`] takes the description, [`plan`] decides every address and table
//! without touching anything, [`memory`], [`boot`] and [`machine`] build it, [`virtio`] carries what guest drivers
//! say, over registers or over [`pci`], to [`devices`], and [`event_loop`] is the one thread in which devices and the control socket live. Each vCPU
//! has a thread of its own that reaches devices only through doorbells (ioeventfd) and the register bus.
//! [`snapshot`] is a paused machine in two files, from which others go on.

#![deny(unsafe_code)]

pub mod boot;
pub mod control;
pub mod devices;
pub mod error;
pub mod event_loop;
#[allow(unsafe_code, reason = "raw descriptors become typed ones")]
pub mod fd;
pub mod machine;
pub mod memory;
pub mod pci;
pub mod plan;
pub mod poller;
pub mod sandbox;
pub mod snapshot;
pub mod virtio;

pub use error::{Error, Result};
pub use event_loop::Vmm;
