//! Other processes, privileges, and the host itself: what must fail in the jail even if there were no system call filters.

use super::IDENTITY;
use super::walls::{Tried, key, pointer, text};

pub fn processes(tried: &mut Tried, host: usize) {
    let wall = "PID namespace";
    for (name, pid) in [
        ("the process outside", host),
        ("the kernel's first thread", 2),
    ] {
        let mut call = |what: &str, number, arguments: &[usize]| {
            tried.call(wall, format!("{what} {name}"), number, arguments);
        };
        call("signal", libc::SYS_kill, &[pid, 0]);
        call("kill", libc::SYS_kill, &[pid, libc::SIGKILL as usize]);
        call(
            "kill a thread of",
            libc::SYS_tgkill,
            &[pid, pid, libc::SIGKILL as usize],
        );
        call(
            "queue a signal for",
            libc::SYS_rt_sigqueueinfo,
            &[pid, 34, pointer(&[0u64; 16])],
        );
        call(
            "attach to",
            libc::SYS_ptrace,
            &[libc::PTRACE_ATTACH as usize, pid],
        );
        call(
            "seize",
            libc::SYS_ptrace,
            &[libc::PTRACE_SEIZE as usize, pid],
        );
        call("hold", libc::SYS_pidfd_open, &[pid]);
        call(
            "limit",
            libc::SYS_prlimit64,
            &[pid, libc::RLIMIT_NOFILE as usize, 0, pointer(&[0u64; 2])],
        );
        call("see the session of", libc::SYS_getsid, &[pid]);
        call("see the group of", libc::SYS_getpgid, &[pid]);
        call("see the priority of", libc::SYS_sched_getscheduler, &[pid]);
        call(
            "slow down",
            libc::SYS_setpriority,
            &[libc::PRIO_PROCESS as usize, pid, 19],
        );
        call(
            "move",
            libc::SYS_sched_setaffinity,
            &[pid, 8, pointer(&u64::MAX)],
        );
        call("compare with", libc::SYS_kcmp, &[1, pid]);
        let (local, remote) = ([0u8; 8], [0x40_0000usize, 8]);
        let local = [pointer(&local), 8];
        let vectors = [pid, pointer(&local), 1, pointer(&remote), 1];
        call("read the memory of", libc::SYS_process_vm_readv, &vectors);
        call("write the memory of", libc::SYS_process_vm_writev, &vectors);
    }
    let all = usize::MAX;
    tried.call(
        wall,
        "kill everybody",
        libc::SYS_kill,
        &[all, libc::SIGKILL as usize],
    );
    tried.call(
        "IPC namespace",
        "open shared memory of the host",
        libc::SYS_shmget,
        &[key() as usize, 4096],
    );
    tried.call(
        "limits",
        "make a message queue",
        libc::SYS_mq_open,
        &[
            text("queue").as_ptr() as usize,
            (libc::O_CREAT | libc::O_RDWR) as usize,
            0o600,
        ],
    );
    // SAFETY: the pointer is to room for the name.
    let mut name = unsafe { std::mem::zeroed::<libc::utsname>() };
    // SAFETY: as above.
    unsafe { libc::uname(&raw mut name) };
    let node: Vec<u8> = name
        .nodename
        .iter()
        .map(|byte| byte.cast_unsigned())
        .collect();
    tried.holds(
        "UTS namespace",
        "learn the host's name",
        node.starts_with(b"crn-vmm\0"),
    );
}

