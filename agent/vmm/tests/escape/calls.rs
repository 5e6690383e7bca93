//! Every system call that a kind of thread has no need of, and those it needs with what it has no need of.

use std::ffi::{c_int, c_long};

use crn_vmm::sandbox::{Role, allowed_calls, install};

use super::Attempt;

const ROLES: [(&str, Role); 5] = [
    ("starting", Role::Starting),
    ("event loop, mmio", Role::EventLoop { pci: false }),
    ("event loop, PCI", Role::EventLoop { pci: true }),
    ("vCPU, mmio", Role::Vcpu { pci: false }),
    ("vCPU, PCI", Role::Vcpu { pci: true }),
];

/// The kernel's highest number for now is below.
const NUMBERS: std::ops::Range<c_long> = 0..480;
/// Not tried by number: clone3 and openat, which are answered with an error, and uretprobe and uprobe, which the kernel answers before any
/// filter and only to its own trampolines (`kernel/seccomp.c`, `arch/x86/kernel/uprobes.c`).
const UNFILTERED: [c_long; 4] = [libc::SYS_clone3, libc::SYS_openat, 335, 336];
const KILLED: &str = "system call filter: killed";
/// `asm/unistd.h`: __X32_SYSCALL_BIT.
const X32: c_long = 0x4000_0000;

/// Calls that no role may ever be given, by name, whatever the table says.
const NEVER: &[(&str, c_long)] = &[
    ("open", libc::SYS_open),
    ("openat2", libc::SYS_openat2),
    ("creat", libc::SYS_creat),
    ("socket", libc::SYS_socket),
    ("connect", libc::SYS_connect),
    ("bind", libc::SYS_bind),
    ("listen", libc::SYS_listen),
    ("ptrace", libc::SYS_ptrace),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("kill", libc::SYS_kill),
    ("tkill", libc::SYS_tkill),
    ("rt_sigqueueinfo", libc::SYS_rt_sigqueueinfo),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ("fork", libc::SYS_fork),
    ("vfork", libc::SYS_vfork),
    ("execve", libc::SYS_execve),
    ("execveat", libc::SYS_execveat),
    ("mount", libc::SYS_mount),
    ("umount2", libc::SYS_umount2),
    ("move_mount", libc::SYS_move_mount),
    ("fsopen", libc::SYS_fsopen),
    ("pivot_root", libc::SYS_pivot_root),
    ("chroot", libc::SYS_chroot),
    ("unshare", libc::SYS_unshare),
    ("setns", libc::SYS_setns),
    ("setuid", libc::SYS_setuid),
    ("setresuid", libc::SYS_setresuid),
    ("capset", libc::SYS_capset),
    ("bpf", libc::SYS_bpf),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("keyctl", libc::SYS_keyctl),
    ("add_key", libc::SYS_add_key),
    ("memfd_create", libc::SYS_memfd_create),
    ("shmget", libc::SYS_shmget),
    ("unlink", libc::SYS_unlink),
    ("rename", libc::SYS_rename),
    ("mknod", libc::SYS_mknod),
    ("getdents64", libc::SYS_getdents64),
    ("init_module", libc::SYS_init_module),
    ("reboot", libc::SYS_reboot),
    ("iopl", libc::SYS_iopl),
    ("modify_ldt", libc::SYS_modify_ldt),
    ("personality", libc::SYS_personality),
    ("prlimit64", libc::SYS_prlimit64),
];

