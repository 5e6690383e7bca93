//! System call filters, one for each kind of thread. What is not in [`super::table`] ends the process.
//!
//! Filters add up: threads are started under [`Role::Starting`], which has to allow all that launching needs, and put
//! their own on top. No filter is ever set for other threads (`SECCOMP_FILTER_FLAG_TSYNC`). Disks' requests are carried
//! out by io_uring's kernel threads, which make no system calls; their rings take the disk's own operations and no others.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, sock_filter,
};

use super::SandboxError;
use super::table::{Check, allowed};

/// What a thread is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The only thread, until the machine runs.
    Starting,
    /// The event loop of a running machine. On a PCI bus devices come, which takes a few more calls.
    EventLoop {
        /// Whether the machine has a PCI bus.
        pci: bool,
    },
    /// A vCPU.
    Vcpu {
        /// Whether the machine has a PCI bus.
        pci: bool,
    },
}

/// Filters this thread's system calls, and those of the threads it starts, for good.
///
/// # Errors
/// [`SandboxError::Filter`].
pub fn install(role: Role) -> Result<(), SandboxError> {
    program(role)
        .and_then(|program| seccompiler::apply_filter(&program))
        .map_err(|error| SandboxError::Filter(role, error))
}

/// The numbers of the system calls that a role's filter lets through, whatever it asks of their arguments.
#[must_use]
pub fn allowed_calls(role: Role) -> Vec<i64> {
    allowed(role).into_iter().map(|(call, _)| call).collect()
}

fn program(role: Role) -> Result<BpfProgram, Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (call, check) in allowed(role) {
        let entry = rules.entry(call).or_default();
        for values in conditions(check)? {
            entry.push(SeccompRule::new(values)?);
        }
    }
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        arch,
    )?;
    let mut program = answers();
    program.extend(BpfProgram::try_from(filter)?);
    Ok(program)
}

/// The alternatives of a check; none for a call that is allowed whatever it is given.
fn conditions(check: Check) -> Result<Vec<Vec<SeccompCondition>>, Error> {
    let equals = |argument, value| {
        SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            u64::from(value),
        )
    };
    let masked = |argument, mask, value| {
        SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::MaskedEq(u64::from(mask)),
            u64::from(value),
        )
    };
    let alternatives = match check {
        Check::Any => Vec::new(),
        Check::OneOf(argument, values) => values
            .iter()
            .map(|value| Ok(vec![equals(argument, *value)?]))
            .collect::<Result<_, Error>>()?,
        Check::Itself(argument) => vec![vec![equals(argument, std::process::id())?]],
        Check::Masked(argument, mask, value) => vec![vec![masked(argument, mask, value)?]],
    };
    Ok(alternatives)
}

/// What is answered with an error instead of the end. clone3(2) takes its flags from memory, where a filter cannot look: it
/// is said not to exist, and the C library takes clone(2). The C library's allocator asks openat(2) for
/// `/proc/sys/vm/overcommit_memory` before it gives a thread's memory back, and does without when it may not.
const ANSWERED: [(i64, i32); 2] = [
    (libc::SYS_clone3, libc::ENOSYS),
    (libc::SYS_openat, libc::EACCES),
];

/// The beginning of every filter: [`ANSWERED`]. The numbers are those of `linux/filter.h` and `linux/seccomp.h`.
fn answers() -> BpfProgram {
    const LOAD_ABSOLUTE: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const RETURN_ERRNO: u32 = 0x0005_0000;
    let instruction = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    // seccomp_data.nr is at the start.
    let mut program = vec![instruction(LOAD_ABSOLUTE, 0, 0, 0)];
    for (call, error) in ANSWERED {
        program.push(instruction(JUMP_EQUAL, 0, 1, call as u32));
        program.push(instruction(RETURN, 0, 0, RETURN_ERRNO | error as u32));
    }
    program
}
