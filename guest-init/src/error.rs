//! One error style: what was attempted, then why it failed.

use std::error::Error as _;
use std::fmt::Write as _;
use std::io;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call or a read or write.
    #[error("{what}")]
    Io {
        /// What was attempted, on what.
        what: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A line of the control stream.
    #[error("the control stream")]
    Line(#[from] crn_protocol::lines::LineError),
    /// The host closed the control stream or said something else than was due.
    #[error("the host {0}")]
    Host(&'static str),
    /// No block device carries the serial asked for.
    #[error("no disk has the serial {wanted:?}; there are: {present}")]
    NoDisk {
        /// The serial asked for.
        wanted: String,
        /// `name=serial` of every disk.
        present: String,
    },
    /// No root file system on an instance's disk.
    #[error("no root file system on {disk}; looked for {looked}")]
    NoRoot {
        /// The disk's name.
        disk: String,
        /// What was tried, and what was found.
        looked: String,
    },
    /// The code archive cannot be unpacked.
    #[error("the code archive")]
    Zip(#[from] zip::result::ZipError),
    /// The configuration asks for something that cannot be.
    #[error("{0}")]
    Refused(String),
}

/// The result of a step.
pub type Result<T> = std::result::Result<T, Error>;

/// Names what was attempted when a call fails.
pub trait Context<T> {
    /// Turns the error into [`Error::Io`] with `what()` attempted.
    ///
    /// # Errors
    /// The error itself, named.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io {
            what: what(),
            source: source.into(),
        })
    }
}

/// What the host is told: the stage that failed, and the chain of causes.
#[derive(Debug)]
pub struct Failure {
    /// A few words: `mount code`.
    pub stage: &'static str,
    /// Why.
    pub error: Error,
}

impl Error {
    /// The chain of causes in one sentence.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        text
    }
}

impl Failure {
    /// See [`Error::chain`].
    #[must_use]
    pub fn chain(&self) -> String {
        self.error.chain()
    }
}

/// Names the stage a step belongs to.
pub trait Stage<T> {
    /// Turns an [`Error`] into a [`Failure`] of this stage.
    ///
    /// # Errors
    /// The error, with its stage.
    fn stage(self, stage: &'static str) -> std::result::Result<T, Failure>;
}

impl<T> Stage<T> for Result<T> {
    fn stage(self, stage: &'static str) -> std::result::Result<T, Failure> {
        self.map_err(|error| Failure { stage, error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_names_the_attempt_and_the_cause() {
        let result: Result<()> =
            Err(io::Error::from_raw_os_error(2)).context(|| "open /dev/vda".to_owned());
        let failure = result.stage("mount code").unwrap_err();
        assert_eq!(failure.stage, "mount code");
        assert_eq!(
            failure.chain(),
            "open /dev/vda: No such file or directory (os error 2)"
        );
    }
}
