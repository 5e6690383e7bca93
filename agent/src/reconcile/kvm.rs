//! The host as it is: `crn-vmm` machines, TAP devices, nftables, files.

mod parts;
mod running;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aleph_message::ItemHash;
use crn_protocol::guest::{self, GuestConfig};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::net::UnixStream;

use self::parts::{InstanceSeed, file, program_parts, seed_volumes, volume_parts, volume_path};
use self::running::KvmGuest;
use super::host::{Guest, HostError, Hypervisor, NetworkOf, Place};
use crate::config::Config;
use crate::intake::workload::{Body, Resolved, Volume};
use crate::ledger::Kind;
use crate::machine::Machine;
use crate::machine::cgroup::Cgroups;
use crate::machine::pool::Pool;
use crate::machine::spec::{self, Base, VolumeParts};
use crate::metrics::history::Counters;
use crate::net::{self, Net};
use crate::volume;

/// How long a VMM has to end when told to, before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// The host.
pub struct Kvm {
    config: Arc<Config>,
    net: Net,
    dns: Vec<IpAddr>,
    cgroups: Option<Cgroups>,
    pool: Pool,
    /// The machines that run, for those who ask about one.
    machines: Mutex<HashMap<ItemHash, Machine>>,
}

impl Kvm {
    /// The host, with resolvers for the guests, a place for their control groups, and monitors in reserve.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        net: Net,
        dns: Vec<IpAddr>,
        cgroups: Option<Cgroups>,
        pool: Pool,
    ) -> Self {
        Self {
            config,
            net,
            dns,
            cgroups,
            pool,
            machines: Mutex::default(),
        }
    }

    fn machine(&self, hash: &ItemHash) -> Option<Machine> {
        let machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        machines.get(hash).cloned()
    }

    fn note(&self, hash: &ItemHash, machine: Option<&Machine>) {
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        match machine {
            Some(machine) => machines.insert(hash.clone(), machine.clone()),
            None => machines.remove(hash),
        };
    }

    fn disks(&self, hash: &ItemHash) -> PathBuf {
        self.config.state_dir.join("vm").join(hash.as_str())
    }

    fn sockets(&self, hash: &ItemHash) -> PathBuf {
        self.config.run_dir.join("vm").join(hash.as_str())
    }

    fn plan(&self, hash: &ItemHash, place: Place) -> Result<net::Plan, HostError> {
        let kind = match place.kind {
            Kind::Microvm => net::Kind::Program,
            Kind::PersistentProgram => net::Kind::PersistentProgram,
            Kind::Instance => net::Kind::Instance,
        };
        self.net
            .pools()
            .plan(place.slot, hash.as_str(), kind)
            .map_err(HostError::during("plan its addresses"))
    }

    fn base(&self, resolved: &Resolved, place: Place) -> Result<Base, HostError> {
        let workload = &resolved.workload;
        let connected = workload.kind == Kind::Instance || workload.internet;
        let plan = if connected {
            Some(self.plan(&workload.hash, place)?)
        } else {
            None
        };
        let narrow = "fit its size into a machine";
        Ok(Base {
            vm: workload.hash.to_string(),
            vmm: self.config.vmm.clone(),
            kernel: self.config.kernel.clone(),
            initramfs: self.config.initramfs.clone(),
            run_dir: self.config.run_dir.clone(),
            state_dir: self.config.state_dir.clone(),
            console_bytes: self.config.limits.console_bytes,
            vcpus: u8::try_from(workload.vcpus).map_err(HostError::during(narrow))?,
            memory_mib: u32::try_from(workload.memory_mib).map_err(HostError::during(narrow))?,
            cid: spec::cid(place.slot),
            identity: spec::identity(place.slot),
            cgroups: self.cgroups.clone(),
            hostname: workload.hostname(),
            plan,
            mtu: self.net.mtu(),
            dns: self.dns.clone(),
        })
    }

    fn volumes(&self, resolved: &Resolved) -> Result<Vec<VolumeParts>, HostError> {
        volume_parts(resolved, &self.disks(&resolved.workload.hash))
    }

    async fn start_machine(
        &self,
        resolved: &Resolved,
        place: Place,
    ) -> Result<Box<dyn Guest>, HostError> {
        let base = self.base(resolved, place)?;
        let plan = base.plan.clone();
        let tap = match &plan {
            Some(plan) => Some(
                self.net
                    .attach(plan)
                    .await
                    .map_err(HostError::during("connect it"))?,
            ),
            None => None,
        };
        let volumes = self.volumes(resolved)?;
        let mut spec = match &resolved.workload.body {
            Body::Program { .. } => spec::program(base, tap, program_parts(resolved)?, volumes),
            Body::Instance { .. } => {
                let dir = self.disks(&resolved.workload.hash);
                spec::instance(
                    base,
                    tap,
                    dir.join("root.raw"),
                    dir.join("seed.img"),
                    volumes,
                )
            }
        };
        spec.spare = self.pool.take();
        match Machine::start(spec).await {
            Ok((machine, events)) => {
                self.note(&resolved.workload.hash, Some(&machine));
                Ok(Box::new(KvmGuest {
                    kind: place.kind,
                    machine,
                    events,
                }))
            }
            Err(error) => {
                if let Some(plan) = plan
                    && let Err(error) = self.net.detach(&plan).await
                {
                    tracing::error!(vm = %resolved.workload.hash, "{}", crate::chain(&error));
                }
                Err(HostError::during("start its machine")(error))
            }
        }
    }

    async fn make(&self, resolved: &Resolved, place: Place) -> Result<(), HostError> {
        let workload = &resolved.workload;
        let dir = self.disks(&workload.hash);
        let mut jobs = Vec::new();
        let mut names = Vec::new();
        for volume in &workload.volumes {
            if let Volume::Disk {
                parent,
                size_mib,
                ephemeral,
                ..
            } = volume
            {
                let parent = match parent {
                    Some(parent) => Some(file(resolved, parent)?.0),
                    None => None,
                };
                let name = workload.disk_name(volume);
                let path = volume_path(&dir, &name);
                jobs.push((path, parent, *size_mib, *ephemeral));
                names.push(name);
            }
        }
        let root = match &workload.body {
            Body::Instance { image, size_mib } => {
                let seed = InstanceSeed {
                    vm: workload.hash.to_string(),
                    hostname: workload.hostname(),
                    keys: workload.authorized_keys.clone(),
                    plan: self.plan(&workload.hash, place)?,
                    mtu: self.net.mtu(),
                    dns: self.dns.clone(),
                    volumes: seed_volumes(workload),
                    user_data: workload.user_data.clone(),
                };
                Some((file(resolved, image)?.0, *size_mib, seed))
            }
            Body::Program { .. } => None,
        };
        let files: Vec<_> = resolved.files.values().cloned().collect();
        blocking("make its disks", move || {
            let links = dir.join("files");
            std::fs::create_dir_all(&links).map_err(HostError::during("make its directory"))?;
            volume::keep_links(&links, files.iter().map(|file| file.path.as_path()))
                .map_err(HostError::during("let go of a file it no longer uses"))?;
            for file in files {
                file.link_into(&links)
                    .map_err(HostError::during("keep a file it uses"))?;
            }
            volume::keep_volumes(&dir, &names)
                .map_err(HostError::during("take away a volume it no longer has"))?;
            for (path, parent, size_mib, ephemeral) in jobs {
                if ephemeral && path.exists() {
                    std::fs::remove_file(&path)
                        .map_err(HostError::during("clear an ephemeral volume"))?;
                }
                match parent {
                    Some(parent) => volume::prepare_copy(&parent, &path, size_mib),
                    None => volume::prepare_blank(&path, size_mib),
                }
                .map_err(HostError::during("make a volume"))?;
            }
            if let Some((image, size_mib, seed)) = root {
                volume::prepare_copy(&image, &dir.join("root.raw"), size_mib)
                    .map_err(HostError::during("make its disk"))?;
                let seed_file = dir.join("seed.img");
                volume::write_seed(&seed_file, &seed.seed())
                    .map_err(HostError::during("write its seed"))?;
            }
            Ok(())
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    attempt: &'static str,
    work: impl FnOnce() -> Result<T, HostError> + Send + 'static,
) -> Result<T, HostError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(HostError::during(attempt))?
}

impl Hypervisor for Kvm {
    fn slots(&self) -> u16 {
        // The vsock context identifiers made of slots must stay in range too.
        u16::try_from(self.net.pools().slots()).unwrap_or(u16::MAX)
    }

    fn addresses(&self, hash: &ItemHash, place: Place) -> Result<net::Plan, HostError> {
        self.plan(hash, place)
    }

    fn guest_config(&self, resolved: &Resolved, place: Place) -> Result<GuestConfig, HostError> {
        let base = self.base(resolved, place)?;
        Ok(match &resolved.workload.body {
            Body::Program { .. } => {
                spec::program_guest(&base, &program_parts(resolved)?, &self.volumes(resolved)?)
            }
            Body::Instance { .. } => spec::instance_guest(&base),
        })
    }

    fn make_disks<'a>(
        &'a self,
        resolved: &'a Resolved,
        place: Place,
    ) -> BoxFuture<'a, Result<(), HostError>> {
        self.make(resolved, place).boxed()
    }

    fn start<'a>(
        &'a self,
        resolved: &'a Resolved,
        place: Place,
    ) -> BoxFuture<'a, Result<Box<dyn Guest>, HostError>> {
        self.start_machine(resolved, place).boxed()
    }

    fn adopt<'a>(
        &'a self,
        hash: &'a ItemHash,
        guest: GuestConfig,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Guest>>, HostError>> {
        async move {
            let kind = match &guest.workload {
                guest::Workload::Instance { .. } => Kind::Instance,
                guest::Workload::Program(_) => Kind::Microvm,
            };
            let found = Machine::adopt(hash.as_str(), &self.sockets(hash), guest)
                .await
                .map_err(HostError::during("find its machine again"))?;
            Ok(found.map(|(machine, events)| {
                self.note(hash, Some(&machine));
                Box::new(KvmGuest {
                    kind,
                    machine,
                    events,
                }) as Box<dyn Guest>
            }))
        }
        .boxed()
    }

    fn clean<'a>(
        &'a self,
        hash: &'a ItemHash,
        place: Option<Place>,
    ) -> BoxFuture<'a, Result<(), HostError>> {
        async move {
            self.note(hash, None);
            if let Some(place) = place
                && let Ok(plan) = self.plan(hash, place)
            {
                self.net
                    .detach(&plan)
                    .await
                    .map_err(HostError::during("disconnect it"))?;
            }
            let sockets = self.sockets(hash);
            // The run directory goes with its process: one that is still there may be that of a process nobody holds.
            if tokio::fs::try_exists(&sockets).await.unwrap_or(true) {
                let nothing = GuestConfig {
                    hostname: String::new(),
                    network: None,
                    workload: guest::Workload::Instance {
                        root: String::new(),
                    },
                };
                let found = Machine::adopt(hash.as_str(), &sockets, nothing).await;
                if let Some((machine, _events)) =
                    found.map_err(HostError::during("look for its process"))?
                {
                    machine
                        .stop(STOP_DEADLINE)
                        .await
                        .map_err(HostError::during("end its process"))?;
                }
            }
            blocking("remove its sockets", move || {
                volume::erase(&sockets).map_err(HostError::during("remove its sockets"))
            })
            .await
        }
        .boxed()
    }

    fn erase<'a>(&'a self, hash: &'a ItemHash) -> BoxFuture<'a, Result<(), HostError>> {
        let dir = self.disks(hash);
        blocking("erase its disks", move || {
            volume::erase(&dir).map_err(HostError::during("erase its disks"))
        })
        .boxed()
    }

    fn apply(&self, networks: Vec<NetworkOf>) -> BoxFuture<'_, Result<(), HostError>> {
        async move {
            let guests = networks
                .iter()
                .map(|network| {
                    let forwards = network.ports.iter().flat_map(|port| {
                        let one = |transport| net::Forward {
                            transport,
                            host: port.host_port,
                            guest: port.guest_port,
                        };
                        let tcp = port.tcp.then(|| one(net::Transport::Tcp));
                        tcp.into_iter()
                            .chain(port.udp.then(|| one(net::Transport::Udp)))
                    });
                    Ok(net::Guest {
                        plan: self.plan(&network.hash, network.place)?,
                        forwards: forwards.collect(),
                        secluded: network.secluded,
                    })
                })
                .collect::<Result<Vec<_>, HostError>>()?;
            self.net
                .apply(&guests)
                .await
                .map_err(HostError::during("apply the rules"))
        }
        .boxed()
    }

    fn rules_disturbed(&self) -> BoxFuture<'_, ()> {
        self.net.disturbed().boxed()
    }

    fn vsock(&self, hash: &ItemHash) -> PathBuf {
        self.sockets(hash).join("vsock.sock")
    }

    fn console(&self, hash: &ItemHash) -> PathBuf {
        self.disks(hash).join("console.log")
    }

    fn attach_console<'a>(
        &'a self,
        hash: &'a ItemHash,
    ) -> BoxFuture<'a, Result<UnixStream, HostError>> {
        async move {
            let attempt = "attach to its console";
            let machine = self
                .machine(hash)
                .ok_or_else(|| HostError::during(attempt)("it does not run"))?;
            let (ours, theirs) =
                std::os::unix::net::UnixStream::pair().map_err(HostError::during(attempt))?;
            ours.set_nonblocking(true)
                .map_err(HostError::during(attempt))?;
            machine
                .attach_console(theirs.into())
                .await
                .map_err(HostError::during(attempt))?;
            UnixStream::from_std(ours).map_err(HostError::during(attempt))
        }
        .boxed()
    }

    fn counters<'a>(&'a self, hash: &'a ItemHash) -> BoxFuture<'a, Option<Counters>> {
        async move {
            let status = self.machine(hash)?.status().await.ok()?;
            let sockets = self.sockets(hash);
            let (cpu_us, memory_bytes) =
                tokio::task::spawn_blocking(move || crate::machine::usage(&sockets))
                    .await
                    .ok()??;
            Some(Counters {
                cpu_us,
                memory_bytes,
                disk_read_bytes: status.disk_read_bytes,
                disk_written_bytes: status.disk_written_bytes,
                net_received_bytes: status.net_rx_bytes,
                net_sent_bytes: status.net_tx_bytes,
            })
        }
        .boxed()
    }

    fn wipe<'a>(
        &'a self,
        hash: &'a ItemHash,
        volumes: bool,
    ) -> BoxFuture<'a, Result<(), HostError>> {
        let dir = self.disks(hash);
        blocking("make its disks anew", move || {
            volume::wipe(&dir, volumes).map_err(HostError::during("make its disks anew"))
        })
        .boxed()
    }

    fn uses(&self, hash: &ItemHash, file: &ItemHash) -> bool {
        let link = self.disks(hash).join("files").join(file.as_str());
        // A link that cannot be looked at is not a reason to interrupt the machine.
        link.try_exists().unwrap_or(true)
    }

    fn is_gone<'a>(&'a self, hash: &'a ItemHash) -> BoxFuture<'a, bool> {
        let paths = [self.disks(hash), self.sockets(hash)];
        async move {
            for path in paths {
                if tokio::fs::try_exists(&path).await.unwrap_or(true) {
                    return false;
                }
            }
            self.machine(hash).is_none()
        }
        .boxed()
    }

    fn leftovers(&self) -> BoxFuture<'_, Vec<ItemHash>> {
        let dirs = [
            self.config.state_dir.join("vm"),
            self.config.run_dir.join("vm"),
        ];
        async move {
            let found = blocking("look for leftovers", move || {
                let entries = dirs
                    .iter()
                    .filter_map(|dir| std::fs::read_dir(dir).ok())
                    .flatten()
                    .flatten();
                let mut found: Vec<ItemHash> = entries
                    .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                    .collect();
                found.sort_unstable();
                found.dedup();
                Ok(found)
            })
            .await;
            found.unwrap_or_default()
        }
        .boxed()
    }
}