/// What needed calls may not be given: the roles that have the call, its name, number and arguments.
fn arguments() -> Vec<(&'static str, c_long, Vec<usize>)> {
    let exec = (libc::PROT_READ | libc::PROT_EXEC) as usize;
    let private = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
    let thread = libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND;
    vec![
        (
            "mmap executable memory",
            libc::SYS_mmap,
            vec![0, 4096, exec, private, usize::MAX],
        ),
        (
            "mprotect memory executable",
            libc::SYS_mprotect,
            vec![0, 4096, exec],
        ),
        (
            "clone a process",
            libc::SYS_clone,
            vec![libc::SIGCHLD as usize],
        ),
        (
            "clone a process that shares memory",
            libc::SYS_clone,
            vec![libc::CLONE_VM as usize],
        ),
        (
            "clone into a user namespace",
            libc::SYS_clone,
            vec![(thread | libc::CLONE_NEWUSER) as usize],
        ),
        (
            "clone into a network namespace",
            libc::SYS_clone,
            vec![(thread | libc::CLONE_NEWNET) as usize],
        ),
        ("tgkill somebody else", libc::SYS_tgkill, vec![2, 2, 9]),
        (
            "socketpair of the internet",
            libc::SYS_socketpair,
            vec![libc::AF_INET as usize, 1, 0],
        ),
        (
            "fcntl F_SETOWN",
            libc::SYS_fcntl,
            vec![0, libc::F_SETOWN as usize, 1],
        ),
        (
            "fcntl F_NOTIFY",
            libc::SYS_fcntl,
            vec![0, libc::F_NOTIFY as usize, 1],
        ),
        (
            "prctl PR_SET_DUMPABLE",
            libc::SYS_prctl,
            vec![libc::PR_SET_DUMPABLE as usize, 1],
        ),
        (
            "prctl PR_SET_MM",
            libc::SYS_prctl,
            vec![libc::PR_SET_MM as usize],
        ),
        (
            "prctl PR_SET_PTRACER",
            libc::SYS_prctl,
            vec![libc::PR_SET_PTRACER as usize, usize::MAX],
        ),
        (
            "seccomp notifications",
            libc::SYS_seccomp,
            vec![libc::SECCOMP_GET_NOTIF_SIZES as usize],
        ),
        ("ioctl TIOCSTI", libc::SYS_ioctl, vec![0, 0x5412]),
        ("ioctl TIOCLINUX", libc::SYS_ioctl, vec![0, 0x541c]),
        ("ioctl SIOCGIFCONF", libc::SYS_ioctl, vec![0, 0x8912]),
        ("ioctl SIOCSIFADDR", libc::SYS_ioctl, vec![0, 0x8916]),
        ("ioctl TUNSETIFF", libc::SYS_ioctl, vec![0, 0x4004_54ca]),
        ("ioctl TUNSETPERSIST", libc::SYS_ioctl, vec![0, 0x4004_54cb]),
        ("ioctl TUNSETOWNER", libc::SYS_ioctl, vec![0, 0x4004_54cc]),
        ("ioctl FICLONE", libc::SYS_ioctl, vec![0, 0x4004_9409]),
        (
            "ioctl FS_IOC_SETFLAGS",
            libc::SYS_ioctl,
            vec![0, 0x4008_6602],
        ),
        ("ioctl BLKDISCARD", libc::SYS_ioctl, vec![0, 0x1277]),
        ("ioctl SG_IO", libc::SYS_ioctl, vec![0, 0x2285]),
        (
            "ioctl KVM_CREATE_DEVICE",
            libc::SYS_ioctl,
            vec![0, 0xc00c_aee0],
        ),
        ("ioctl KVM_SET_PIT", libc::SYS_ioctl, vec![0, 0x4070_aea0]),
        (
            "ioctl KVM_SET_NESTED_STATE",
            libc::SYS_ioctl,
            vec![0, 0x4080_aebf],
        ),
        (
            "ioctl KVM_XEN_HVM_CONFIG",
            libc::SYS_ioctl,
            vec![0, 0x4038_ae7a],
        ),
        (
            "ioctl KVM_ENABLE_CAP",
            libc::SYS_ioctl,
            vec![0, 0x4068_aea3],
        ),
    ]
}

/// KVM's calls of the launch, which nobody may make once the machine runs.
const LAUNCH_ONLY: [(&str, usize); 5] = [
    ("ioctl KVM_CREATE_VM", 0xae01),
    ("ioctl KVM_CREATE_VCPU", 0xae41),
    ("ioctl KVM_SET_USER_MEMORY_REGION", 0x4020_ae46),
    ("ioctl KVM_SET_SREGS", 0x4138_ae84),
    ("ioctl KVM_SET_MSRS", 0x4008_ae89),
];

