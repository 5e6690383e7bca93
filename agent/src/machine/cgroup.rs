//! One control group (cgroup v2) a machine: what its process, and what the kernel does for it, may take from the host.
//!
//! The service manager starts the agent in a subgroup `agent` of a group delegated to it (`Delegate=yes`,
//! `DelegateSubgroup=agent`); machines' groups stand beside that one and outlive the agent with their processes.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

const MOUNT: &str = "/sys/fs/cgroup";
const OWN: &str = "agent";
const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];
/// Microseconds: cpu.max's usual period.
const PERIOD_US: u64 = 100_000;
/// `linux/cgroup-defs.h`: CGROUP_WEIGHT_MAX, and the default of one CPU.
const MAX_WEIGHT: u64 = 10_000;
const WEIGHT: u64 = 100;
/// Kernel threads io_uring may have for one disk, of two kinds.
const WORKERS_PER_DISK: u64 = 16;
/// The event loop, and kernel threads KVM has for one machine.
const OTHER_THREADS: u64 = 32;

/// Why machines cannot be limited, or one of them.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Not cgroup v2.
    #[error("this host has no cgroup v2 hierarchy at {MOUNT} with this process in it")]
    NoHierarchy,
    /// Not started as it should be.
    #[error(
        "this process is in control group {0}, expected one named `{OWN}` of a delegated group (Delegate=yes, DelegateSubgroup={OWN})"
    )]
    NotDelegated(String),
    /// A controller is missing.
    #[error("this host's cgroup v2 has no controller `{0}` to give to machines")]
    Controller(&'static str),
    /// The disk cannot be limited.
    #[error("[sandbox] disk_bytes_per_second: {0} is not on a block device that io.max can limit")]
    Device(PathBuf),
    /// A file of the hierarchy.
    #[error("cannot {action} {path}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError + use<> {
    let path = path.to_owned();
    move |source| CgroupError::File {
        action,
        path,
        source,
    }
}

/// The delegated group.
#[derive(Debug, Clone)]
pub struct Cgroups {
    parent: PathBuf,
    /// `io.max` of every machine.
    io: Option<String>,
}

/// What one machine is sold.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// vCPUs.
    pub vcpus: u8,
    /// MiB.
    pub memory_mib: u32,
    /// How many.
    pub disks: usize,
}

impl Size {
    /// The guest's memory, and what the host spends on it: page tables and dirty bitmaps with the size of its memory,
    /// stacks and pages for a vCPU, and the monitor (3 MiB, `crn-bench memory`) with room for pages of disk images that
    /// are on their way.
    fn memory_bytes(self) -> u64 {
        let guest = u64::from(self.memory_mib) << 20;
        guest + guest / 64 + (u64::from(self.vcpus) << 20) + (64 << 20)
    }

    /// What is written, by file.
    fn settings(self) -> [(&'static str, String); 6] {
        let vcpus = u64::from(self.vcpus);
        let threads = vcpus + OTHER_THREADS + WORKERS_PER_DISK * self.disks as u64;
        [
            ("memory.max", self.memory_bytes().to_string()),
            ("memory.swap.max", "0".to_owned()),
            ("memory.oom.group", "1".to_owned()),
            ("cpu.max", format!("{} {PERIOD_US}", vcpus * PERIOD_US)),
            ("cpu.weight", (vcpus * WEIGHT).min(MAX_WEIGHT).to_string()),
            ("pids.max", threads.to_string()),
        ]
    }
}

impl Cgroups {
    /// The group that was delegated to this process, with all controllers given to its subgroups. Machines' disks on
    /// `state_dir`'s device are limited to so many bytes a second each way. Blocks.
    ///
    /// # Errors
    /// [`CgroupError`], which names what this host lacks.
    pub fn open(state_dir: &Path, disk_bytes_per_second: Option<u64>) -> Result<Self, CgroupError> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = unified(&own).ok_or(CgroupError::NoHierarchy)?;
        let parent = own
            .strip_suffix(OWN)
            .and_then(|parent| parent.strip_suffix('/'))
            .ok_or_else(|| CgroupError::NotDelegated(own.to_owned()))?;
        let parent = Path::new(MOUNT).join(parent.trim_start_matches('/'));
        Self::delegated(parent, state_dir, disk_bytes_per_second)
    }

    fn delegated(
        parent: PathBuf,
        state_dir: &Path,
        disk_bytes_per_second: Option<u64>,
    ) -> Result<Self, CgroupError> {
        let available = parent.join("cgroup.controllers");
        let found = fs::read_to_string(&available).map_err(failed("read", &available))?;
        for controller in CONTROLLERS {
            if !found.split_whitespace().any(|one| one == controller) {
                return Err(CgroupError::Controller(controller));
            }
        }
        let control = parent.join("cgroup.subtree_control");
        fs::write(&control, CONTROLLERS.map(|one| format!("+{one}")).join(" "))
            .map_err(failed("give controllers to", &control))?;
        let io = disk_bytes_per_second
            .map(|rate| {
                let device = whole_disk(state_dir)
                    .ok_or_else(|| CgroupError::Device(state_dir.to_owned()))?;
                Ok(format!("{device} rbps={rate} wbps={rate}"))
            })
            .transpose()?;
        Ok(Self { parent, io })
    }

