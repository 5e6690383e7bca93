//! What is taken from this process before it hears of a guest.
//!
//! [`enter`] is the jail and the first system call filter; [`filters`] are narrowed once more for each kind of thread
//! when the machine runs. All that a machine needs later is open by then or comes as a descriptor over the control
//! socket. Nothing here is done by halves: a wall that this host cannot build is a [`SandboxError`] that names it.

pub mod filters;
#[allow(
    unsafe_code,
    reason = "unshare(2) and close_range(2) are promises about descriptors and threads"
)]
mod jail;
mod table;

use std::io;

pub use filters::{Role, allowed_calls, install};
pub use jail::{Identity, close_others, enter as enter_jail};

/// A wall that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The process was not started as the first of its PID namespace.
    #[error(
        "this process has number {0} in its PID namespace instead of 1: it has to be started in one of its own (unshare --pid --fork)"
    )]
    PidNamespace(i32),
    /// More than one thread runs already.
    #[error("this process has several threads already")]
    Threads(#[source] io::Error),
    /// The kernel has no such namespace, or refuses one.
    #[error("this host gives no {0} namespace (is crn-vmm started as root?)")]
    Namespace(&'static str, #[source] io::Error),
    /// The empty root directory.
    #[error("cannot {0}")]
    Root(&'static str, #[source] io::Error),
    /// Limits of resources.
    #[error("cannot limit {0}")]
    Limit(&'static str, #[source] io::Error),
    /// The user and group.
    #[error("cannot become user {} and group {}", .0.uid, .0.gid)]
    Identity(Identity, #[source] io::Error),
    /// Capabilities, or the way back to them.
    #[error("cannot give up {0}")]
    Privileges(&'static str, #[source] io::Error),
    /// The kernel has no Landlock.
    #[error(
        "this host's kernel does not enforce Landlock: CONFIG_SECURITY_LANDLOCK=y and landlock in lsm= are needed"
    )]
    Landlock(#[source] landlock::RulesetError),
    /// System call filters.
    #[error("cannot filter the system calls of {0:?}")]
    Filter(Role, #[source] seccompiler::Error),
}

/// Takes everything from this process. To be called first thing, with one thread.
///
/// # Errors
/// [`SandboxError`]: the process must not go on.
pub fn enter(identity: Identity) -> Result<(), SandboxError> {
    enter_jail(identity)?;
    install(Role::Starting)
}
