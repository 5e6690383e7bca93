//! Monitors in reserve: started and confined before there is a machine for them, so that no start waits for that.
//!
//! Each waits in a directory of its own, `<run_dir>/spare/<identity>`, with its control socket and the note by which a
//! process is found again; its log stands in `<state_dir>/spare/<identity>.log`. Taking one renames both. A monitor whose
//! controller leaves before there is a machine ends, so none outlives its agent; what has not come so far, the next agent
//! ends.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crn_protocol::control::{Command, Report, Request};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_blocking};

use super::cgroup::Cgroup;
use super::control::Control;
use super::process::{Birth, Process};
use super::spec::spare_identity;
use super::{CONTROL_SOCKET, REPLY_TIMEOUT, VMM_LOG};

/// After a monitor that could not be started, doubled each time; and after one that ended by itself.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A started `crn-vmm` without a machine. Dropped, it ends; that blocks.
#[derive(Debug)]
pub struct Spare {
    /// Until they are a machine's.
    alive: Option<(Process, Control)>,
    /// Tells the pool of its end.
    watch: Option<JoinHandle<()>>,
    /// They are.
    taken: bool,
    dir: PathBuf,
    log: PathBuf,
}

/// The error of one that does not answer, with what it said last. Blocks.
fn silent(log: &Path, error: &io::Error) -> io::Error {
    let said = fs::read_to_string(log).unwrap_or_default();
    let last = said.trim_end().rsplit('\n').next().unwrap_or_default();
    let reason = format!("a monitor does not answer: {error} {last}");
    io::Error::new(error.kind(), reason)
}

impl Spare {
    /// Starts one and waits until it answers: it is confined then.
    async fn make(shared: &Arc<Shared>) -> io::Result<Self> {
        let all = Arc::clone(shared);
        let start = move || Self::start(&all.vmm, &all.run, &all.state);
        let mut spare = spawn_blocking(start).await.map_err(io::Error::other)??;
        let watched = match spare.answers().await {
            Ok(()) => spare.watch(shared),
            error => error,
        };
        match watched {
            Ok(()) => Ok(spare),
            Err(error) => {
                let end = move || silent(&spare.log, &error);
                Err(spawn_blocking(end).await.unwrap_or_else(io::Error::other))
            }
        }
    }

