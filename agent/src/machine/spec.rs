//! Pure: leases and paths become a [`MachineSpec`] and the guest's configuration.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crn_protocol::guest::{Code, Encoding, GuestConfig, Interface, Program, Volume, Workload};

use super::{Disk, MachineSpec, Nic};
use crate::machine::cgroup::Cgroups;
use crate::net::Plan;

/// The guest kernel's command line: serial console, the kernel's warnings on it (not `quiet`, which would silence an
/// instance's init too), reset at once on a panic (the reconciler decides what is
/// next).
pub const CMDLINE: &str = "console=ttyS0 loglevel=4 panic=-1 net.ifnames=0";

/// What every machine has.
#[derive(Debug)]
pub struct Base {
    /// The item hash.
    pub vm: String,
    /// The `crn-vmm` executable.
    pub vmm: PathBuf,
    /// Guest kernel.
    pub kernel: PathBuf,
    /// Guest initramfs.
    pub initramfs: PathBuf,
    /// The agent's run directory; the machine's is `vm/<hash>` in it.
    pub run_dir: PathBuf,
    /// The agent's state directory; the machine's is `vm/<hash>` in it.
    pub state_dir: PathBuf,
    /// The console log is begun again at this length, in bytes.
    pub console_bytes: u64,
    /// 1..=64.
    pub vcpus: u8,
    /// MiB.
    pub memory_mib: u32,
    /// vsock context identifier; [`cid`] makes one of a slot.
    pub cid: u32,
    /// User and group of its process; [`identity`] makes one of a slot.
    pub identity: u32,
    /// Where its control group is made.
    pub cgroups: Option<Cgroups>,
    /// Host name: base32 of the item hash.
    pub hostname: String,
    /// Addresses, when the machine has a network.
    pub plan: Option<Plan>,
    /// Bytes.
    pub mtu: u16,
    /// Resolvers.
    pub dns: Vec<IpAddr>,
}

/// A program's files and how it is started.
#[derive(Debug, Clone)]
pub struct ProgramParts {
    /// The runtime's squashfs in the cache.
    pub runtime: PathBuf,
    /// The code in the cache.
    pub code: PathBuf,
    /// The code's form.
    pub encoding: Encoding,
    /// The code's length.
    pub code_bytes: u64,
    /// How it is started.
    pub interface: Interface,
    /// `module:app` or a file name.
    pub entrypoint: String,
    /// Arguments of an executable.
    pub arguments: Vec<String>,
    /// Environment.
    pub variables: BTreeMap<String, String>,
}

/// One further disk, in the order of the message.
#[derive(Debug, Clone)]
pub struct VolumeParts {
    /// The image.
    pub path: PathBuf,
    /// By which the guest finds it.
    pub serial: String,
    /// Where a program's guest mounts it; an instance ignores it.
    pub mount: String,
    /// A squashfs from the cache; otherwise a private writable file.
    pub read_only: bool,
}

/// The vsock context identifier of the machine in a network slot: 0, 1 and 2 are reserved.
#[must_use]
pub const fn cid(slot: u16) -> u32 {
    slot as u32 + 3
}

/// Where the host's KVM is.
const KVM: &str = "/dev/kvm";

/// The first user and group that are machines': systemd's table of users leaves what follows to nobody
/// (<https://systemd.io/UIDS-GIDS/>, 1879048192 to 2147483647).
const FIRST_IDENTITY: u32 = 1_900_000_000;

/// The first of those of spare processes, and how many there are: drawn by lot, so that an agent need not know what its
/// predecessors have drawn.
const FIRST_SPARE: u32 = 1_910_000_000;
const SPARES: u32 = 200_000_000;

/// The user and group of a process that waits for a machine.
#[must_use]
pub fn spare_identity() -> u32 {
    FIRST_SPARE + rand::random_range(0..SPARES)
}

/// The user and group of the process of the machine in a network slot.
#[must_use]
pub const fn identity(slot: u16) -> u32 {
    FIRST_IDENTITY + slot as u32
}

/// A program's machine. `tap` comes from [`crate::net::Net::attach`], with `base.plan`.
#[must_use]
pub fn program(
    base: Base,
    tap: Option<OwnedFd>,
    parts: ProgramParts,
    volumes: Vec<VolumeParts>,
) -> MachineSpec {
    let guest = program_guest(&base, &parts, &volumes);
    let mut disks = vec![
        Disk {
            path: parts.runtime,
            read_only: true,
            serial: "runtime".to_owned(),
        },
        Disk {
            path: parts.code,
            read_only: true,
            serial: "code".to_owned(),
        },
    ];
    disks.extend(volume_disks(volumes));
    machine(base, tap, guest, disks)
}

/// An instance's machine.
#[must_use]
pub fn instance(
    base: Base,
    tap: Option<OwnedFd>,
    root: PathBuf,
    seed: PathBuf,
    volumes: Vec<VolumeParts>,
) -> MachineSpec {
    let guest = instance_guest(&base);
    let mut disks = vec![
        Disk {
            path: root,
            read_only: false,
            serial: "root".to_owned(),
        },
        Disk {
            path: seed,
            read_only: true,
            serial: "seed".to_owned(),
        },
    ];
    disks.extend(volume_disks(volumes));
    machine(base, tap, guest, disks)
}

