//! The `crn-vmm` process: started so that it outlives the agent, found again by its number and start time, killed
//! through a pidfd so that a recycled number is never hit.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use crn_protocol::start::first_of_a_namespace;
use rustix::process::Pid;
use tokio::process::Child;

use super::cgroup::Cgroup;
use super::pidfd::Pidfd;

/// Where the listening control socket stands in the child.
const CONTROL_FD: i32 = 3;
const PID_FILE: &str = "vmm.pid";
/// In the process's environment: an agent that was killed before it noted the process left nothing else to find it by.
const RUN_DIR: &str = "CRN_RUN_DIR";

/// A running `crn-vmm`.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: Pidfd,
    /// Only for those this agent started.
    child: Option<Child>,
    cgroup: Option<Cgroup>,
}

/// What a process is started with.
#[derive(Debug)]
pub struct Birth<'a> {
    /// The executable.
    pub program: &'a Path,
    /// User and group it becomes.
    pub identity: u32,
    /// What limits it.
    pub cgroup: Option<Cgroup>,
    /// Where it is noted.
    pub run_dir: &'a Path,
}

impl Process {
    /// Starts `program --control-fd 3` as the first process of a PID namespace, in a process group of its own, so that no
    /// signal for the agent's reaches it, and notes it in the run directory. It inherits nothing of the agent's environment
    /// but how to log. Blocks; needs a runtime around it.
    pub fn spawn(born: Birth<'_>, control: OwnedFd, log: File) -> io::Result<Self> {
        let (run_dir, identity) = (born.run_dir, born.identity.to_string());
        let mut command = Command::new(born.program);
        command
            .env_clear()
            .envs(std::env::var_os("RUST_LOG").map(|level| ("RUST_LOG", level)))
            .arg("--control-fd")
            .arg(CONTROL_FD.to_string())
            .args(["--uid", &identity, "--gid", &identity])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .env(RUN_DIR, run_dir)
            .process_group(0);
        command
            .fd_mappings(vec![FdMapping {
                parent_fd: control,
                child_fd: CONTROL_FD,
            }])
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let runtime = tokio::runtime::Handle::current();
        let child = first_of_a_namespace(|| {
            let _inside = runtime.enter();
            tokio::process::Command::from(command).spawn()
        })?;
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pid = pid.ok_or_else(|| io::Error::other("the process ended at once"))?;
        let mut process = Self {
            pid,
            pidfd: Pidfd::open(pid)?,
            child: Some(child),
            cgroup: None,
        };
        let limited = born.cgroup.map_or(Ok(()), |cgroup| process.limit(cgroup));
        let noted = limited.and_then(|()| start_time(pid)).and_then(|since| {
            let temporary = run_dir.join("vmm.pid.tmp");
            fs::write(&temporary, format!("{} {since}\n", pid.as_raw_nonzero()))?;
            fs::rename(&temporary, run_dir.join(PID_FILE))
        });
        if let Err(error) = noted {
            process.kill().ok();
            return Err(error);
        }
        Ok(process)
    }

