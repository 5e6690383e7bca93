//! Allocation pushes: an EIP-191 signature over the request by an address of the operator's list, each accepted once.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use aleph_message::allocation::{self, AllocationError};

use crate::config::Trust;

/// Signed requests that are remembered; the signers are trusted, so this bounds an accident, not an attack.
const MAX_REMEMBERED: usize = 100_000;

/// Those who may push allocations, and what they have pushed lately.
#[derive(Debug)]
pub struct Schedulers {
    addresses: Vec<String>,
    files: Vec<PathBuf>,
    /// Payload digests, each until its signature is stale anyway.
    seen: Mutex<HashMap<[u8; 32], i64>>,
}

/// Why a push is refused. Said in the log only: the answer is the same for all.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is no `Authorization` header, or it is not text.
    #[error("no authorization")]
    Missing,
    /// The query is not signed, so there must be none.
    #[error("the request has a query")]
    Query,
    /// The signature or what it says is wrong.
    #[error("the authorization does not hold")]
    Invalid(#[from] AllocationError),
    /// Well signed, by a stranger.
    #[error("{0} may not push allocations")]
    Stranger(String),
    /// Used before.
    #[error("the authorization of {0} was used before")]
    Replayed(String),
}

/// A request as it came.
#[derive(Debug, Clone, Copy)]
pub struct Push<'a> {
    /// The `Authorization` header.
    pub authorization: Option<&'a str>,
    /// The method.
    pub method: &'a str,
    /// The path.
    pub path: &'a str,
    /// The query, when there is one.
    pub query: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
    /// Now, Unix seconds.
    pub now: i64,
}

impl Schedulers {
    /// From the configuration. The files are read at each push.
    #[must_use]
    pub fn new(trust: &Trust) -> Self {
        Self {
            addresses: trust.allocation_signers.clone(),
            files: trust.allocation_signer_files.clone(),
            seen: Mutex::default(),
        }
    }

    /// The address that signed the push.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn check(&self, push: Push<'_>) -> Result<String, Refused> {
        let authorization = push.authorization.ok_or(Refused::Missing)?;
        if push.query.is_some() {
            return Err(Refused::Query);
        }
        let signed =
            allocation::verify(authorization, push.method, push.path, push.body, push.now)?;
        if !self.trusts(&signed.signer).await {
            return Err(Refused::Stranger(signed.signer));
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, issued_at| {
            issued_at.abs_diff(push.now) <= allocation::MAX_AGE_SECONDS.unsigned_abs()
        });
        if seen.len() >= MAX_REMEMBERED
            || seen
                .insert(signed.payload_digest, signed.issued_at)
                .is_some()
        {
            return Err(Refused::Replayed(signed.signer));
        }
        Ok(signed.signer)
    }

    async fn trusts(&self, signer: &str) -> bool {
        if self
            .addresses
            .iter()
            .any(|address| address.eq_ignore_ascii_case(signer))
        {
            return true;
        }
        for file in &self.files {
            match tokio::fs::read_to_string(file).await {
                Ok(text) if text.trim().eq_ignore_ascii_case(signer) => return true,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(file = %file.display(), "cannot read an allocation signer: {error}")
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use aleph_message::Keypair;

    use super::*;

    const NOW: i64 = 1_750_000_000;
    const PATH: &str = "/control/allocations";

    fn push<'a>(authorization: &'a str, body: &'a [u8]) -> Push<'a> {
        Push {
            authorization: Some(authorization),
            method: "POST",
            path: PATH,
            query: None,
            body,
            now: NOW,
        }
    }

    fn schedulers(key: &Keypair) -> Schedulers {
        Schedulers::new(&Trust {
            allocation_signers: vec![key.address().to_lowercase()],
            ..Trust::default()
        })
    }

    fn sign(key: &Keypair, body: &[u8], at: i64) -> String {
        allocation::authorization(key, "POST", PATH, body, at).unwrap()
    }

    #[tokio::test]
    async fn a_push_is_accepted_once() {
        let key = Keypair::generate();
        let schedulers = schedulers(&key);
        let header = sign(&key, b"{}", NOW);
        assert_eq!(
            schedulers.check(push(&header, b"{}")).await.unwrap(),
            key.address()
        );
        assert!(matches!(
            schedulers.check(push(&header, b"{}")).await,
            Err(Refused::Replayed(_))
        ));
        let next = sign(&key, b"{}", NOW + 1);
        assert!(schedulers.check(push(&next, b"{}")).await.is_ok());
    }

    #[tokio::test]
    async fn a_push_about_another_request_is_refused() {
        let key = Keypair::generate();
        let schedulers = schedulers(&key);
        let header = sign(&key, b"{}", NOW);
        let call = push(&header, b"{}");
        for other in [
            push(&header, b"{ }"),
            Push {
                path: "/control/migrate",
                ..call
            },
            Push {
                method: "PUT",
                ..call
            },
            Push {
                query: Some("a=1"),
                ..call
            },
        ] {
            assert!(schedulers.check(other).await.is_err(), "{other:?}");
        }
    }

    #[tokio::test]
    async fn a_strangers_push_is_refused_and_a_signer_file_is_read_again() {
        let key = Keypair::generate();
        let file = tempfile::NamedTempFile::new().unwrap();
        let trust = Trust {
            allocation_signer_files: vec![file.path().to_owned()],
            ..Trust::default()
        };
        let schedulers = Schedulers::new(&trust);
        let header = sign(&key, b"{}", NOW);
        assert!(matches!(
            schedulers.check(push(&header, b"{}")).await,
            Err(Refused::Stranger(_))
        ));
        std::fs::write(file.path(), format!("{}\n", key.address())).unwrap();
        assert!(schedulers.check(push(&header, b"{}")).await.is_ok());
    }
}