/// What a program's guest is told; also what [`super::Machine::adopt`] needs.
#[must_use]
pub fn program_guest(base: &Base, parts: &ProgramParts, volumes: &[VolumeParts]) -> GuestConfig {
    let volumes = volumes
        .iter()
        .map(|volume| Volume {
            disk: volume.serial.clone(),
            mount: volume.mount.clone(),
            read_only: volume.read_only,
        })
        .collect();
    guest(
        base,
        Workload::Program(Box::new(Program {
            runtime: "runtime".to_owned(),
            code: Code {
                disk: "code".to_owned(),
                encoding: parts.encoding,
                bytes: parts.code_bytes,
            },
            interface: parts.interface,
            entrypoint: parts.entrypoint.clone(),
            arguments: parts.arguments.clone(),
            variables: parts.variables.clone(),
            volumes,
        })),
    )
}

/// What an instance's guest is told; also what [`super::Machine::adopt`] needs.
#[must_use]
pub fn instance_guest(base: &Base) -> GuestConfig {
    guest(
        base,
        Workload::Instance {
            root: "root".to_owned(),
        },
    )
}

fn guest(base: &Base, workload: Workload) -> GuestConfig {
    let network = base
        .plan
        .as_ref()
        .map(|plan| plan.guest(base.mtu, base.dns.clone()));
    GuestConfig {
        hostname: base.hostname.clone(),
        network,
        workload,
    }
}

fn machine(base: Base, tap: Option<OwnedFd>, guest: GuestConfig, disks: Vec<Disk>) -> MachineSpec {
    let nic = tap.zip(base.plan.as_ref()).map(|(tap, plan)| Nic {
        tap,
        mac: plan.mac,
        mtu: base.mtu,
    });
    MachineSpec {
        run_dir: base.run_dir.join("vm").join(&base.vm),
        state_dir: base.state_dir.join("vm").join(&base.vm),
        vm: base.vm,
        vmm: base.vmm,
        kvm: KVM.into(),
        console_bytes: base.console_bytes,
        kernel: base.kernel,
        initramfs: base.initramfs,
        cmdline: CMDLINE.to_owned(),
        vcpus: base.vcpus,
        memory_mib: base.memory_mib,
        disks,
        nic,
        cid: base.cid,
        identity: base.identity,
        spare: None,
        cgroups: base.cgroups,
        guest,
    }
}

fn volume_disks(volumes: Vec<VolumeParts>) -> impl Iterator<Item = Disk> {
    volumes.into_iter().map(|volume| Disk {
        path: volume.path,
        read_only: volume.read_only,
        serial: volume.serial,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Kind, Pools};

    fn base() -> Base {
        let vm = "ab".repeat(32);
        let plan = Pools::parse("172.16.0.0/12", "fec0::/64")
            .unwrap()
            .plan(7, &vm, Kind::Program)
            .unwrap();
        Base {
            vm,
            vmm: "/vmm".into(),
            kernel: "/kernel".into(),
            initramfs: "/initramfs".into(),
            run_dir: "/run/crn".into(),
            state_dir: "/var/lib/crn".into(),
            console_bytes: 1,
            vcpus: 1,
            memory_mib: 128,
            cid: cid(7),
            identity: identity(7),
            cgroups: None,
            hostname: "name".to_owned(),
            plan: Some(plan),
            mtu: 1500,
            dns: vec![],
        }
    }

    fn volume(serial: &str, name: &str, read_only: bool) -> VolumeParts {
        VolumeParts {
            path: name.into(),
            serial: serial.to_owned(),
            mount: format!("/mnt/{name}"),
            read_only,
        }
    }

    #[test]
    fn a_programs_disks_bear_the_names_its_guest_is_told() {
        let parts = ProgramParts {
            runtime: "/cache/runtime".into(),
            code: "/cache/code".into(),
            encoding: Encoding::Zip,
            code_bytes: 700,
            interface: Interface::Asgi,
            entrypoint: "main:app".to_owned(),
            arguments: vec![],
            variables: BTreeMap::new(),
        };
        let spec = program(
            base(),
            None,
            parts,
            vec![volume("vol0", "a", true), volume("vol3", "b", false)],
        );
        let disks: Vec<_> = spec
            .disks
            .iter()
            .map(|disk| (disk.serial.as_str(), disk.read_only))
            .collect();
        assert_eq!(
            disks,
            [
                ("runtime", true),
                ("code", true),
                ("vol0", true),
                ("vol3", false)
            ]
        );
        let Workload::Program(program) = spec.guest.workload else {
            panic!("not a program")
        };
        let mounts: Vec<_> = program
            .volumes
            .iter()
            .map(|v| (v.disk.as_str(), v.mount.as_str()))
            .collect();
        assert_eq!(mounts, [("vol0", "/mnt/a"), ("vol3", "/mnt/b")]);
        assert!(spec.run_dir.ends_with(format!("run/crn/vm/{}", spec.vm)));
        assert_eq!((spec.cid, spec.identity), (10, 1_900_000_007));
        assert_eq!(
            spec.guest.network.unwrap().ipv4.unwrap().0.to_string(),
            "172.16.7.2"
        );
    }

    #[test]
    fn an_instances_root_is_writable_and_its_seed_is_not() {
        let spec = instance(
            base(),
            None,
            "/root.img".into(),
            "/seed.img".into(),
            vec![volume("vol0", "a", false)],
        );
        let disks: Vec<_> = spec
            .disks
            .iter()
            .map(|disk| (disk.serial.as_str(), disk.read_only))
            .collect();
        assert_eq!(disks, [("root", false), ("seed", true), ("vol0", false)]);
        assert!(spec.nic.is_none());
    }
}
