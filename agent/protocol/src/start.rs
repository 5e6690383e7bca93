//! How `crn-vmm` has to be started: as the first process of a PID namespace of its own.
//!
//! Everything else it takes from itself; this cannot be: a process stays in the PID namespace it was born into.

use std::io;
use std::panic::resume_unwind;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Runs `spawn` in a thread whose next child is number 1 of a new PID namespace. `spawn` starts that child and returns;
/// it cannot start threads. The namespace, and every process in it, ends with the child.
///
/// # Errors
/// `spawn`'s, or unshare(2)'s: without CAP_SYS_ADMIN, or on a kernel without PID namespaces.
pub fn first_of_a_namespace<T: Send>(
    spawn: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let born = || {
        // SAFETY: descriptor tables are not unshared.
        unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.map_err(|error| {
            let reason = format!("cannot make a PID namespace (only root can): {error}");
            io::Error::new(io::Error::from(error).kind(), reason)
        })?;
        spawn()
    };
    std::thread::scope(|scope| scope.spawn(born).join())
        .unwrap_or_else(|panic| resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_child_is_number_one_or_the_error_says_that_only_root_can() {
        let output = first_of_a_namespace(|| Command::new("sh").args(["-c", "echo $$"]).output());
        match output {
            Ok(output) => assert_eq!(output.stdout, b"1\n"),
            Err(error) => assert!(error.to_string().contains("only root can"), "{error}"),
        }
    }
}
