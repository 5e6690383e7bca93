//! The walls that are not system call filters: namespaces, an empty root, another user, limits, Landlock.

use std::io;
use std::os::fd::RawFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError,
    Scope,
};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid, UnshareFlags};

use super::SandboxError;

/// The user and group of one machine's process, which no other process on the host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Not 0.
    pub uid: u32,
    /// Not 0.
    pub gid: u32,
}

/// Descriptors: 31 devices with a doorbell and an interrupt for each of 65 queues, and vsock connections.
const MAX_FILES: u64 = 16_384;
/// Threads: 64 vCPUs, the event loop, and io_uring's workers (16 for each of 31 disks).
const MAX_THREADS: u64 = 1024;
/// Where the empty root is put together: every host has this directory.
const WORKSHOP: &str = "/dev";

/// Builds the walls around this process, which must have one thread and be the first of its PID namespace.
///
/// # Errors
/// [`SandboxError`].
pub fn enter(identity: Identity) -> Result<(), SandboxError> {
    let number = rustix::process::getpid().as_raw_nonzero().get();
    if number != 1 {
        return Err(SandboxError::PidNamespace(number));
    }
    unshare(UnshareFlags::from_bits_retain(libc::CLONE_THREAD as u32))
        .map_err(SandboxError::Threads)?;
    for (flag, name) in [
        (UnshareFlags::NEWNS, "mount"),
        (UnshareFlags::NEWIPC, "IPC"),
        (UnshareFlags::NEWUTS, "UTS"),
        (UnshareFlags::NEWNET, "network"),
    ] {
        unshare(flag).map_err(|error| SandboxError::Namespace(name, error))?;
    }
    rustix::system::sethostname(b"crn-vmm")
        .map_err(|error| SandboxError::Namespace("UTS", error.into()))?;
    empty_root()?;
    limits()?;
    become_nobody(identity)?;
    landlock().map_err(SandboxError::Landlock)
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: descriptor tables are not unshared.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Closes all descriptors but the standard streams and one.
///
/// # Errors
/// close_range(2)'s.
pub fn close_others(kept: RawFd) -> io::Result<()> {
    let kept = u32::try_from(kept).map_err(|_| io::ErrorKind::InvalidInput)?;
    for (first, last) in [(3, kept.saturating_sub(1)), (kept + 1, u32::MAX)] {
        if first > last {
            continue;
        }
        // SAFETY: called before anything in this process has opened a descriptor: nobody owns one of these.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A root directory with nothing in it to which nothing can be added, and no way to the old one.
fn empty_root() -> Result<(), SandboxError> {
    let step = |what| move |error: rustix::io::Errno| SandboxError::Root(what, error.into());
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )
    .map_err(step("keep mounts to this process"))?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(
        "none",
        WORKSHOP,
        "tmpfs",
        flags,
        Some(c"size=4k,nr_inodes=1,mode=0555"),
    )
    .map_err(step("mount an empty tmpfs"))?;
    rustix::process::chdir(WORKSHOP).map_err(step("enter the empty tmpfs"))?;
    rustix::process::pivot_root(".", ".").map_err(step("make the empty tmpfs the root"))?;
    // The old root lies on top of the new one now.
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(step("unmount the old root"))?;
    rustix::process::chdir("/").map_err(step("enter the new root"))
}

fn limits() -> Result<(), SandboxError> {
    for (resource, name, value) in [
        (Resource::Core, "core dumps", 0),
        (Resource::Nofile, "descriptors", MAX_FILES),
        (Resource::Nproc, "threads", MAX_THREADS),
        (Resource::Msgqueue, "message queues", 0),
        (Resource::Sigpending, "queued signals", MAX_THREADS),
    ] {
        let limit = Rlimit {
            current: Some(value),
            maximum: Some(value),
        };
        rustix::process::setrlimit(resource, limit)
            .map_err(|error| SandboxError::Limit(name, error.into()))?;
    }
    Ok(())
}

/// Another user, no capability, and no way to get one.
fn become_nobody(identity: Identity) -> Result<(), SandboxError> {
    let step = |what| move |error: rustix::io::Errno| SandboxError::Privileges(what, error.into());
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // One more than the kernel's last.
            Err(rustix::io::Errno::INVAL) if bit > 0 => break,
            Err(error) => return Err(step("the capability bounding set")(error)),
        }
    }
    let (user, group) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    rustix::thread::set_thread_groups(&[])
        .and_then(|()| rustix::thread::set_thread_res_gid(group, group, group))
        .and_then(|()| rustix::thread::set_thread_res_uid(user, user, user))
        .map_err(|error| SandboxError::Identity(identity, error.into()))?;
    rustix::thread::clear_ambient_capability_set().map_err(step("ambient capabilities"))?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    rustix::thread::set_capabilities(None, sets).map_err(step("capabilities"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(step("being traced"))?;
    rustix::thread::set_no_new_privs(true).map_err(step("new privileges"))
}

/// No file system, no TCP, no abstract socket and no signal outside: the same once more, in other code of the kernel.
/// What kernels after 5.13 have learnt is taken where it is; the namespaces stand for it where it is not.
fn landlock() -> Result<(), RulesetError> {
    let newest = ABI::V6;
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(newest))?
        .handle_access(AccessNet::from_all(newest))?
        .scope(Scope::from_all(newest))?
        .create()?
        .restrict_self()?;
    Ok(())
}
