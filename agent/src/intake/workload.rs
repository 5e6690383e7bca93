//! What a message asks for, in the agent's own terms: everything that is not supported has been refused, every length
//! has been capped.

mod fields;
mod requirements;
mod volumes;

use std::collections::BTreeMap;

use aleph_message::{
    Body as MessageBody, Content, Executable, InstanceContent, ItemHash, MachineResources,
    NetworkProtocol, ProgramContent,
};
use crn_protocol::guest::{Encoding, Interface};

pub use self::requirements::{Elsewhere, Facts, Requirements};
pub use self::volumes::{Places, Volume};

use crate::content::Cached;
use crate::ledger::{Demand, Kind, PortWish};

/// vCPUs the VMM can give one machine.
const MAX_VCPUS: u32 = 64;
/// Further disks; what fits beside the first two on a machine's virtio devices.
const MAX_VOLUMES: usize = 16;
/// The longest user data, in bytes: what cloud-init is known to take from elsewhere, and fits a seed.
const MAX_USER_DATA: usize = 64 * 1024;
/// All authorized keys together as JSON, in bytes: they fit a seed beside everything else.
const MAX_KEYS: usize = 256 * 1024;

/// What this node cannot do for a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(pub String);

/// A program or an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// The hash of its message.
    pub hash: ItemHash,
    /// What it is.
    pub kind: Kind,
    /// `content.address`.
    pub owner: String,
    /// How it is paid for.
    pub payment: Payment,
    /// Where it asks to run.
    pub requirements: Requirements,
    /// 1 or more.
    pub vcpus: u32,
    /// MiB, exactly.
    pub memory_mib: u64,
    /// Seconds a program has for its answer.
    pub seconds: u64,
    /// Whether it may begin connections. A program that may not has no network at all; an instance is reached from outside
    /// and answers.
    pub internet: bool,
    /// What its message asks for and does not get here, by its fields: of no use to refuse for, nor to be silent about.
    pub unheeded: Vec<&'static str>,
    /// The program's environment.
    pub variables: BTreeMap<String, String>,
    /// OpenSSH public keys of those who may log in.
    pub authorized_keys: Vec<String>,
    /// `content.metadata.user_data`: more for an instance's cloud-init.
    pub user_data: Option<String>,
    /// What runs.
    pub body: Body,
    /// Further disks, in the message's order.
    pub volumes: Vec<Volume>,
    /// Which disk each of them is.
    pub places: Places,
    /// `resources.published_ports`: ports of the guest that are to be reachable from outside.
    pub published: BTreeMap<u16, PortWish>,
}

/// How a workload is paid for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// `hold`, `superfluid` or `credit`.
    pub method: &'static str,
    /// The address a stream goes to.
    pub receiver: Option<String>,
}

/// A STORE message that a workload names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Its hash.
    pub hash: ItemHash,
    /// Its newest amendment by the same owner is meant.
    pub use_latest: bool,
}

/// What runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// A function.
    Program {
        /// The root file system, squashfs.
        runtime: Reference,
        /// The program.
        code: Reference,
        /// The code's form.
        encoding: Encoding,
        /// How it is started.
        interface: Interface,
        /// `module:app`, or a file's name.
        entrypoint: String,
        /// An executable's arguments.
        arguments: Vec<String>,
        /// Whether it answers requests.
        http: bool,
    },
    /// A machine of its own.
    Instance {
        /// The image its disk begins as, raw.
        image: Reference,
        /// The disk's length in MiB.
        size_mib: u64,
    },
}

/// A workload with the files it names.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// What is asked for.
    pub workload: Workload,
    /// The verified files, by the hash of the reference.
    pub files: BTreeMap<ItemHash, Cached>,
}

