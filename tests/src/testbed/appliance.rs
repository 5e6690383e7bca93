//! The appliance in QEMU: the released disk image under OVMF, with user-mode networking and forwarded ports.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::products::product;
use super::settings::{self, Accounts, Ports};
use super::{credentials, probe};
use crate::nested::EMULATED_CPU;

/// The line the appliance prints on its serial console when its services are up.
const READY: &str = "CRN-APPLIANCE-READY";
/// What the serial console has shown, in the appliance's directory.
const CONSOLE: &str = "console.log";
/// What a Linux kernel says when it cannot go on.
const KERNEL_DIED: [&str; 4] = [
    "Oops: ",
    "kernel BUG at ",
    "BUG: unable to handle ",
    "Kernel panic ",
];
/// From power-on to [`READY`]: minutes on an emulated processor, seconds on a real one.
const BOOT_DEADLINE: Duration = Duration::from_secs(900);
/// Apparent size of the appliance's disk; the file is sparse.
const DISK_BYTES: u64 = 64 << 30;
const MEMORY_MIB: u32 = 6144;

/// A booted appliance; dropped, it is switched off and its disk deleted.
#[derive(Debug)]
pub struct Appliance {
    child: Child,
    directory: PathBuf,
    /// Where its services are reached.
    pub ports: Ports,
    /// From power-on to ready.
    pub boot_time: Duration,
}

impl Appliance {
    /// Writes the operator's files onto a fresh copy of the image, boots it and waits until it is ready.
    ///
    /// # Errors
    /// When something is missing or the machine does not get ready; the end of its console is in the error.
    pub fn boot(
        directory: &Path,
        ports: Ports,
        accounts: &Accounts,
        with_probe: bool,
    ) -> Result<Self> {
        fs::create_dir_all(directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        let disk = directory.join("disk.raw");
        flash(&disk, &ports, accounts)?;
        let started = Instant::now();
        let child = power_on(directory, &disk, &ports, with_probe)?;
        let mut appliance = Self {
            child,
            directory: directory.to_owned(),
            ports,
            boot_time: Duration::ZERO,
        };
        appliance.wait_until_ready()?;
        appliance.boot_time = started.elapsed();
        Ok(appliance)
    }

    /// Cuts the power and boots the same disk again.
    ///
    /// # Errors
    /// As for [`Appliance::boot`].
    pub fn power_cycle(&mut self, with_probe: bool) -> Result<()> {
        self.child.kill().context("cutting the power")?;
        self.child.wait()?;
        let started = Instant::now();
        self.child = power_on(
            &self.directory,
            &self.directory.join("disk.raw"),
            &self.ports,
            with_probe,
        )?;
        self.wait_until_ready()?;
        self.boot_time = started.elapsed();
        Ok(())
    }

    /// The file that holds everything the serial console has shown.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.directory.join(CONSOLE)
    }

    /// The last lines of the serial console.
    #[must_use]
    pub fn console_tail(&self, lines: usize) -> String {
        let text = fs::read(self.console()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Whether the kernel of the appliance of this directory broke down on an emulated processor, which now and then
    /// loses a register of one that runs virtual machines. The services' own lines carry their names after the time.
    #[must_use]
    pub fn lost_to_emulation(directory: &Path) -> bool {
        let text = fs::read(directory.join(CONSOLE)).unwrap_or_default();
        Acceleration::of_this_host() == Acceleration::Emulation
            && String::from_utf8_lossy(&text).lines().any(|line| {
                let said = line.split_once("] ").map_or("", |(_, said)| said);
                KERNEL_DIED.iter().any(|words| said.starts_with(words))
            })
    }

    /// Waits until QEMU ends by itself or the process is told to stop.
    ///
    /// # Errors
    /// wait(2)'s.
    pub fn wait(&mut self) -> Result<()> {
        self.child.wait().context("waiting for the appliance")?;
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let output = self.child.stdout.take().context("the console's pipe")?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.console())
            .context("opening the console's log")?;
        let (sender, ready) = mpsc::channel();
        thread::spawn(move || record(output, log, &sender));
        match ready.recv_timeout(BOOT_DEADLINE) {
            Ok(()) => Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                bail!(
                    "not ready after {BOOT_DEADLINE:?}; the console's end:\n{}",
                    self.console_tail(60)
                )
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!(
                    "the machine ended before it was ready; the console's end:\n{}",
                    self.console_tail(60)
                )
            }
        }
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(self.directory.join("disk.raw"));
    }
}

/// Copies the console to its log for as long as the machine lives and says when it is ready.
fn record(output: impl std::io::Read, mut log: File, ready: &mpsc::Sender<()>) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let _ = log.write_all(&line);
        if String::from_utf8_lossy(&line).contains(READY) {
            let _ = ready.send(());
        }
        line.clear();
    }
}

