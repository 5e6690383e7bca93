//! Which system calls which threads may make, and with what.

use super::Role;

/// What a call may be given. Arguments are counted from 0 and 32 bits wide.
#[derive(Debug, Clone, Copy)]
pub enum Check {
    /// Anything.
    Any,
    /// One of these values in this argument.
    OneOf(u8, &'static [u32]),
    /// The process's own number in this argument.
    Itself(u8),
    /// In this argument, under this mask, this value.
    Masked(u8, u32, u32),
}
use Check::{Any, Itself, Masked, OneOf};

/// Memory that can be executed is never made.
const NO_EXEC: Check = Masked(2, libc::PROT_EXEC as u32, 0);

/// Every thread: memory, locks, time, its own end, and the words of a panic.
const EVERYWHERE: &[(i64, Check)] = &[
    (libc::SYS_read, Any),
    (libc::SYS_write, Any),
    (libc::SYS_close, Any),
    // What the standard library asks before it closes, in builds that check themselves.
    (libc::SYS_fcntl, OneOf(1, &[libc::F_GETFD as u32])),
    (libc::SYS_mmap, NO_EXEC),
    (libc::SYS_mprotect, NO_EXEC),
    (libc::SYS_munmap, Any),
    (libc::SYS_mremap, Any),
    (libc::SYS_madvise, Any),
    (libc::SYS_brk, Any),
    (libc::SYS_futex, Any),
    (libc::SYS_sched_yield, Any),
    (libc::SYS_clock_gettime, Any),
    (libc::SYS_clock_nanosleep, Any),
    (libc::SYS_restart_syscall, Any),
    (libc::SYS_getrandom, Any),
    (libc::SYS_getpid, Any),
    (libc::SYS_gettid, Any),
    (libc::SYS_tgkill, Itself(0)),
    (libc::SYS_rt_sigaction, Any),
    (libc::SYS_rt_sigprocmask, Any),
    (libc::SYS_rt_sigreturn, Any),
    (libc::SYS_sigaltstack, Any),
    (libc::SYS_exit, Any),
    (libc::SYS_exit_group, Any),
];

/// KVM's calls by their numbers (`linux/kvm.h`).
mod kvm {
    pub const GET_API_VERSION: u32 = 0xae00;
    pub const CREATE_VM: u32 = 0xae01;
    pub const CHECK_EXTENSION: u32 = 0xae03;
    pub const GET_VCPU_MMAP_SIZE: u32 = 0xae04;
    pub const GET_SUPPORTED_CPUID: u32 = 0xc008_ae05;
    pub const CREATE_VCPU: u32 = 0xae41;
    pub const SET_USER_MEMORY_REGION: u32 = 0x4020_ae46;
    pub const SET_TSS_ADDR: u32 = 0xae47;
    pub const SET_IDENTITY_MAP_ADDR: u32 = 0x4008_ae48;
    pub const CREATE_IRQCHIP: u32 = 0xae60;
    pub const SET_GSI_ROUTING: u32 = 0x4008_ae6a;
    pub const IRQFD: u32 = 0x4020_ae76;
    pub const IOEVENTFD: u32 = 0x4040_ae79;
    pub const RUN: u32 = 0xae80;
    pub const GET_REGS: u32 = 0x8090_ae81;
    pub const SET_REGS: u32 = 0x4090_ae82;
    pub const GET_SREGS: u32 = 0x8138_ae83;
    pub const SET_SREGS: u32 = 0x4138_ae84;
    pub const SET_MSRS: u32 = 0x4008_ae89;
    pub const SET_FPU: u32 = 0x41a0_ae8d;
    pub const GET_LAPIC: u32 = 0x8400_ae8e;
    pub const SET_LAPIC: u32 = 0x4400_ae8f;
    pub const SET_CPUID2: u32 = 0x4008_ae90;
    pub const GET_TSC_KHZ: u32 = 0xaea3;
    pub const KVMCLOCK_CTRL: u32 = 0xaead;
    pub const GET_MSR_INDEX_LIST: u32 = 0xc004_ae02;
    pub const GET_IRQCHIP: u32 = 0xc208_ae62;
    pub const SET_IRQCHIP: u32 = 0x8208_ae63;
    pub const SET_CLOCK: u32 = 0x4030_ae7b;
    pub const GET_CLOCK: u32 = 0x8030_ae7c;
    pub const GET_MSRS: u32 = 0xc008_ae88;
    pub const GET_MP_STATE: u32 = 0x8004_ae98;
    pub const SET_MP_STATE: u32 = 0x4004_ae99;
    pub const GET_VCPU_EVENTS: u32 = 0x8040_ae9f;
    pub const SET_VCPU_EVENTS: u32 = 0x4040_aea0;
    pub const GET_DEBUGREGS: u32 = 0x8080_aea1;
    pub const SET_DEBUGREGS: u32 = 0x4080_aea2;
    pub const GET_XSAVE: u32 = 0x9000_aea4;
    pub const SET_XSAVE: u32 = 0x5000_aea5;
    pub const GET_XCRS: u32 = 0x8188_aea6;
    pub const SET_XCRS: u32 = 0x4188_aea7;
}

/// Those of `asm-generic/ioctls.h` and `linux/if_tun.h`.
const FIONBIO: u32 = 0x5421;
const TUNGETIFF: u32 = 0x8004_54d2;
const TUNSETOFFLOAD: u32 = 0x4004_54d0;
const TUNSETVNETHDRSZ: u32 = 0x4004_54d8;
const TUNSETQUEUE: u32 = 0x4004_54d9;

/// A vCPU tells its own state for a snapshot; none is ever set while the machine runs.
const VCPU_MMIO: &[u32] = &[
    kvm::RUN,
    kvm::GET_REGS,
    kvm::KVMCLOCK_CTRL,
    kvm::GET_SREGS,
    kvm::GET_MSRS,
    kvm::GET_LAPIC,
    kvm::GET_MP_STATE,
    kvm::GET_VCPU_EVENTS,
    kvm::GET_DEBUGREGS,
    kvm::GET_XSAVE,
    kvm::GET_XCRS,
];
/// The guest's word on MSI-X and windows is carried out by the vCPU that says it.
const VCPU_PCI: &[u32] = &[
    kvm::RUN,
    kvm::GET_REGS,
    kvm::KVMCLOCK_CTRL,
    kvm::GET_SREGS,
    kvm::GET_MSRS,
    kvm::GET_LAPIC,
    kvm::GET_MP_STATE,
    kvm::GET_VCPU_EVENTS,
    kvm::GET_DEBUGREGS,
    kvm::GET_XSAVE,
    kvm::GET_XCRS,
    kvm::IRQFD,
    kvm::IOEVENTFD,
    kvm::SET_GSI_ROUTING,
];
/// A snapshot has interrupt controllers and the clock.
const LOOP_MMIO: &[u32] = &[
    FIONBIO,
    TUNSETOFFLOAD,
    TUNSETQUEUE,
    kvm::GET_IRQCHIP,
    kvm::GET_CLOCK,
];
/// Disks come and go.
const LOOP_PCI: &[u32] = &[
    FIONBIO,
    TUNSETOFFLOAD,
    TUNSETQUEUE,
    kvm::GET_IRQCHIP,
    kvm::GET_CLOCK,
    kvm::IRQFD,
    kvm::IOEVENTFD,
    kvm::SET_GSI_ROUTING,
];
/// Filters ask in this order, and this one is asked for the machine's whole life: what vCPUs call comes first.
const STARTING: &[u32] = &[
    kvm::RUN,
    FIONBIO,
    TUNGETIFF,
    TUNSETOFFLOAD,
    TUNSETVNETHDRSZ,
    TUNSETQUEUE,
    kvm::GET_API_VERSION,
    kvm::CREATE_VM,
    kvm::CHECK_EXTENSION,
    kvm::GET_VCPU_MMAP_SIZE,
    kvm::GET_SUPPORTED_CPUID,
    kvm::CREATE_VCPU,
    kvm::SET_USER_MEMORY_REGION,
    kvm::SET_TSS_ADDR,
    kvm::SET_IDENTITY_MAP_ADDR,
    kvm::CREATE_IRQCHIP,
    kvm::SET_GSI_ROUTING,
    kvm::IRQFD,
    kvm::IOEVENTFD,
    kvm::GET_REGS,
    kvm::SET_REGS,
    kvm::GET_SREGS,
    kvm::SET_SREGS,
    kvm::SET_MSRS,
    kvm::SET_FPU,
    kvm::GET_LAPIC,
    kvm::SET_LAPIC,
    kvm::SET_CPUID2,
    kvm::GET_TSC_KHZ,
    kvm::KVMCLOCK_CTRL,
    kvm::GET_MSR_INDEX_LIST,
    kvm::GET_IRQCHIP,
    kvm::SET_IRQCHIP,
    kvm::GET_CLOCK,
    kvm::SET_CLOCK,
    kvm::GET_MSRS,
    kvm::GET_MP_STATE,
    kvm::SET_MP_STATE,
    kvm::GET_VCPU_EVENTS,
    kvm::SET_VCPU_EVENTS,
    kvm::GET_DEBUGREGS,
    kvm::SET_DEBUGREGS,
    kvm::GET_XSAVE,
    kvm::SET_XSAVE,
    kvm::GET_XCRS,
    kvm::SET_XCRS,
];

/// The event loop: what is ready, files at positions, sockets that are there, and a stream to the controller for each
/// connection of the guest.
const EVENT_LOOP: &[(i64, Check)] = &[
    (libc::SYS_epoll_wait, Any),
    (libc::SYS_epoll_pwait, Any),
    (libc::SYS_epoll_pwait2, Any),
    (libc::SYS_epoll_ctl, Any),
    (libc::SYS_poll, Any),
    (libc::SYS_ppoll, Any),
    (libc::SYS_readv, Any),
    (libc::SYS_writev, Any),
    (libc::SYS_preadv, Any),
    (libc::SYS_pwritev, Any),
    (libc::SYS_pread64, Any),
    (libc::SYS_pwrite64, Any),
    (libc::SYS_fdatasync, Any),
    // What a descriptor is that comes while the machine runs.
    (libc::SYS_fstat, Any),
    (libc::SYS_statx, Any),
    (libc::SYS_fallocate, Any),
    (libc::SYS_ftruncate, Any),
    (libc::SYS_io_uring_enter, Any),
    (libc::SYS_accept4, Any),
    (libc::SYS_recvfrom, Any),
    (libc::SYS_recvmsg, Any),
    (libc::SYS_sendto, Any),
    (libc::SYS_sendmsg, Any),
    (libc::SYS_shutdown, Any),
    (libc::SYS_socketpair, OneOf(0, &[libc::AF_UNIX as u32])),
    (libc::SYS_getsockopt, Any),
    (
        libc::SYS_fcntl,
        OneOf(
            1,
            &[
                libc::F_GETFL as u32,
                libc::F_SETFL as u32,
                libc::F_DUPFD_CLOEXEC as u32,
            ],
        ),
    ),
];

/// Making devices, at launch and later: what a descriptor is, doorbells and rings.
const DEVICES: &[(i64, Check)] = &[
    (libc::SYS_newfstatat, Any),
    (libc::SYS_lseek, Any),
    (libc::SYS_eventfd2, Any),
    (libc::SYS_io_uring_setup, Any),
    (libc::SYS_io_uring_register, Any),
];

/// Before there is a machine: the poller and signals, threads, and the next filters.
const LAUNCH: &[(i64, Check)] = &[
    (libc::SYS_epoll_create1, Any),
    (libc::SYS_signalfd4, Any),
    // Threads and nothing else: no process, no namespace.
    (
        libc::SYS_clone,
        Masked(
            0,
            (libc::CLONE_THREAD | NEW_NAMESPACES) as u32,
            libc::CLONE_THREAD as u32,
        ),
    ),
    (libc::SYS_uname, Any),
    (libc::SYS_set_robust_list, Any),
    (libc::SYS_rseq, Any),
    (libc::SYS_sched_getaffinity, Any),
    (
        libc::SYS_prctl,
        OneOf(
            0,
            &[libc::PR_SET_NAME as u32, libc::PR_SET_NO_NEW_PRIVS as u32],
        ),
    ),
    (
        libc::SYS_seccomp,
        OneOf(0, &[libc::SECCOMP_SET_MODE_FILTER]),
    ),
];

const NEW_NAMESPACES: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// All that a thread may do.
pub fn allowed(role: Role) -> Vec<(i64, Check)> {
    let ioctl = |numbers| (libc::SYS_ioctl, OneOf(1, numbers));
    let mut all = EVERYWHERE.to_vec();
    match role {
        Role::Starting => {
            all.extend_from_slice(EVENT_LOOP);
            all.extend_from_slice(DEVICES);
            all.extend_from_slice(LAUNCH);
            all.push(ioctl(STARTING));
        }
        Role::EventLoop { pci } => {
            all.extend_from_slice(EVENT_LOOP);
            if pci {
                all.extend_from_slice(DEVICES);
            } else {
                // Streams are looked at when they come.
                all.push((libc::SYS_eventfd2, Any));
            }
            all.push(ioctl(if pci { LOOP_PCI } else { LOOP_MMIO }));
        }
        Role::Vcpu { pci } => all.push(ioctl(if pci { VCPU_PCI } else { VCPU_MMIO })),
    }
    all
}