    /// Finds the process noted in `run_dir`, or started for it and not noted any more; `None` when there is none that
    /// runs. Blocks; needs a runtime around it.
    pub fn find(run_dir: &Path) -> io::Result<Option<Self>> {
        let noted = match fs::read_to_string(run_dir.join(PID_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            note => parse(&note?),
        };
        let found = noted.and_then(|(pid, since)| Self::hold(run_dir, pid, since));
        Ok(found.or_else(|| {
            started_for(run_dir).and_then(|(pid, since)| Self::hold(run_dir, pid, since))
        }))
    }

    /// The process with this number, if it began then.
    fn hold(run_dir: &Path, pid: Pid, since: u64) -> Option<Self> {
        let pidfd = Pidfd::open(pid).ok()?;
        // The pidfd holds on to whoever has the number now; whether that is ours, its start time tells.
        (start_time(pid).ok()? == since).then(|| Self {
            pid,
            pidfd,
            child: None,
            cgroup: run_dir
                .file_name()
                .and_then(|vm| Cgroup::of(pid, vm.to_str()?)),
        })
    }

    /// Puts it into a control group. It has not been told of a machine yet: nothing it takes for one is missed.
    pub fn limit(&mut self, cgroup: Cgroup) -> io::Result<()> {
        let added = cgroup.add(self.pid);
        self.cgroup = Some(cgroup);
        added
    }

    /// Whether one that this agent started has not ended.
    pub fn runs(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Its end, to be waited for beside whoever holds the process.
    pub fn watch(&self) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        let pidfd = Pidfd::open(self.pid)?;
        Ok(async move {
            if let Err(error) = pidfd.ended().await {
                tracing::warn!(%error, "cannot wait for a pidfd");
            }
        })
    }

    /// Waits for the end; the exit status when it is known (not of an adopted process, nor after a signal).
    /// May be dropped and called again.
    pub async fn ended(&mut self) -> Option<i32> {
        if let Some(child) = &mut self.child {
            return child.wait().await.ok().and_then(|status| status.code());
        }
        if let Err(error) = self.pidfd.ended().await {
            tracing::warn!(%error, "cannot wait for a pidfd");
        }
        None
    }

    /// Removes what the process was limited by, after its end.
    pub fn clear(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
    }

    /// SIGKILL; one that has ended already is no error.
    pub fn kill(&self) -> io::Result<()> {
        self.pidfd.kill()
    }
}

/// Looks through all processes for the one that was started for `run_dir`: only when nothing is noted.
fn started_for(run_dir: &Path) -> Option<(Pid, u64)> {
    let mut processes = procfs::process::all_processes().ok()?.flatten();
    processes.find_map(|process| {
        let environment = process.environ().ok()?;
        let own = environment.get(OsStr::new(RUN_DIR))? == run_dir.as_os_str();
        let stat = process.stat().ok()?;
        // One that has ended and nobody waited for is not running.
        let runs = own && !matches!(stat.state, 'Z' | 'X');
        runs.then_some((Pid::from_raw(process.pid())?, stat.starttime))
    })
}

/// CPU time in microseconds and resident memory in bytes of the process noted in `run_dir`.
pub fn usage(run_dir: &Path) -> Option<(u64, u64)> {
    let (pid, since) = parse(&fs::read_to_string(run_dir.join(PID_FILE)).ok()?)?;
    let process = procfs::process::Process::new(pid.as_raw_nonzero().get()).ok()?;
    let stat = process.stat().ok()?;
    if stat.starttime != since {
        return None;
    }
    let ticks = stat.utime + stat.stime;
    let cpu_us = ticks.saturating_mul(1_000_000) / procfs::ticks_per_second();
    Some((cpu_us, stat.rss.saturating_mul(procfs::page_size())))
}

/// In clock ticks since boot; two processes with one number never share it.
fn start_time(pid: Pid) -> io::Result<u64> {
    let stat = procfs::process::Process::new(pid.as_raw_nonzero().get())
        .and_then(|process| process.stat());
    stat.map(|stat| stat.starttime).map_err(io::Error::other)
}

fn parse(note: &str) -> Option<(Pid, u64)> {
    let (pid, since) = note.trim_end().split_once(' ')?;
    let pid = pid.parse().ok().filter(|pid| *pid > 0)?;
    Some((Pid::from_raw(pid)?, since.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_recycled_process_number_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::process::id();
        let since = start_time(Pid::from_raw(own.cast_signed()).unwrap()).unwrap();
        fs::write(dir.path().join(PID_FILE), format!("{own} {since}\n")).unwrap();
        assert!(Process::find(dir.path()).unwrap().is_some());
        assert!(usage(dir.path()).is_some_and(|(_, memory)| memory > 1 << 20));
        fs::write(dir.path().join(PID_FILE), format!("{own} {}\n", since + 1)).unwrap();
        assert_eq!(usage(dir.path()), None);
        assert!(Process::find(dir.path()).unwrap().is_none());
        for damaged in ["", "0 0", "-3 1", "x y", "99999999999 1"] {
            fs::write(dir.path().join(PID_FILE), damaged).unwrap();
            assert!(Process::find(dir.path()).unwrap().is_none(), "{damaged:?}");
        }
    }
}