pub fn privileges(tried: &mut Tried) {
    let wall = "capabilities";
    tried.call("identity", "become root", libc::SYS_setuid, &[0]);
    tried.call(
        "identity",
        "become root for files",
        libc::SYS_setresuid,
        &[usize::MAX, 0, usize::MAX],
    );
    tried.call("identity", "become root's group", libc::SYS_setgid, &[0]);
    tried.call(
        "identity",
        "become the agent's next machine",
        libc::SYS_setuid,
        &[1_900_000_000],
    );
    tried.call(
        wall,
        "join a group",
        libc::SYS_setgroups,
        &[1, pointer(&0u32)],
    );
    let (header, all) = ([0x2008_0522u32, 0], [u32::MAX; 6]);
    tried.call(
        wall,
        "take all capabilities",
        libc::SYS_capset,
        &[pointer(&header), pointer(&all)],
    );
    let raise = [
        libc::PR_CAP_AMBIENT as usize,
        libc::PR_CAP_AMBIENT_RAISE as usize,
        21,
    ];
    tried.call(wall, "take CAP_SYS_ADMIN along", libc::SYS_prctl, &raise);
    tried.call(
        wall,
        "lock the way to capabilities",
        libc::SYS_prctl,
        &[libc::PR_SET_SECUREBITS as usize],
    );
    tried.call(
        "no_new_privs",
        "allow new privileges",
        libc::SYS_prctl,
        &[libc::PR_SET_NO_NEW_PRIVS as usize],
    );
    for (what, resource, value) in [
        ("more descriptors", libc::RLIMIT_NOFILE, 1 << 20),
        ("more threads", libc::RLIMIT_NPROC, 1 << 20),
        ("core dumps", libc::RLIMIT_CORE, 1 << 20),
    ] {
        let limit = [value as u64; 2];
        let arguments = [0, resource as usize, pointer(&limit)];
        tried.call(
            "limits",
            format!("allow {what}"),
            libc::SYS_prlimit64,
            &arguments,
        );
    }
    // The call itself returns 20 less the nice value.
    let own = libc::PRIO_PROCESS as usize;
    tried.call(
        "limits",
        "go first",
        libc::SYS_setpriority,
        &[own, 0, (-20i64).cast_unsigned() as usize],
    );
    let first = 1u32;
    let scheduler = [0, libc::SCHED_FIFO as usize, pointer(&first)];
    tried.call(
        "limits",
        "go before everybody",
        libc::SYS_sched_setscheduler,
        &scheduler,
    );
    // SAFETY: these fill what they are given.
    let (users, groups) = unsafe {
        let (mut users, mut groups) = ([0; 3], [0; 3]);
        libc::getresuid(&raw mut users[0], &raw mut users[1], &raw mut users[2]);
        libc::getresgid(&raw mut groups[0], &raw mut groups[1], &raw mut groups[2]);
        (users, groups)
    };
    tried.holds(
        "identity",
        "keep root's identity",
        users == [IDENTITY.uid; 3] && groups == [IDENTITY.gid; 3],
    );
    // SAFETY: no memory is passed.
    let more = unsafe { libc::getgroups(0, std::ptr::null_mut()) };
    tried.holds("identity", "keep root's groups", more == 0);
    let sets = rustix::thread::capabilities(None).unwrap();
    let none =
        sets.effective.is_empty() && sets.permitted.is_empty() && sets.inheritable.is_empty();
    tried.holds(wall, "keep a capability", none);
    // SAFETY: no memory is passed.
    let bounded =
        (0..40).all(|capability| unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability) } == 0);
    tried.holds(wall, "keep a capability for programs", bounded);
}

pub fn host_itself(tried: &mut Tried) {
    let wall = "capabilities";
    let name = text("host");
    let name = name.as_ptr() as usize;
    let zeros = [0u64; 64];
    let zeros = pointer(&zeros);
    for (what, number, arguments) in [
        ("set the clock", libc::SYS_settimeofday, vec![zeros]),
        (
            "set the clock's pace",
            libc::SYS_clock_settime,
            vec![0, zeros],
        ),
        ("name the host", libc::SYS_sethostname, vec![name, 4]),
        (
            "name the host's domain",
            libc::SYS_setdomainname,
            vec![name, 4],
        ),
        (
            "reboot",
            libc::SYS_reboot,
            vec![0xfee1_dead, 672_274_793, 0],
        ),
        (
            "load a module",
            libc::SYS_init_module,
            vec![zeros, 8, zeros],
        ),
        ("unload a module", libc::SYS_delete_module, vec![name]),
        (
            "load another kernel",
            libc::SYS_kexec_load,
            vec![0, 0, 0, 0],
        ),
        ("use I/O ports", libc::SYS_ioperm, vec![0x3f8, 8, 1]),
        ("use all I/O ports", libc::SYS_iopl, vec![3]),
        ("swap to a file", libc::SYS_swapon, vec![name]),
        ("stop swapping", libc::SYS_swapoff, vec![name]),
        ("account for processes", libc::SYS_acct, vec![name]),
        ("clear the kernel's log", libc::SYS_syslog, vec![5]),
        ("hang up the terminal", libc::SYS_vhangup, vec![]),
        ("watch all files", libc::SYS_fanotify_init, vec![0, 0]),
    ] {
        tried.call(wall, what, number, &arguments);
    }
}
