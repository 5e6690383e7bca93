//! A machine with a real `/dev/kvm`, on any host.
//!
//! QEMU emulates an AMD processor with SVM; Debian's kernel and its `kvm-amd` module do the rest. On a host with VT-x
//! or SVM of its own the same machine runs under KVM. In go files and commands, all in one initramfs; out come each
//! command's ending and output. Nothing is installed and no privilege is needed.

mod accelerator;
mod cpio;
mod guest;
pub mod job;
mod kernel;
mod libraries;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context;

pub use accelerator::EMULATED_CPU;
pub use guest::{is_init, run_as_init};
pub use job::{Command, Ending};
pub use kernel::Kernel;

use accelerator::Accelerator;
use cpio::Archive;
use job::{Frame, JOB_PATH, Job, MODULE_DIR};
use libraries::{add_file, shared_libraries};

/// Output kept of one command and stream, bytes; what follows is dropped.
const MAX_OUTPUT: usize = 16 << 20;

/// What the machine's clock counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Real time.
    Wall,
    /// Executed instructions, one nanosecond each: durations repeat, whatever else the host does. One CPU, always
    /// emulated. Some runs never end, a fault of the emulation; they are seen as [`Error::Hung`].
    Instructions,
}

/// Why there is no output.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The commands were not done, or had been silent for too long, when the machine's time was up.
    #[error(
        "the nested machine was still running after {after:?}; its console ends:\n{}",
        tail(console)
    )]
    Hung {
        /// How long it ran.
        after: Duration,
        /// What stood on its console.
        console: String,
        /// What the commands had said by then.
        commands: Vec<CommandOutput>,
    },
    /// QEMU ended before the commands did.
    #[error(
        "the nested machine died ({why}); its console ends:\n{}",
        tail(console)
    )]
    Died {
        /// QEMU's exit status and what it said.
        why: String,
        /// What stood on its console.
        console: String,
    },
    /// The machine could not be made.
    #[error(transparent)]
    Setup(#[from] anyhow::Error),
}

