//! Disk images to raw.
//!
//! In: one open file that a stranger made. Out: one open file that holds the same disk, raw and sparse, or an error that
//! says what is wrong with the image. [`jail`] takes everything else from the process before the first byte is read.
//!
//! * [`header`]: the image's first bytes, checked.
//! * [`clusters`]: where each of the disk's clusters is.
//! * [`convert()`]: the walk over all of them.

#![forbid(unsafe_code)]

pub mod clusters;
pub mod convert;
pub mod header;
pub mod jail;

pub use convert::convert;
pub use header::Header;

use std::io;

/// Why an image is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It needs what is not allowed, or cannot be right.
    #[error("{field}: {reason}")]
    Image {
        /// The header's or table's field, as the format's specification names it.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A cluster's compressed data does not decompress to a cluster.
    #[error("the compressed cluster at byte {offset} of the disk: {reason}")]
    Compressed {
        /// Of the cluster, in the disk.
        offset: u64,
        /// What the decompressor says.
        reason: String,
    },
    /// Reading the image.
    #[error("cannot read the image")]
    Read(#[source] io::Error),
    /// Writing the disk.
    #[error("cannot write the disk")]
    Write(#[source] io::Error),
}

/// The result of a step.
pub type Result<T> = std::result::Result<T, Error>;

pub(crate) fn refuse<T>(field: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::Image {
        field,
        reason: reason.into(),
    })
}