pub fn attempts() -> Vec<Attempt> {
    let mut tried = Vec::new();
    for (name, role) in ROLES {
        let allowed = allowed_calls(role);
        for (call, number) in NEVER {
            assert!(!allowed.contains(number), "{name} may {call}");
            let what = format!("{name}: {call}");
            tried.push(attempt(what, role, move || call_with(*number, &[])));
        }
        let named: Vec<c_long> = NEVER.iter().map(|(_, number)| *number).collect();
        let others: Vec<Attempt> = NUMBERS
            .filter(|number| !UNFILTERED.contains(number))
            .filter(|number| !allowed.contains(number) && !named.contains(number))
            .map(|number| {
                let what = format!("{name}: system call {number}");
                attempt(what, role, move || call_with(number, &[]))
            })
            .collect();
        let refused = others.iter().filter(|attempt| attempt.failed).count();
        tried.push(Attempt {
            what: format!("{name}: each of {refused} other system calls"),
            ending: KILLED.to_owned(),
            failed: refused > 0,
        });
        tried.extend(others.into_iter().filter(|attempt| !attempt.failed));
        for number in [
            libc::SYS_read,
            libc::SYS_ioctl,
            libc::SYS_execve,
            libc::SYS_openat,
        ] {
            let what = format!("{name}: system call {number} of x32");
            tried.push(attempt(what, role, move || call_with(X32 | number, &[])));
        }
        tried.push(attempt(
            format!("{name}: a 32-bit system call"),
            role,
            call_32,
        ));
        for (call, number, arguments) in arguments() {
            let what = format!("{name}: {call}");
            tried.push(attempt(what, role, move || call_with(number, &arguments)));
        }
        if role != Role::Starting {
            for (call, number) in LAUNCH_ONLY {
                let what = format!("{name}: {call}");
                tried.push(attempt(what, role, move || {
                    call_with(libc::SYS_ioctl, &[0, number])
                }));
            }
        }
        for (call, number, error) in [
            ("clone3", libc::SYS_clone3, libc::ENOSYS),
            ("openat", libc::SYS_openat, libc::EACCES),
        ] {
            tried.push(answered(format!("{name}: {call}"), role, number, error));
        }
    }
    tried
}

fn call_with(number: c_long, arguments: &[usize]) {
    let at = |index: usize| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: the filter ends this process before the kernel looks at the arguments; if it does not, this process of a
    // test does something it should not, and says so.
    unsafe { libc::syscall(number, at(0), at(1), at(2), at(3), at(4), at(5)) };
}

/// getpid(2) by the way of 32-bit programs, which a filter for 64-bit numbers must not let through.
fn call_32() {
    // SAFETY: eax is the only register it changes.
    unsafe { std::arch::asm!("int 0x80", inout("eax") 20 => _, options(nostack)) };
}

/// A process under the role's filters that does something and then says that it is still there.
fn attempt(what: String, role: Role, does: impl FnOnce()) -> Attempt {
    let status = in_a_child(role, || {
        does();
        0
    });
    let killed = libc::WIFSIGNALED(status);
    let by = libc::WTERMSIG(status);
    // A kernel without 32-bit programs answers their way with a fault.
    let failed = killed && (by == libc::SIGSYS || by == libc::SIGSEGV && what.contains("32-bit"));
    let ending = match (failed, killed) {
        (true, _) => KILLED.to_owned(),
        (false, true) => format!("killed by signal {by}"),
        (false, false) => format!("it went on (status {status:#x})"),
    };
    Attempt {
        what,
        ending,
        failed,
    }
}

/// A call that is not made and has this error: the C library makes do without.
fn answered(what: String, role: Role, number: c_long, error: c_int) -> Attempt {
    let status = in_a_child(role, || {
        // SAFETY: what the filter does not answer finds no memory at these addresses.
        let result = unsafe { libc::syscall(number, 0, 0, 0, 0) };
        let answer = std::io::Error::last_os_error().raw_os_error();
        i32::from(result != -1 || answer != Some(error))
    });
    Attempt {
        what,
        ending: format!(
            "system call filter: {}",
            std::io::Error::from_raw_os_error(error)
        ),
        failed: status == 0,
    }
}

fn in_a_child(role: Role, does: impl FnOnce() -> c_int) -> c_int {
    // SAFETY: this process has one thread, so that the child's memory is whole.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let installed = install(Role::Starting).and_then(|()| match role {
            Role::Starting => Ok(()),
            role => install(role),
        });
        let status = if installed.is_ok() { does() } else { 99 };
        // SAFETY: the process ends.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    // SAFETY: the pointer is valid for the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}
