//! The other side: what `/init` does in the machine.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, mount, mount_bind, mount_move};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use rustix::system::RebootCommand;
use rustix::termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr};

use super::job::{Command, Ending, Frame, JOB_PATH, Job, MODULE_DIR};

type Results = Arc<Mutex<File>>;

/// Whether this process is the `/init` of a nested machine.
pub fn is_init() -> bool {
    std::process::id() == 1 && Path::new(JOB_PATH).exists()
}

/// Mounts, loads modules, runs the job and powers off. Problems go to the console; the host sees that `Done` is
/// missing.
pub fn run_as_init() -> ! {
    if let Err(error) = run() {
        eprintln!("nested: {error:#}");
    }
    rustix::fs::sync();
    // Only failure returns; then PID 1 ends, the kernel panics and, with panic=-1, the machine goes down all the same.
    let _ = rustix::system::reboot(RebootCommand::PowerOff);
    std::process::exit(1)
}

fn run() -> anyhow::Result<()> {
    leave_rootfs().context("get a root of its own")?;
    for (source, target, kind) in [
        ("devtmpfs", "/dev", "devtmpfs"),
        ("proc", "/proc", "proc"),
        ("sysfs", "/sys", "sysfs"),
        ("tmpfs", "/dev/shm", "tmpfs"),
        ("tmpfs", "/tmp", "tmpfs"),
        ("tmpfs", "/run", "tmpfs"),
    ] {
        fs::create_dir_all(target).with_context(|| format!("make {target}"))?;
        mount(source, target, kind, MountFlags::empty(), None)
            .with_context(|| format!("mount {target}"))?;
    }
    load_modules().context("load modules")?;

    let results = File::options()
        .read(true)
        .write(true)
        .open("/dev/ttyS1")
        .context("open /dev/ttyS1")?;
    let mut terminal = tcgetattr(&results).context("tcgetattr")?;
    terminal.make_raw();
    tcsetattr(&results, OptionalActions::Now, &terminal).context("tcsetattr")?;
    let results = Arc::new(Mutex::new(results));

    let job: Job = serde_json::from_slice(&fs::read(JOB_PATH).context("read the job")?)
        .context("parse the job")?;
    for (index, command) in job.commands.iter().enumerate() {
        let ending = run_command(index, command, &results)?;
        send(&results, &Frame::Ended(index, ending))?;
    }
    send(&results, &Frame::Done)?;
    tcdrain(&*results.lock().unwrap_or_else(PoisonError::into_inner))?;
    Ok(())
}

/// Makes the same files a mount of their own: the kernel's first root cannot be pivoted away from, as a jail wants to.
fn leave_rootfs() -> anyhow::Result<()> {
    const ROOT: &str = "/root";
    fs::create_dir_all(ROOT)?;
    mount_bind("/", ROOT)?;
    std::env::set_current_dir(ROOT)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    Ok(std::env::set_current_dir("/")?)
}

fn load_modules() -> anyhow::Result<()> {
    let mut paths: Vec<_> = fs::read_dir(MODULE_DIR)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths {
        rustix::system::finit_module(File::open(&path)?, c"", 0)
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn run_command(index: usize, command: &Command, results: &Results) -> anyhow::Result<Ending> {
    let Some((program, arguments)) = command.argv.split_first() else {
        return Ok(Ending::NotStarted("empty command".into()));
    };
    let spawned = std::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/bin:/usr/bin")
        .envs(&command.env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return Ok(Ending::NotStarted(format!("{program}: {error}"))),
    };
    let copiers = [
        child.stdout.take().map(|pipe| {
            copy(pipe, results.clone(), move |bytes| {
                Frame::Stdout(index, bytes)
            })
        }),
        child.stderr.take().map(|pipe| {
            copy(pipe, results.clone(), move |bytes| {
                Frame::Stderr(index, bytes)
            })
        }),
    ];
    let ending = wait(&mut child, command)?;
    for copier in copiers.into_iter().flatten() {
        // The group is dead, so the pipes are closed; a thread that panicked has said so on the console.
        let _ = copier.join();
    }
    Ok(ending)
}

/// Waits for the child, at most its time; then ends its whole process group, so that nothing outlives its command.
fn wait(child: &mut Child, command: &Command) -> anyhow::Result<Ending> {
    let pid = Pid::from_child(child);
    let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?;
    let timeout = Timespec {
        tv_sec: i64::try_from(command.timeout.as_secs())?,
        tv_nsec: command.timeout.subsec_nanos().into(),
    };
    let ended =
        poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout)).context("poll")? != 0;
    // Fails when nothing of the group is left, as it should.
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    let status = child.wait().context("wait")?;
    // Orphans come to PID 1.
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    Ok(match (ended, status.code(), status.signal()) {
        (false, ..) => Ending::TimedOut,
        (true, Some(code), _) => Ending::Exited(code),
        (true, None, signal) => Ending::Killed(signal.unwrap_or_default()),
    })
}

fn copy(
    mut from: impl Read + Send + 'static,
    results: Results,
    frame: impl Fn(Vec<u8>) -> Frame + Send + 'static,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = vec![0; 4096];
        loop {
            match from.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    if let Err(error) = send(&results, &frame(buffer[..length].to_vec())) {
                        eprintln!("nested: write results: {error}");
                        return;
                    }
                }
            }
        }
    })
}

fn send(results: &Results, frame: &Frame) -> io::Result<()> {
    frame.write(&mut *results.lock().unwrap_or_else(PoisonError::into_inner))
}