    /// The group of a machine, empty and limited. Groups that machines have left behind go. Blocks.
    ///
    /// # Errors
    /// [`CgroupError::File`].
    pub fn make(&self, vm: &str, size: Size) -> Result<Cgroup, CgroupError> {
        self.sweep();
        let cgroup = Cgroup(self.parent.join(vm));
        match fs::create_dir(&cgroup.0) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make", &cgroup.0)(error));
            }
            _ => {}
        }
        let io = self.io.iter().map(|io| ("io.max", io.clone()));
        for (file, value) in size.settings().into_iter().chain(io) {
            let path = cgroup.0.join(file);
            match fs::write(&path, value) {
                // A kernel without swap has no such file, and none to limit.
                Err(error)
                    if file == "memory.swap.max" && error.kind() == io::ErrorKind::NotFound => {}
                result => result.map_err(failed("write", &path))?,
            }
        }
        Ok(cgroup)
    }

    /// The kernel keeps those that have processes.
    fn sweep(&self) {
        let groups = fs::read_dir(&self.parent).into_iter().flatten().flatten();
        for group in groups.filter(|group| group.file_name() != OWN) {
            fs::remove_dir(group.path()).ok();
        }
    }
}

/// A machine's group.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Moves a process there, with the threads and the memory it gets from now on.
    ///
    /// # Errors
    /// write(2)'s.
    pub fn add(&self, pid: Pid) -> io::Result<()> {
        fs::write(
            self.0.join("cgroup.procs"),
            pid.as_raw_nonzero().to_string(),
        )
    }

    /// The group of a running machine; `None` when it has none of its own.
    pub fn of(pid: Pid, vm: &str) -> Option<Self> {
        let path = format!("/proc/{}/cgroup", pid.as_raw_nonzero());
        let own = fs::read_to_string(path).ok()?;
        let own = Path::new(MOUNT).join(unified(&own)?.trim_start_matches('/'));
        (own.file_name()? == vm).then_some(Self(own))
    }

    /// Removes it; the process has ended. One that stays is swept later.
    pub fn remove(&self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "a control group stays for now");
        }
    }
}

/// The path in the cgroup v2 hierarchy, from /proc/<pid>/cgroup (cgroups(7)).
fn unified(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// `major:minor` of the disk that holds a file: io.max knows no partitions.
fn whole_disk(path: &Path) -> Option<String> {
    let device = fs::metadata(path).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let node = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let disk = if node.join("partition").exists() {
        node.parent()?.to_owned()
    } else {
        node
    };
    let numbers = fs::read_to_string(disk.join("dev")).ok()?;
    Some(numbers.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        vcpus: 2,
        memory_mib: 2048,
        disks: 3,
    };

    /// A directory that looks like a delegated group.
    fn group(controllers: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.controllers"), controllers).unwrap();
        dir
    }

    #[test]
    fn a_machines_limits_are_what_it_was_sold_and_the_overhead() {
        let dir = group("cpuset cpu io memory pids\n");
        let cgroups = Cgroups::delegated(dir.path().to_owned(), dir.path(), None).unwrap();
        let control = fs::read_to_string(dir.path().join("cgroup.subtree_control")).unwrap();
        assert_eq!(control, "+cpu +io +memory +pids");
        cgroups.make("abc", SIZE).unwrap();
        let read = |file: &str| fs::read_to_string(dir.path().join("abc").join(file)).unwrap();
        assert_eq!(read("cpu.max"), "200000 100000");
        assert_eq!(read("cpu.weight"), "200");
        assert_eq!(read("pids.max"), "82");
        assert_eq!(
            read("memory.max"),
            ((2048 + 32 + 2 + 64u64) << 20).to_string()
        );
        assert!(!dir.path().join("abc/io.max").exists());
    }

    #[test]
    fn what_a_host_lacks_is_named() {
        let dir = group("cpu io pids");
        let error = Cgroups::delegated(dir.path().to_owned(), dir.path(), None).unwrap_err();
        assert!(error.to_string().contains("`memory`"), "{error}");
        let dir = group("cpu io memory pids");
        let error = Cgroups::delegated(dir.path().to_owned(), Path::new("/proc"), Some(1));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("/proc is not on a block device"), "{error}");
    }

    #[test]
    fn the_path_is_that_of_the_second_version() {
        let text = "4:memory:/one\n0::/system.slice/crn-agent.service/agent\n";
        assert_eq!(unified(text), Some("/system.slice/crn-agent.service/agent"));
        assert_eq!(unified("1:cpu:/\n"), None);
    }
}