impl Workload {
    /// The images among them that a guest mounts as squashfs.
    #[must_use]
    pub fn squashfs_images(&self) -> Vec<&Reference> {
        let mut all = match &self.body {
            Body::Program {
                runtime,
                code,
                encoding: Encoding::Squashfs,
                ..
            } => vec![runtime, code],
            Body::Program { runtime, .. } => vec![runtime],
            Body::Instance { .. } => vec![],
        };
        all.extend(self.volumes.iter().filter_map(|volume| match volume {
            Volume::Image { image, .. } => Some(image),
            Volume::Disk { .. } => None,
        }));
        all
    }

    /// Every STORE message it names.
    #[must_use]
    pub fn references(&self) -> Vec<&Reference> {
        let mut all = match &self.body {
            Body::Program { runtime, code, .. } => vec![runtime, code],
            Body::Instance { image, .. } => vec![image],
        };
        all.extend(self.volumes.iter().filter_map(|volume| match volume {
            Volume::Image { image, .. } => Some(image),
            Volume::Disk { parent, .. } => parent.as_ref(),
        }));
        all
    }

    /// The images among them that disks begin as.
    #[must_use]
    pub fn disk_images(&self) -> Vec<&Reference> {
        let root = match &self.body {
            Body::Instance { image, .. } => Some(image),
            Body::Program { .. } => None,
        };
        let parents = self.volumes.iter().filter_map(|volume| match volume {
            Volume::Disk { parent, .. } => parent.as_ref(),
            Volume::Image { .. } => None,
        });
        root.into_iter().chain(parents).collect()
    }

    /// What it needs of the host.
    #[must_use]
    pub fn demand(&self) -> Demand {
        let root = match self.body {
            Body::Instance { size_mib, .. } => size_mib,
            Body::Program { .. } => 0,
        };
        let disks = self.volumes.iter().map(|volume| match volume {
            Volume::Disk { size_mib, .. } => *size_mib,
            Volume::Image { .. } => 0,
        });
        Demand {
            memory_mib: self.memory_mib,
            vcpus: self.vcpus,
            disk_mib: disks.fold(root, u64::saturating_add),
        }
    }

    /// The guest's host name: base32 of the hash, lower case, without padding; the hash itself when it is a CID.
    #[must_use]
    pub fn hostname(&self) -> String {
        self.hash
            .host_label()
            .unwrap_or_else(|| self.hash.to_string())
    }

    /// Reads what a verified message asks for.
    ///
    /// # Errors
    /// [`Unsupported`], for what this node cannot do.
    pub fn read(hash: &ItemHash, content: &Content) -> Result<Self, Unsupported> {
        let Some(executable) = content.executable() else {
            return unsupported("it is neither a PROGRAM nor an INSTANCE");
        };
        let (kind, body, internet, unheeded) = match &content.body {
            MessageBody::Program(program) => {
                fields::check_program(program)?;
                program_parts(program)
            }
            MessageBody::Instance(instance) => {
                fields::check_instance(instance)?;
                instance_parts(instance)
            }
            _ => return unsupported("it is neither a PROGRAM nor an INSTANCE"),
        };
        let requirements = Requirements::read(executable)?;
        let mut volumes = executable
            .volumes
            .iter()
            .enumerate()
            .map(|(index, volume)| volumes::read(index, volume))
            .collect::<Result<Vec<_>, _>>()?;
        if let MessageBody::Program(program) = &content.body
            && let Some(data) = &program.data
        {
            if data.encoding != aleph_message::Encoding::Squashfs {
                return unsupported("data.encoding: data is only taken as a squashfs image");
            }
            let image = Reference {
                hash: data.reference.clone(),
                use_latest: data.use_latest == Some(true),
            };
            volumes.push(Volume::Image {
                image,
                mount: volumes::absolute("data.mount", &data.mount)?,
            });
        }
        if let Some((index, mount)) = volumes::mounted_twice(&volumes) {
            let field = if index < executable.volumes.len() {
                format!("volumes[{index}].mount")
            } else {
                "data.mount".to_owned()
            };
            return unsupported(format!("{field}: something else is mounted at {mount} too"));
        }
        if volumes.len() > MAX_VOLUMES {
            return unsupported(format!("volumes: at most {MAX_VOLUMES} are possible"));
        }
        let resources = &executable.resources;
        if !(1..=MAX_VCPUS).contains(&resources.vcpus) {
            return unsupported("resources.vcpus: a machine has 1 to 64");
        }
        Ok(Self {
            hash: hash.clone(),
            kind,
            owner: content.address().to_owned(),
            payment: Payment {
                method: executable.payment_type().as_str(),
                receiver: executable
                    .payment
                    .as_ref()
                    .and_then(|payment| payment.receiver.clone()),
            },
            requirements,
            vcpus: resources.vcpus,
            memory_mib: resources.memory,
            seconds: resources.seconds,
            internet,
            unheeded,
            variables: executable.variables.clone().unwrap_or_default(),
            authorized_keys: authorized_keys(executable)?,
            user_data: user_data(executable)?,
            body,
            places: Places::after(&Places::default(), &volumes),
            volumes,
            published: published(resources),
        })
    }
}