/// What one command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandOutput {
    /// How it ended.
    pub ending: Ending,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl CommandOutput {
    /// Standard output as text.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// What the machine did.
#[derive(Debug)]
pub struct Output {
    /// One for each command, in order.
    pub commands: Vec<CommandOutput>,
    /// The kernel's console.
    pub console: String,
    /// From QEMU's start to its end, by the host's clock.
    pub elapsed: Duration,
}

#[derive(Debug)]
enum Contents {
    Host(PathBuf),
    Bytes(Vec<u8>),
}

/// A machine to be.
#[derive(Debug)]
pub struct Nested {
    files: BTreeMap<String, Contents>,
    programs: Vec<PathBuf>,
    init: Option<PathBuf>,
    modules: Vec<String>,
    disks: Vec<PathBuf>,
    words: String,
    cpus: u32,
    memory_mib: u32,
    clock: Clock,
    timeout: Duration,
    stall: Duration,
    tries: u32,
    live: bool,
}

impl Default for Nested {
    fn default() -> Self {
        Self::new()
    }
}

impl Nested {
    /// Two CPUs, 2 GiB, two minutes of real time.
    pub fn new() -> Self {
        Nested {
            files: BTreeMap::new(),
            programs: Vec::new(),
            init: None,
            modules: Vec::new(),
            disks: Vec::new(),
            words: String::new(),
            cpus: 2,
            memory_mib: 2048,
            clock: Clock::Wall,
            timeout: Duration::from_secs(120),
            stall: Duration::MAX,
            tries: 1,
            live: false,
        }
    }

    /// Puts a copy of the host's file at `guest` in the machine, mode 0755.
    #[must_use]
    pub fn file(mut self, host: impl Into<PathBuf>, guest: impl Into<String>) -> Self {
        self.files.insert(guest.into(), Contents::Host(host.into()));
        self
    }

    /// Like [`Nested::file`], for an executable; the shared libraries it needs, if any, come along.
    #[must_use]
    pub fn program(mut self, host: impl Into<PathBuf>, guest: impl Into<String>) -> Self {
        let host = host.into();
        self.programs.push(host.clone());
        self.file(host, guest)
    }

    /// Which program serves as the machine's `/init`: one that calls [`run_as_init`] when [`is_init`] says so. By
    /// default the `crn-nested` built beside the running program.
    #[must_use]
    pub fn init(mut self, program: impl Into<PathBuf>) -> Self {
        self.init = Some(program.into());
        self
    }

    /// Puts a file of these contents into the machine.
    #[must_use]
    pub fn bytes(mut self, contents: impl Into<Vec<u8>>, guest: impl Into<String>) -> Self {
        self.files
            .insert(guest.into(), Contents::Bytes(contents.into()));
        self
    }

    /// Loads a kernel module besides KVM's, `tun` for one.
    #[must_use]
    pub fn module(mut self, name: impl Into<String>) -> Self {
        self.modules.push(name.into());
        self
    }

    /// Gives the machine a copy of a raw image as `/dev/vda`, `/dev/vdb`, …; what is written to it is lost with the
    /// machine.
    #[must_use]
    pub fn disk(mut self, image: impl Into<PathBuf>) -> Self {
        self.disks.push(image.into());
        self
    }

    /// Adds words to the kernel's command line.
    #[must_use]
    pub fn words(mut self, words: &str) -> Self {
        self.words = format!("{} {words}", self.words);
        self
    }

    /// How many CPUs; one when the clock counts instructions.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Memory of the machine, files included (twice while it boots).
    #[must_use]
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// What its clock counts.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The longest the machine may run, by the host's clock.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The longest the machine may run without any output of a command, by the host's clock.
    #[must_use]
    pub fn stall(mut self, stall: Duration) -> Self {
        self.stall = stall;
        self
    }

    /// How many machines may hang or die before that is the outcome. Emulated ones now and then stand still or lose
    /// their kernel with everything in them. A command that hangs in a machine that does not is no reason for another
    /// try: it ends by its own timeout.
    #[must_use]
    pub fn tries(mut self, tries: u32) -> Self {
        self.tries = tries;
        self
    }

    /// Also copies the commands' output to ours while they run.
    #[must_use]
    pub fn live(mut self, live: bool) -> Self {
        self.live = live;
        self
    }

    /// Boots the machine, runs the commands one after the other, powers off.
    pub fn run(&self, commands: impl IntoIterator<Item = Command>) -> Result<Output, Error> {
        let job = Job {
            commands: commands.into_iter().collect(),
        };
        for left in (1..self.tries).rev() {
            match self.run_once(&job) {
                Err(error @ (Error::Hung { .. } | Error::Died { .. })) => {
                    eprintln!("{error}\nanother machine is tried, {left} left");
                }
                outcome => return outcome,
            }
        }
        self.run_once(&job)
    }

    fn run_once(&self, job: &Job) -> Result<Output, Error> {
        let work = tempfile::Builder::new()
            .prefix("crn-nested-")
            .tempdir()
            .context("make a working directory")?;
        let accelerator = Accelerator::choose(self.clock);
        let kernel = Kernel::fetch().context("get the nested machine's kernel")?;
        let initramfs = work.path().join("initramfs");
        self.write_initramfs(&initramfs, &kernel, accelerator, job)
            .context("make the nested machine's initramfs")?;

        let console = work.path().join("console");
        let started = Instant::now();
        let mut qemu = self.start_qemu(&kernel, &initramfs, &console, accelerator)?;
        let outcome = self.collect(&mut qemu, job.commands.len());
        // Already over, or hung: in either case nothing is lost.
        let _ = qemu.kill();
        let status = qemu.wait().context("wait for QEMU")?;
        let elapsed = started.elapsed();

        let console = String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).into_owned();
        match outcome {
            Collected::All(commands) => Ok(Output {
                commands,
                console,
                elapsed,
            }),
            Collected::TimedOut(commands) => Err(Error::Hung {
                after: elapsed,
                console,
                commands,
            }),
            Collected::Broken(why) => {
                let said = fs::read_to_string(work.path().join("qemu")).unwrap_or_default();
                Err(Error::Died {
                    why: format!("{why}; {status}; {}", said.trim()),
                    console,
                })
            }
        }
    }

    fn write_initramfs(
        &self,
        path: &Path,
        kernel: &Kernel,
        accelerator: Accelerator,
        job: &Job,
    ) -> anyhow::Result<()> {
        let init = match &self.init {
            Some(program) => program.clone(),
            None => companion("crn-nested")?,
        };
        let mut libraries = shared_libraries(&init)?;
        for program in &self.programs {
            libraries.extend(shared_libraries(program)?);
        }

        let mut archive = Archive::new(BufWriter::with_capacity(1 << 20, File::create(path)?));
        archive.character_device("/dev/console", 5, 1)?;
        for directory in ["/dev", "/proc", "/sys", "/tmp", "/run", MODULE_DIR] {
            archive.directory(directory)?;
        }
        add_file(&mut archive, "/init", &init)?;
        for (guest, host) in &libraries {
            if !self.files.contains_key(guest) {
                add_file(&mut archive, guest, host)?;
            }
        }
        for (guest, contents) in &self.files {
            match contents {
                Contents::Host(host) => add_file(&mut archive, guest, host)?,
                Contents::Bytes(bytes) => {
                    archive.file(guest, bytes.len() as u64, bytes.as_slice())?
                }
            }
        }
        let mut modules = vec![accelerator.kvm_module().to_owned()];
        modules.extend(self.modules.iter().cloned());
        if !self.disks.is_empty() {
            modules.extend(["virtio_pci".to_owned(), "virtio_blk".to_owned()]);
        }
        for (index, (name, contents)) in kernel.modules(&modules)?.iter().enumerate() {
            let path = format!("{MODULE_DIR}/{index:02}-{name}.ko");
            archive.file(&path, contents.len() as u64, contents.as_slice())?;
        }
        let job = serde_json::to_vec(job)?;
        archive.file(JOB_PATH, job.len() as u64, job.as_slice())?;
        archive.finish()?;
        Ok(())
    }

    fn start_qemu(
        &self,
        kernel: &Kernel,
        initramfs: &Path,
        console: &Path,
        accelerator: Accelerator,
    ) -> anyhow::Result<Child> {
        let cpus = if self.clock == Clock::Instructions {
            1
        } else {
            self.cpus
        };
        let said = File::create(console.with_file_name("qemu"))?;
        std::process::Command::new("qemu-system-x86_64")
            .args([
                "-M",
                "pc",
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args(accelerator.arguments())
            .args([
                "-smp",
                &cpus.to_string(),
                "-m",
                &self.memory_mib.to_string(),
            ])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(initramfs)
            // The machine lives for seconds and runs nobody else's code. Its timer works; on a busy host it may just not
            // tick within the moment in which the kernel looks.
            .arg("-append")
            .arg(format!(
                "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check{}",
                self.words
            ))
            .args(["-chardev", "stdio,id=results,signal=off"])
            .args([
                "-serial",
                &format!("file:{}", console.display()),
                "-serial",
                "chardev:results",
            ])
            .args(self.disks.iter().flat_map(|image| {
                let image = image.display();
                let drive = format!("if=virtio,format=raw,snapshot=on,file={image}");
                ["-drive".to_owned(), drive]
            }))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(said)
            .spawn()
            .context("start qemu-system-x86_64 (package qemu-system-x86)")
    }

    fn collect(&self, qemu: &mut Child, commands: usize) -> Collected {
        let Some(stdout) = qemu.stdout.take() else {
            return Collected::Broken("no pipe from QEMU".into());
        };
        let (sender, frames) = sync_channel(64);
        std::thread::spawn(move || {
            let mut input = BufReader::new(stdout);
            while let Some(frame) = Frame::read(&mut input).transpose() {
                let broken = frame.is_err();
                // The receiver is gone once the time is up.
                if sender.send(frame).is_err() || broken {
                    return;
                }
            }
        });
        self.gather(&frames, commands)
    }

    fn gather(&self, frames: &Receiver<io::Result<Frame>>, commands: usize) -> Collected {
        let deadline = Instant::now() + self.timeout;
        let never = CommandOutput {
            ending: Ending::NotStarted("not reached".into()),
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        let mut outputs = vec![never; commands];
        loop {
            match frames.recv_timeout(
                deadline
                    .saturating_duration_since(Instant::now())
                    .min(self.stall),
            ) {
                Ok(Ok(Frame::Done)) => return Collected::All(outputs),
                Ok(Ok(frame)) => {
                    if let Err(why) = self.store(frame, &mut outputs) {
                        return Collected::Broken(why);
                    }
                }
                Ok(Err(error)) => return Collected::Broken(error.to_string()),
                Err(RecvTimeoutError::Timeout) => return Collected::TimedOut(outputs),
                Err(RecvTimeoutError::Disconnected) => {
                    return Collected::Broken("its results ended early".into());
                }
            }
        }
    }

    fn store(&self, frame: Frame, outputs: &mut [CommandOutput]) -> Result<(), String> {
        let command = match frame {
            Frame::Stdout(command, _) | Frame::Stderr(command, _) | Frame::Ended(command, _) => {
                command
            }
            Frame::Done => return Ok(()),
        };
        let output = outputs
            .get_mut(command)
            .ok_or_else(|| format!("results of a command {command}"))?;
        match frame {
            Frame::Stdout(_, bytes) => {
                if self.live {
                    let _ = io::stdout()
                        .write_all(&bytes)
                        .and_then(|()| io::stdout().flush());
                }
                keep(&mut output.stdout, &bytes);
            }
            Frame::Stderr(_, bytes) => {
                if self.live {
                    let _ = io::stderr().write_all(&bytes);
                }
                keep(&mut output.stderr, &bytes);
            }
            Frame::Ended(_, ending) => output.ending = ending,
            Frame::Done => {}
        }
        Ok(())
    }
}

enum Collected {
    All(Vec<CommandOutput>),
    TimedOut(Vec<CommandOutput>),
    Broken(String),
}

/// The path of another program of this package, built beside the running one.
///
/// # Errors
/// When it is not there.
pub fn companion(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find the running program")?;
    // Tests run from the `deps` directory below the programs'.
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!(
                "no {name} beside {}; run `cargo build -p crn-tests --bins`",
                own.display()
            )
        })
}

fn keep(buffer: &mut Vec<u8>, bytes: &[u8]) {
    let room = MAX_OUTPUT.saturating_sub(buffer.len()).min(bytes.len());
    buffer.extend_from_slice(&bytes[..room]);
}

fn tail(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
