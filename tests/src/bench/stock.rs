//! The stock bench: a Debian cloud image with its own kernel, from the start of the VMM until its sshd answers, under
//! `crn-vmm` with its first stage and under QEMU's `q35` with SeaBIOS and GRUB. Each boot is the image's first.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use super::measure::{ANSWERS, Contestant, Measured, Plan, Sample, TAP_FD, Task};
use super::report::{Value, median};
use super::setup::{OURS, Outcome, Setup, contestant};
use crate::nested::companion;

/// The largest share of the reference's time we allow ourselves.
const GOAL: f64 = 0.7;
const REFERENCE: &str = "qemu-system-x86_64 -M q35, SeaBIOS, GRUB";
/// MiB of each guest.
const GUEST_MIB: u64 = 1024;
/// MiB of the machine they run in.
const MACHINE_MIB: u32 = 2560;
/// Two disks a run, and there are as many letters.
const MAX_RUNS: u32 = 5;
/// The files of QEMU's firmware: the BIOS and its helper for the local APIC.
const FIRMWARE: [&str; 2] = [
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/kvmvapic.bin",
];
/// A boot takes so many times as long as those of the other suites.
const STALL_FACTOR: u32 = 10;
const SEED: &str = "/seed.img";

/// Runs the bench, some minutes a boot.
///
/// # Errors
/// When the machine cannot be made or a contestant fails.
pub fn run(setup: &Setup) -> anyhow::Result<Outcome> {
    let work = tempfile::tempdir().context("make a directory")?;
    let seed = work.path().join("seed.img");
    make_seed(&seed)?;
    let image = setup.stock.join("grub-bios.raw");
    let mut machine = setup
        .machine()?
        .module("tun")
        .memory_mib(MACHINE_MIB)
        .stall(setup.stall * STALL_FACTOR)
        .program(companion("crn-instance")?, "/bin/crn-instance")
        .file(&setup.first_stage, "/first-stage")
        .file(&seed, SEED);
    for file in FIRMWARE {
        let name = Path::new(file).file_name().context("a name")?;
        machine = machine.file(file, format!("/firmware/{}", name.to_string_lossy()));
    }
    let mut contestants = Vec::new();
    let mut letters = 'a'..='z';
    let mut disk = || letters.next().map(|letter| format!("/dev/vd{letter}"));
    for _ in 0..setup.runs.clamp(1, MAX_RUNS) {
        machine = machine.disk(&image);
        contestants.push(reference(&disk().context("too many disks")?));
        if setup.vmm.is_some() {
            machine = machine.disk(&image);
            contestants.push(ours(&disk().context("too many disks")?));
        }
    }
    for contestant in &mut contestants {
        contestant.taps = 1;
    }
    let plan = Plan {
        contestants,
        runs: 1,
        finished: 0,
        marker: String::new(),
        guest_mib: GUEST_MIB,
        task: Task::Answer,
    };
    let (samples, hung) = setup.measure(machine, &plan)?;
    Ok(Outcome {
        values: evaluate(&samples).into_iter().collect(),
        hung,
    })
}

fn reference(disk: &str) -> Contestant {
    let memory = GUEST_MIB.to_string();
    let root = format!("if=none,id=root,format=raw,cache=writeback,aio=io_uring,file={disk}");
    let seed = format!("if=none,id=seed,format=raw,readonly=on,file={SEED}");
    let netdev = format!("tap,id=n,fd={TAP_FD},vhost=off");
    let argv = [
        "/bin/qemu-system-x86_64",
        "-M",
        "q35",
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-smp",
        "1",
        "-m",
        &memory,
        "-L",
        "/firmware",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-serial",
        "stdio",
        "-drive",
        &root,
        "-device",
        "virtio-blk-pci,drive=root,bootindex=0",
        "-drive",
        &seed,
        "-device",
        "virtio-blk-pci,drive=seed",
        "-netdev",
        &netdev,
        "-device",
        "virtio-net-pci,netdev=n,mac=02:00:00:00:00:01,romfile=",
        "-device",
        "virtio-rng-pci",
    ];
    contestant(REFERENCE, &argv, &[], &[])
}

fn ours(disk: &str) -> Contestant {
    let (memory, tap) = (GUEST_MIB.to_string(), TAP_FD.to_string());
    let argv = [
        "/bin/crn-instance",
        "--vmm",
        "/bin/crn-vmm",
        "--kernel",
        "/vmlinux",
        "--initramfs",
        "/first-stage",
        "--transport",
        "pci",
        "--memory",
        &memory,
        "--tap-fd",
        &tap,
        "--disk",
        disk,
        "--disk",
        SEED,
    ];
    contestant(OURS, &argv, &[], &[])
}

/// The NoCloud seed, as an operator's tools make it (packages dosfstools and mtools).
fn make_seed(target: &Path) -> anyhow::Result<()> {
    let directory = target.parent().context("a directory")?;
    let network = serde_json::json!({
        "version": 2,
        "ethernets": { "eth0": {
            "match": { "macaddress": "02:00:00:00:00:01" },
            "set-name": "eth0",
            "addresses": [format!("{ANSWERS}/24")],
        } },
    });
    let files = [
        ("meta-data", "{\"instance-id\": \"stock-bench\"}".to_owned()),
        ("user-data", "#cloud-config\n{}\n".to_owned()),
        ("network-config", network.to_string()),
    ];
    tool(
        Command::new("mkfs.vfat")
            .args(["-C", "-n", "CIDATA"])
            .arg(target)
            .arg("1024"),
    )?;
    for (name, text) in files {
        let file = directory.join(name);
        std::fs::write(&file, text)?;
        tool(
            Command::new("mcopy")
                .arg("-i")
                .arg(target)
                .arg(&file)
                .arg(format!("::{name}")),
        )?;
    }
    Ok(())
}

fn tool(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .output()
        .with_context(|| format!("run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn evaluate(samples: &[Sample]) -> Option<Value> {
    let of = |contestant: &str| {
        let picked = samples.iter().filter_map(|sample| match sample.measured {
            Measured::Answered { ns } if sample.contestant == contestant => Some(ns as f64 / 1e6),
            _ => None,
        });
        median(picked.collect())
    };
    Some(Value {
        name: "stock: spawn to sshd answers".to_owned(),
        unit: "virtual ms".to_owned(),
        value: of(OURS),
        reference: Some(of(REFERENCE)?),
        reference_name: REFERENCE.to_owned(),
        goal: Some(GOAL),
        limit: None,
    })
}