fn published(resources: &MachineResources) -> BTreeMap<u16, PortWish> {
    let mut wishes = BTreeMap::new();
    let ports = resources.published_ports.iter().flatten();
    for published in ports.filter(|published| published.port > 0) {
        let wish: &mut PortWish = wishes.entry(published.port).or_default();
        match published.protocol {
            NetworkProtocol::Tcp => wish.tcp = true,
            NetworkProtocol::Udp => wish.udp = true,
        }
    }
    wishes
}

fn user_data(executable: &Executable) -> Result<Option<String>, Unsupported> {
    let metadata = executable.metadata.as_ref();
    match metadata.and_then(|metadata| metadata.get("user_data")) {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(serde_json::Value::String(text)) if text.len() <= MAX_USER_DATA => {
            Ok(Some(text.clone()))
        }
        Some(_) => unsupported(format!(
            "metadata.user_data: expected text of at most {MAX_USER_DATA} bytes"
        )),
    }
}

fn authorized_keys(executable: &Executable) -> Result<Vec<String>, Unsupported> {
    let keys = executable.authorized_keys.clone().unwrap_or_default();
    if serde_json::json!(keys).to_string().len() > MAX_KEYS {
        return unsupported(format!(
            "authorized_keys: at most {MAX_KEYS} bytes are possible"
        ));
    }
    Ok(keys)
}

type Parts = (Kind, Body, bool, Vec<&'static str>);

fn program_parts(program: &ProgramContent) -> Parts {
    use aleph_message::{Encoding as From, Interface as Call};
    let kind = if program.is_persistent() {
        Kind::PersistentProgram
    } else {
        Kind::Microvm
    };
    let code = &program.code;
    let body = Body::Program {
        runtime: Reference {
            hash: program.runtime.reference.clone(),
            use_latest: program.runtime.use_latest,
        },
        code: Reference {
            hash: code.reference.clone(),
            use_latest: code.use_latest,
        },
        encoding: match code.encoding {
            From::Plain => Encoding::Plain,
            From::Zip => Encoding::Zip,
            From::Squashfs => Encoding::Squashfs,
        },
        interface: match code.inferred_interface() {
            Call::Asgi => Interface::Asgi,
            Call::Binary => Interface::Executable,
        },
        entrypoint: code.entrypoint.clone(),
        arguments: code.args.clone().unwrap_or_default(),
        http: program.on.http,
    };
    (
        kind,
        body,
        program.environment.internet,
        fields::unheeded(program),
    )
}

fn instance_parts(instance: &InstanceContent) -> Parts {
    let parent = &instance.rootfs.parent;
    let body = Body::Instance {
        image: Reference {
            hash: parent.reference.clone(),
            use_latest: parent.use_latest,
        },
        size_mib: instance.rootfs.size_mib,
    };
    (Kind::Instance, body, instance.environment.internet, vec![])
}

fn unsupported<T>(what: impl Into<String>) -> Result<T, Unsupported> {
    Err(Unsupported(what.into()))
}
