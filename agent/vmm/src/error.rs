//! What can go wrong between a machine's description and its first instruction.

use std::io;

/// A machine could not be built or served. Each variant names what was attempted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field of the description is outside its bounds.
    #[error("the machine's description is refused: {field} {reason}")]
    Spec {
        /// The field's path, as in the description.
        field: String,
        /// What is wrong with it, with its value.
        reason: String,
    },
    /// The descriptor is not `/dev/kvm`, or of another version.
    #[error(
        "kvm is not a descriptor of /dev/kvm with version {expected} of its interface: it answers {answer}"
    )]
    NotKvm {
        /// KVM_API_VERSION.
        expected: u32,
        /// What KVM_GET_API_VERSION returned.
        answer: i32,
    },
    /// The process cannot be confined.
    #[error("cannot confine this process")]
    Sandbox(#[from] crate::sandbox::SandboxError),
    /// The host's KVM cannot do something the machine is built on.
    #[error("this host's KVM lacks {0}")]
    Capability(&'static str),
    /// A KVM call failed.
    #[error("KVM refused to {0}")]
    Kvm(&'static str, #[source] io::Error),
    /// Guest memory could not be mapped.
    #[error("cannot map {bytes} bytes of guest memory")]
    MapRam {
        /// All of the guest's memory.
        bytes: u64,
        /// mmap(2)'s reason.
        #[source]
        source: io::Error,
    },
    /// The host's pool of huge pages is too small.
    #[error(
        "the host has not {bytes} bytes free in huge pages of {page_mib} MiB: reserve some or use ordinary pages"
    )]
    HugePages {
        /// All of the guest's memory.
        bytes: u64,
        /// One page.
        page_mib: u32,
        /// mmap(2)'s reason.
        #[source]
        source: io::Error,
    },
    /// The kernel is a bzImage that this machine cannot start.
    #[error("cannot load the kernel: {0}")]
    Kernel(&'static str),
    /// The kernel is not an image that fits the guest's memory.
    #[error("cannot load the kernel")]
    LoadKernel(#[source] linux_loader::loader::Error),
    /// The initramfs does not fit or cannot be read.
    #[error("cannot load the initramfs")]
    LoadInitramfs(#[source] io::Error),
    /// A structure for the kernel could not be placed in guest memory.
    #[error("cannot write {0} into guest memory")]
    WriteBoot(&'static str, #[source] vm_memory::GuestMemoryError),
    /// The boot parameters could not be placed in guest memory.
    #[error("cannot write the boot parameters into guest memory")]
    WriteBootParameters(#[source] linux_loader::configurator::Error),
    /// A disk's file cannot be used.
    #[error("cannot use disks[{index}]")]
    Disk {
        /// Position in the description.
        index: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A device cannot be attached or detached now.
    #[error("{0}")]
    Attach(&'static str),
    /// An image cannot be mapped into the guest.
    #[error("cannot use pmem[{index}]")]
    Pmem {
        /// Position in the description.
        index: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A NIC's descriptor cannot be used.
    #[error("cannot use nics[{index}]")]
    Nic {
        /// Position in the description.
        index: usize,
        /// Why.
        #[source]
        source: crate::devices::net::TapError,
    },
    /// A snapshot cannot be taken or used.
    #[error(transparent)]
    Snapshot(#[from] crate::snapshot::SnapshotError),
    /// A call to the operating system failed.
    #[error("cannot {0}")]
    Os(&'static str, #[source] io::Error),
}

impl Error {
    /// A field that is out of bounds.
    pub(crate) fn spec(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Spec {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error and all its causes as one sentence.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// A KVM call's error as [`Error::Kvm`].
pub(crate) fn kvm(attempt: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Error {
    move |error| Error::Kvm(attempt, io::Error::from_raw_os_error(error.errno()))
}

/// An operating system call's error as [`Error::Os`].
pub(crate) fn os<E: Into<io::Error>>(attempt: &'static str) -> impl FnOnce(E) -> Error {
    move |error| Error::Os(attempt, error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_one_sentence_with_every_cause() {
        let error = Error::Disk {
            index: 2,
            source: io::Error::from_raw_os_error(libc::EBADF),
        };
        assert_eq!(
            chain(&error),
            "cannot use disks[2]: Bad file descriptor (os error 9)"
        );
    }
}
