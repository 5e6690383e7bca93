//! Takes everything from this process but the two files it holds: file systems and network (Landlock), system calls
//! (seccomp), memory and file sizes (limits), and, where it has them, root's rights.

use std::collections::BTreeMap;

use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{Gid, Uid};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Memory the process may map, bytes: tables, two clusters and a Zstandard window fit many times.
const MAX_MEMORY: u64 = 512 << 20;
/// `nobody` and `nogroup` of Debian.
const NOBODY: u32 = 65_534;

/// Why the process could not be confined.
#[derive(Debug, thiserror::Error)]
#[error("cannot confine this process: {what}")]
pub struct JailError {
    what: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    what: &'static str,
) -> impl FnOnce(E) -> JailError {
    move |source| JailError {
        what,
        source: source.into(),
    }
}

/// Confines this process, which must have one thread. `max_size` is the length of the longest file it may write.
///
/// # Errors
/// [`JailError`]: the process must not go on. A kernel without Landlock is no error: the system calls that it guards are
/// not allowed anyway.
pub fn enter(max_size: u64) -> Result<(), JailError> {
    let limit = |value| Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    for (resource, value) in [
        (Resource::As, MAX_MEMORY),
        (Resource::Fsize, max_size),
        (Resource::Core, 0),
        (Resource::Nproc, 0),
        (Resource::Nofile, 16),
    ] {
        setrlimit(resource, limit(value)).map_err(failed("resource limits"))?;
    }
    if rustix::process::geteuid().is_root() {
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        rustix::thread::set_thread_groups(&[])
            .and_then(|()| rustix::thread::set_thread_res_gid(group, group, group))
            .and_then(|()| rustix::thread::set_thread_res_uid(user, user, user))
            .map_err(failed("another user"))?;
    }
    rustix::thread::set_no_new_privs(true).map_err(failed("no new privileges"))?;
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(ABI::V5)))
        .and_then(|ruleset| ruleset.create())
        .and_then(|ruleset| ruleset.restrict_self())
        .map_err(failed("Landlock"))?;
    let filter: BpfProgram = SeccompFilter::new(
        ALLOWED
            .iter()
            .map(|call| (*call, vec![]))
            .collect::<BTreeMap<_, _>>(),
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        std::env::consts::ARCH
            .try_into()
            .map_err(failed("system calls"))?,
    )
    .and_then(TryInto::try_into)
    .map_err(failed("system calls"))?;
    seccompiler::apply_filter(&filter).map_err(failed("system calls"))
}

/// Reading one file, writing the other, memory, and the end.
const ALLOWED: [i64; 20] = [
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigreturn,
    libc::SYS_exit,
    libc::SYS_exit_group,
];