/// What `dd` and a text editor do for an operator: the image on a disk, the configuration on its EFI partition.
fn flash(disk: &Path, ports: &Ports, accounts: &Accounts) -> Result<()> {
    let image = product("appliance.raw")?;
    run(Command::new("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .arg(&image)
        .arg(disk))?;
    let offset = esp_offset(disk)?;
    let target = format!("{}@@{offset}", disk.display());
    run(Command::new("mmd").args(["-D", "s", "-i", &target, "::/crn"]))?;
    for (name, text) in [
        ("agent.toml", settings::agent(ports, accounts)),
        ("ccn-lite.toml", settings::ccn(ports, accounts)),
    ] {
        let file = disk.with_file_name(name);
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        run(Command::new("mcopy")
            .args(["-o", "-i", &target])
            .arg(&file)
            .arg(format!("::/crn/{name}")))?;
    }
    OpenOptions::new()
        .write(true)
        .open(disk)
        .and_then(|file| file.set_len(DISK_BYTES))
        .with_context(|| format!("growing {}", disk.display()))
}

/// Byte offset of the EFI system partition.
fn esp_offset(disk: &Path) -> Result<u64> {
    const ESP_TYPE: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
    let output = Command::new("sfdisk")
        .arg("-J")
        .arg(disk)
        .output()
        .context("starting sfdisk")?;
    let table: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("sfdisk's answer")?;
    let table = &table["partitiontable"];
    let sector = table["sectorsize"].as_u64().unwrap_or(512);
    table["partitions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|p| {
            p["type"]
                .as_str()
                .is_some_and(|t| t.eq_ignore_ascii_case(ESP_TYPE))
        })
        .and_then(|p| p["start"].as_u64())
        .map(|start| start * sector)
        .with_context(|| format!("{} has no EFI system partition", disk.display()))
}

fn power_on(directory: &Path, disk: &Path, ports: &Ports, with_probe: bool) -> Result<Child> {
    let acceleration = Acceleration::of_this_host();
    let mut units = acceleration.units();
    if with_probe {
        units.extend(probe::units());
    }
    let variables = directory.join("efi-variables.fd");
    if !variables.exists() {
        fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &variables)
            .context("copying OVMF's variables")?;
    }
    let mut forwards = format!(
        "user,id=n0,hostfwd=tcp:127.0.0.1:{}-:4024,hostfwd=tcp:127.0.0.1:{1}-:{1}",
        ports.ccn, ports.crn
    );
    for port in ports.first_forward..ports.first_forward + Ports::FORWARDED {
        forwards.push_str(&format!(",hostfwd=tcp:127.0.0.1:{port}-:{port}"));
    }
    if with_probe {
        forwards.push_str(&format!(",hostfwd=tcp:127.0.0.1:{}-:4999", ports.probe));
    }
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-M", "q35", "-m", &MEMORY_MIB.to_string(), "-smp", "2"]);
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-serial",
        "stdio",
    ]);
    command.args(acceleration.arguments());
    command.args([
        "-drive",
        "if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
    ]);
    command.args([
        "-drive",
        &format!("if=pflash,format=raw,unit=1,file={}", variables.display()),
    ]);
    command.args([
        "-drive",
        &format!(
            "if=none,id=d0,format=raw,discard=unmap,cache=writeback,file={}",
            disk.display()
        ),
    ]);
    command.args([
        "-device",
        "virtio-blk-pci,drive=d0",
        "-device",
        "virtio-rng-pci",
    ]);
    command.args(["-netdev", &forwards, "-device", "virtio-net-pci,netdev=n0"]);
    command.args(credentials::qemu_arguments(&units));
    let errors = File::create(directory.join("qemu.log")).context("creating QEMU's log")?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors);
    command.spawn().context("starting qemu-system-x86_64")
}

/// How the appliance's processor is made. Either way it has virtualization itself, so `/dev/kvm` inside is real.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Acceleration {
    Kvm,
    /// A processor with SVM, in software.
    Emulation,
}

impl Acceleration {
    fn of_this_host() -> Self {
        let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let has = |flag: &str| flags.split_whitespace().any(|f| f == flag);
        let opens = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/kvm")
                .is_ok()
        };
        if (has("vmx") || has("svm")) && opens() {
            Self::Kvm
        } else {
            Self::Emulation
        }
    }

    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["-accel", "kvm", "-cpu", "host"],
            Self::Emulation => &[
                "-accel",
                "tcg,thread=multi,tb-size=1024",
                "-cpu",
                EMULATED_CPU,
            ],
        }
    }

    /// The emulation now and then loses a guest (as a triple fault) whose vCPU moves between emulated processors, so
    /// there the virtual machines stay on one.
    fn units(self) -> Vec<(&'static str, String)> {
        match self {
            Self::Kvm => Vec::new(),
            Self::Emulation => vec![(
                "systemd.unit-dropin.crn-agent.service",
                "[Service]\nCPUAffinity=1\n".to_owned(),
            )],
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