    /// Blocks; needs a runtime around it.
    fn start(vmm: &Path, run: &Path, state: &Path) -> io::Result<Self> {
        let identity = spare_identity();
        let dir = run.join(identity.to_string());
        DirBuilder::new().mode(0o700).create(&dir)?;
        // From here on an error removes what there is.
        let mut spare = Self {
            alive: None,
            watch: None,
            taken: false,
            log: state.join(format!("{identity}.log")),
            dir,
        };
        let socket = spare.dir.join(CONTROL_SOCKET);
        let listener = UnixListener::bind(&socket)?;
        let log = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&spare.log)?;
        let born = Birth {
            program: vmm,
            identity,
            cgroup: None,
            run_dir: &spare.dir,
        };
        let process = Process::spawn(born, listener.into(), log)?;
        match Control::connect(&socket) {
            Ok(control) => spare.alive = Some((process, control)),
            Err(error) => {
                // It ended before anybody could listen to it; why, it has said by then.
                process.kill()?;
                return Err(silent(&spare.log, &error));
            }
        }
        Ok(spare)
    }

    async fn answers(&mut self) -> io::Result<()> {
        let Some((_, control)) = &mut self.alive else {
            return Ok(());
        };
        let status = Command {
            id: 0,
            request: Request::Status,
        };
        let ask = async {
            control.send(&status, &[]).await?;
            match control.next().await? {
                Some((Report::Reply(_), _)) => Ok(()),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        tokio::time::timeout(REPLY_TIMEOUT, ask)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    fn watch(&mut self, shared: &Arc<Shared>) -> io::Result<()> {
        if let Some((process, _)) = &self.alive {
            let (end, shared) = (process.watch()?, Arc::clone(shared));
            self.watch = Some(tokio::spawn(async move {
                end.await;
                shared.changed.notify_one();
            }));
        }
        Ok(())
    }

    fn runs(&mut self) -> bool {
        self.alive
            .as_mut()
            .is_some_and(|(process, _)| process.runs())
    }

    /// Moves it to a machine: its directory becomes `run_dir`, which has to be empty, its log the one in `state_dir`, where
    /// the last one's is kept as `vmm.log.old`. Blocks.
    ///
    /// # Errors
    /// rename(2)'s.
    pub fn move_to(&mut self, run_dir: &Path, state_dir: &Path) -> io::Result<()> {
        let log = state_dir.join(VMM_LOG);
        match fs::rename(&log, state_dir.join(format!("{VMM_LOG}.old"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(&self.log, &log)?;
        self.log = log;
        fs::rename(&self.dir, run_dir)?;
        run_dir.clone_into(&mut self.dir);
        Ok(())
    }

    /// Makes it the machine's process, with the connection to it. Blocks.
    ///
    /// # Errors
    /// That of the control group; the process has ended then.
    pub fn into_machine(mut self, cgroup: Option<Cgroup>) -> io::Result<(Process, Control)> {
        if let (Some((process, _)), Some(cgroup)) = (&mut self.alive, cgroup) {
            process.limit(cgroup)?;
        }
        let alive = self.alive.take();
        self.taken = alive.is_some();
        alive.ok_or_else(|| io::Error::other("there is no process"))
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.abort();
        }
        if self.taken {
            return;
        }
        if let Some((process, _)) = &self.alive
            && let Err(error) = process.kill()
        {
            tracing::warn!(%error, "cannot end a monitor in reserve");
        }
        // What cannot be removed now, the next agent removes.
        let _ = fs::remove_dir_all(&self.dir);
        let _ = fs::remove_file(&self.log);
    }
}

/// Some spare monitors, made anew as they are taken or end.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    keeper: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    vmm: PathBuf,
    run: PathBuf,
    state: PathBuf,
    size: usize,
    spares: Mutex<Vec<Spare>>,
    changed: Notify,
}

impl Pool {
    /// Ends what an earlier agent left and keeps `size` spare processes of `vmm` from now on. Blocks; needs a runtime
    /// around it.
    ///
    /// # Errors
    /// The directories cannot be cleared and made, or a process of an earlier agent not be ended.
    pub fn open(vmm: &Path, run_dir: &Path, state_dir: &Path, size: usize) -> io::Result<Self> {
        let (run, state) = (run_dir.join("spare"), state_dir.join("spare"));
        end_those_left(&run)?;
        for dir in [&run, &state] {
            match fs::remove_dir_all(dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => DirBuilder::new().recursive(true).mode(0o700).create(dir)?,
            }
        }
        let shared = Arc::new(Shared {
            vmm: vmm.to_owned(),
            run,
            state,
            size,
            spares: Mutex::default(),
            changed: Notify::new(),
        });
        let keeper = tokio::runtime::Handle::current().spawn(keep(Arc::clone(&shared)));
        Ok(Self { shared, keeper })
    }

    /// One that still runs, if there is one. Needs a runtime around it.
    #[must_use]
    pub fn take(&self) -> Option<Spare> {
        self.shared.remove_ended();
        let spare = self.shared.spares().pop();
        self.shared.changed.notify_one();
        spare
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.keeper.abort();
        self.shared.spares().clear();
    }
}

impl Shared {
    fn spares(&self) -> MutexGuard<'_, Vec<Spare>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was one.
    fn remove_ended(&self) -> bool {
        let ended: Vec<Spare> = self
            .spares()
            .extract_if(.., |spare| !spare.runs())
            .collect();
        if ended.is_empty() {
            return false;
        }
        tracing::warn!(count = ended.len(), "a monitor in reserve has ended");
        spawn_blocking(move || drop(ended));
        true
    }
}

async fn keep(shared: Arc<Shared>) {
    let mut pause = FIRST_PAUSE;
    loop {
        if shared.remove_ended() {
            tokio::time::sleep(FIRST_PAUSE).await;
        }
        if shared.spares().len() >= shared.size {
            shared.changed.notified().await;
            continue;
        }
        match Spare::make(&shared).await {
            Ok(spare) => {
                shared.spares().push(spare);
                pause = FIRST_PAUSE;
            }
            Err(error) => {
                tracing::warn!(%error, "no monitor in reserve; the next try is in {pause:?}");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Ends the processes noted, or started and not noted yet, in the directories there.
fn end_those_left(run: &Path) -> io::Result<()> {
    let dirs = match fs::read_dir(run) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        dirs => dirs?,
    };
    for dir in dirs {
        let dir = dir?;
        if dir.file_type()?.is_dir()
            && let Some(process) = Process::find(&dir.path())?
        {
            process.kill()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
