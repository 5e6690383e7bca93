//! Agent ⇄ `crn-init`, over virtio-vsock.
//!
//! At boot the guest connects to host port [`CONTROL_PORT`], says [`FromGuest::Hello`], is answered with one
//! [`ToGuest::Configure`], and reports [`FromGuest::Ready`] or [`FromGuest::Failed`]. A program's guest keeps the
//! connection for [`FromGuest::Exited`], and listens itself on guest port [`CONTROL_PORT`] for later
//! [`ToGuest`] lines, so that an agent that restarted still reaches it. Programs answer plain HTTP/1.1 on guest port
//! [`HTTP_PORT`]. Every message is one JSON line ([`crate::lines`]).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// vsock port of the control stream, on both sides.
pub const CONTROL_PORT: u32 = 1024;
/// vsock port on which a program's guest answers HTTP/1.1; inside, the program listens on TCP 127.0.0.1:8080.
pub const HTTP_PORT: u32 = 8080;
/// This protocol's version.
pub const VERSION: u32 = 1;

/// A line from the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromGuest {
    /// First line: the guest is up and waits for its configuration.
    Hello {
        /// [`VERSION`] of the init.
        version: u32,
        /// `uname -r`.
        kernel: String,
    },
    /// The program answers (or the instance's own init is about to take over).
    Ready,
    /// The workload cannot be started.
    Failed {
        /// What was attempted, in a few words: `mount code`, `start program`.
        stage: String,
        /// The chain of causes in one sentence.
        error: String,
    },
    /// The program ended; the guest powers off after this.
    Exited {
        /// Its exit status, when it exited.
        code: Option<i32>,
        /// The signal that ended it, when one did.
        signal: Option<i32>,
    },
}

/// A line to the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToGuest {
    /// Answer to `Hello`.
    Configure(Box<GuestConfig>),
    /// This guest goes on from another's snapshot, and becomes this. Sent to the guest's [`CONTROL_PORT`], before anything
    /// else is; answered on the same stream by [`FromGuest::Ready`] or [`FromGuest::Failed`].
    Renew(Box<Identity>),
    /// Stop the program (SIGTERM, then SIGKILL after `grace_seconds`), sync, power off.
    Shutdown {
        /// Seconds between the two signals.
        grace_seconds: u32,
    },
}

/// What a guest is to become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestConfig {
    /// The guest's host name: base32 of the item hash, lower case, no padding.
    pub hostname: String,
    /// Addresses of eth0; `None` without a NIC.
    #[serde(default)]
    pub network: Option<Network>,
    /// What runs.
    pub workload: Workload,
}

/// Who a guest is that goes on from another's snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// See [`GuestConfig::hostname`].
    pub hostname: String,
    /// Addresses of eth0 instead of those before.
    #[serde(default)]
    pub network: Option<Network>,
    /// Its environment, which a running program finds in `/run/crn/environment`: `NAME=value`, each ended by a zero byte.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// 64 bytes from the host's generator, in hexadecimal, for no other guest.
    pub entropy: String,
    /// What time it is: nanoseconds since 1970.
    pub unix_time_ns: u64,
}

/// Static addresses of eth0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Address, prefix length and gateway.
    #[serde(default)]
    pub ipv4: Option<(Ipv4Addr, u8, Ipv4Addr)>,
    /// Address, prefix length and gateway.
    #[serde(default)]
    pub ipv6: Option<(Ipv6Addr, u8, Ipv6Addr)>,
    /// For `/etc/resolv.conf`.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// Bytes.
    pub mtu: u16,
}

/// What runs in a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// A function: runtime and code from read-only images, HTTP on [`HTTP_PORT`].
    Program(Box<Program>),
    /// A machine of its own: switch into the root file system found on the disk and start its init.
    Instance {
        /// Serial of the disk that holds the root file system, in a partition or on the whole disk.
        root: String,
    },
}

/// A function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Serial of the disk with the runtime (squashfs), mounted under a writable overlay as the root.
    pub runtime: String,
    /// The program itself.
    pub code: Code,
    /// How it is started.
    pub interface: Interface,
    /// `module:app` for ASGI, a file name inside the code for an executable.
    pub entrypoint: String,
    /// Arguments of an executable.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Its environment, beside what the init sets.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// Further mounts.
    #[serde(default)]
    pub volumes: Vec<Volume>,
}

/// Where the code is and in which form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// Serial of its disk.
    pub disk: String,
    /// The image's form.
    pub encoding: Encoding,
    /// Length of the file in bytes; the disk is that rounded up to 512.
    pub bytes: u64,
}

/// How code is packed (`code.encoding` of a PROGRAM message).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// One file: a Python module or an executable.
    Plain,
    /// A ZIP archive.
    Zip,
    /// A squashfs image, mounted at `/opt/code`.
    Squashfs,
}

/// How a program is started (`code.interface` of a PROGRAM message).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interface {
    /// The runtime's `/opt/crn/asgi ENTRYPOINT`, in `/opt/code`.
    Asgi,
    /// The executable itself, serving HTTP on 127.0.0.1:8080.
    Executable,
}

/// One further mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Serial of its disk.
    pub disk: String,
    /// Absolute path in the guest.
    pub mount: String,
    /// A squashfs image mounted read-only; otherwise a writable ext4, made on first use when the disk is blank.
    pub read_only: bool,
}
