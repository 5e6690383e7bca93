//! What must fail in the jail even if there were no system call filters.

use std::ffi::{CString, c_int, c_long, c_void};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use super::{Attempt, IDENTITY, rights};

/// Where [`Host::describe`] is passed on.
pub const HOST: &str = "CRN_TEST_HOST";

/// Things of the host that would be reached by who got out.
pub struct Host {
    directory: tempfile::TempDir,
    _path: UnixListener,
    _abstract: UnixListener,
    segment: c_int,
}

impl Host {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = UnixListener::bind(directory.path().join("socket")).unwrap();
        let name = SocketAddr::from_abstract_name(abstract_name()).unwrap();
        std::fs::write(directory.path().join("secret"), "secret").unwrap();
        // SAFETY: no memory is passed.
        let segment = unsafe { libc::shmget(key(), 4096, libc::IPC_CREAT | 0o666) };
        assert!(segment >= 0);
        Self {
            _path: path,
            _abstract: UnixListener::bind_addr(&name).unwrap(),
            directory,
            segment,
        }
    }

    /// Its process and its directory.
    pub fn describe(&self) -> String {
        format!("{} {}", std::process::id(), self.directory.path().display())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // SAFETY: no memory is passed.
        unsafe { libc::shmctl(self.segment, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

fn abstract_name() -> &'static [u8] {
    b"crn-vmm-escape-test"
}

pub fn key() -> libc::key_t {
    0x0c12_6e01
}

/// Makes a system call with numbers, or pointers to what outlives it.
fn call(number: c_long, arguments: &[usize]) -> c_long {
    let at = |index: usize| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: pointers among the arguments are to memory of the caller that is as long as the call wants.
    unsafe { libc::syscall(number, at(0), at(1), at(2), at(3), at(4), at(5)) }
}

pub struct Tried(Vec<Attempt>);

impl Tried {
    /// Fails with an error, by this wall.
    pub fn call(
        &mut self,
        wall: &str,
        what: impl Into<String>,
        number: c_long,
        arguments: &[usize],
    ) {
        let result = call(number, arguments);
        self.result(wall, what, result);
    }

    pub fn result(&mut self, wall: &str, what: impl Into<String>, result: c_long) {
        let error = std::io::Error::last_os_error();
        let ending = match result {
            0.. => format!("it returned {result}"),
            _ if error.raw_os_error() == Some(libc::ENOSYS) => "not in this kernel".to_owned(),
            _ => format!("{wall}: {error}"),
        };
        self.0.push(Attempt {
            what: what.into(),
            ending,
            failed: result < 0,
        });
    }

    /// Holds, or the wall has a hole.
    pub fn holds(&mut self, wall: &str, what: &str, holds: bool) {
        self.0.push(Attempt {
            what: what.to_owned(),
            ending: wall.to_owned(),
            failed: holds,
        });
    }
}

pub fn text(path: &str) -> CString {
    CString::new(path).unwrap()
}

pub fn pointer<T: ?Sized>(to: &T) -> usize {
    std::ptr::from_ref(to).cast::<c_void>() as usize
}

pub fn attempts(host: &str) -> Vec<Attempt> {
    let (pid, directory) = host.split_once(' ').unwrap();
    let pid: usize = pid.parse().unwrap();
    let mut tried = Tried(Vec::new());
    files(&mut tried, directory);
    mounts(&mut tried);
    sockets(&mut tried, directory);
    rights::processes(&mut tried, pid);
    rights::privileges(&mut tried);
    rights::host_itself(&mut tried);
    tried.0
}

fn files(tried: &mut Tried, directory: &str) {
    let wall = "empty root";
    let here = libc::AT_FDCWD as usize;
    for path in [
        "/etc/passwd",
        "/etc/shadow",
        "/proc/self/status",
        "/proc/1/root",
        "/proc/sys/kernel/core_pattern",
        "/dev/kvm",
        "/dev/null",
        "/dev/mem",
        "/sys/kernel",
        "/sys/fs/cgroup/cgroup.procs",
        "/run/crn/vm",
        "/var/lib/crn/agent.sqlite",
        "/usr/bin/crn-vmm",
        "/tmp",
        "../../../../etc/passwd",
        &format!("{directory}/secret"),
    ] {
        let name = text(path);
        tried.call(
            wall,
            format!("read {path}"),
            libc::SYS_openat,
            &[here, name.as_ptr() as usize],
        );
    }
    let root = text("/");
    let root = root.as_ptr() as usize;
    let list = libc::O_DIRECTORY as usize;
    tried.call("Landlock", "list /", libc::SYS_openat, &[here, root, list]);
    let new = text("/new");
    let new = new.as_ptr() as usize;
    let create = (libc::O_CREAT | libc::O_RDWR) as usize;
    let wall = "read-only root";
    tried.call(
        wall,
        "create a file",
        libc::SYS_openat,
        &[here, new, create, 0o600],
    );
    let temporary = (libc::O_TMPFILE | libc::O_RDWR) as usize;
    tried.call(
        wall,
        "create a nameless file",
        libc::SYS_openat,
        &[here, root, temporary, 0o600],
    );
    tried.call(wall, "make a directory", libc::SYS_mkdir, &[new, 0o700]);
    tried.call(
        wall,
        "make a symbolic link",
        libc::SYS_symlink,
        &[root, new],
    );
    tried.call(
        wall,
        "make a pipe with a name",
        libc::SYS_mknod,
        &[new, (libc::S_IFIFO | 0o600) as usize],
    );
    let disk = libc::makedev(8, 0) as usize;
    let block = (libc::S_IFBLK | 0o600) as usize;
    tried.call(
        wall,
        "make a block device",
        libc::SYS_mknod,
        &[new, block, disk],
    );
    tried.call(wall, "change /'s mode", libc::SYS_chmod, &[root, 0o777]);
    tried.call(
        wall,
        "change /'s owner",
        libc::SYS_chown,
        &[root, IDENTITY.uid as usize, 0],
    );
    // struct file_handle: 8 bytes of type 1.
    let handle = [8u32, 1, 0, 0];
    tried.call(
        "capabilities",
        "open a file by its handle",
        libc::SYS_open_by_handle_at,
        &[here, pointer(&handle)],
    );
    tried.call(
        "empty root",
        "run a program",
        libc::SYS_execve,
        &[text("/bin/sh").as_ptr() as usize],
    );
}

fn mounts(tried: &mut Tried) {
    let wall = "capabilities";
    let (root, none) = (text("/"), text("none"));
    let (root, none) = (root.as_ptr() as usize, none.as_ptr() as usize);
    for kind in ["tmpfs", "proc", "sysfs", "cgroup2", "devtmpfs"] {
        let name = text(kind);
        let kind = format!("mount {kind}");
        tried.call(
            wall,
            kind,
            libc::SYS_mount,
            &[none, root, name.as_ptr() as usize],
        );
    }
    tried.call(
        wall,
        "bind a directory",
        libc::SYS_mount,
        &[root, root, 0, libc::MS_BIND as usize],
    );
    let writable = (libc::MS_REMOUNT) as usize;
    tried.call(
        wall,
        "make / writable",
        libc::SYS_mount,
        &[none, root, 0, writable],
    );
    tried.call(wall, "unmount /", libc::SYS_umount2, &[root]);
    tried.call(wall, "pivot_root", libc::SYS_pivot_root, &[root, root]);
    tried.call(wall, "chroot", libc::SYS_chroot, &[root]);
    let tmpfs = text("tmpfs");
    tried.call(
        wall,
        "open a file system",
        libc::SYS_fsopen,
        &[tmpfs.as_ptr() as usize],
    );
    let clone = 1;
    tried.call(
        wall,
        "copy a mount",
        libc::SYS_open_tree,
        &[libc::AT_FDCWD as usize, root, clone],
    );
    for (what, flag) in [
        ("mount", libc::CLONE_NEWNS),
        ("PID", libc::CLONE_NEWPID),
        ("network", libc::CLONE_NEWNET),
        ("UTS", libc::CLONE_NEWUTS),
        ("IPC", libc::CLONE_NEWIPC),
        ("cgroup", libc::CLONE_NEWCGROUP),
    ] {
        let what = format!("make a {what} namespace");
        tried.call(wall, what, libc::SYS_unshare, &[flag as usize]);
    }
}

fn sockets(tried: &mut Tried, directory: &str) {
    let socket = |family: c_int, kind: c_int, protocol: c_int| {
        // SAFETY: no memory is passed.
        unsafe { libc::socket(family, kind, protocol) }
    };
    for (what, port) in [
        ("ssh", 22u16),
        ("the compute node", 4020),
        ("a web server", 80),
    ] {
        let address = inet([127, 0, 0, 1], port);
        let tcp = socket(libc::AF_INET, libc::SOCK_STREAM, 0) as usize;
        let (to, size) = (pointer(&address), size_of_val(&address));
        let what = format!("connect to {what} of the host");
        tried.call(
            "network namespace, Landlock",
            what,
            libc::SYS_connect,
            &[tcp, to, size],
        );
    }
    let address = inet([9, 9, 9, 9], 53);
    let (to, size) = (pointer(&address), size_of_val(&address));
    let tcp = socket(libc::AF_INET, libc::SOCK_STREAM, 0) as usize;
    tried.call(
        "network namespace, Landlock",
        "connect to the internet",
        libc::SYS_connect,
        &[tcp, to, size],
    );
    let udp = socket(libc::AF_INET, libc::SOCK_DGRAM, 0) as usize;
    let word = b"word";
    let send = [udp, pointer(word), word.len(), 0, to, size];
    tried.call(
        "network namespace",
        "send a datagram to the internet",
        libc::SYS_sendto,
        &send,
    );
    let raw = libc::SOCK_RAW;
    tried.result(
        "capabilities",
        "a raw IP socket",
        socket(libc::AF_INET, raw, libc::IPPROTO_ICMP).into(),
    );
    let everything = c_int::from(0x0300u16);
    tried.result(
        "capabilities",
        "a packet socket",
        socket(libc::AF_PACKET, raw, everything).into(),
    );
    let name = [&b"\0"[..], abstract_name()].concat();
    for (wall, what, name) in [
        (
            "network namespace, Landlock",
            "an abstract socket of the host",
            name.as_slice(),
        ),
        (
            "empty root",
            "a socket of the host",
            format!("{directory}/socket").as_bytes(),
        ),
        ("empty root", "systemd's socket", b"/run/systemd/private"),
        (
            "empty root",
            "the system bus",
            b"/run/dbus/system_bus_socket",
        ),
    ] {
        // SAFETY: a sockaddr_un is plain data; all zeros is a valid one.
        let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        address.sun_family = libc::AF_UNIX as u16;
        for (to, from) in address.sun_path.iter_mut().zip(name) {
            *to = from.cast_signed();
        }
        let stream = socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) as usize;
        let arguments = [stream, pointer(&address), 2 + name.len()];
        tried.call(
            wall,
            format!("connect to {what}"),
            libc::SYS_connect,
            &arguments,
        );
    }
    for interface in ["eth0", "ens3", "crn0", "vmtap0", "br0"] {
        // SAFETY: the name is terminated.
        let index = unsafe { libc::if_nametoindex(text(interface).as_ptr()) };
        tried.holds("network namespace", &format!("see {interface}"), index == 0);
    }
    tried.holds("network namespace", "find an interface but the loopback", {
        // SAFETY: the list is freed below, and only its first names are looked at.
        let list = unsafe { libc::if_nameindex() };
        let mut count = 0;
        // SAFETY: the list ends with an index of 0.
        while !list.is_null() && unsafe { (*list.add(count)).if_index } != 0 {
            count += 1;
        }
        // SAFETY: it came from if_nameindex.
        unsafe { libc::if_freenameindex(list) };
        count <= 1
    });
}

fn inet(address: [u8; 4], port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(address),
        },
        sin_zero: [0; 8],
    }
}
