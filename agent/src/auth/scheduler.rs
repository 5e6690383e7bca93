//! Allocation pushes: an EIP-191 signature over the request by an address of the operator's list, or of the network's where
//! the operator says so, each accepted once.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aleph_message::allocation::{self, AllocationError};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::config::Trust;
use crate::intake::ccns::Ccns;
use crate::ledger::{Ledger, LedgerError};

/// For so long the network's list is not read again.
const FRESH: Duration = Duration::from_secs(60);

/// Those who may push allocations. What they have pushed lately stands in the ledger.
#[derive(Debug)]
pub struct Schedulers {
    addresses: Vec<String>,
    files: Vec<PathBuf>,
    settings: Option<String>,
    /// When the network's list was asked for last, and what it was when it could be read last.
    listed: Mutex<(Option<Instant>, Vec<String>)>,
    legacy_token_sha256: Option<String>,
    ledger: Ledger,
    ccn: Ccns,
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
    /// The shared token is not the configured one, or none is configured.
    #[error("the legacy token is not accepted")]
    Token,
    /// Whether it was used before cannot be told.
    #[error("the request cannot be noted down")]
    Ledger(#[from] LedgerError),
}

/// A request as it came.
#[derive(Debug, Clone, Copy)]
pub struct Push<'a> {
    /// The `Authorization` header.
    pub authorization: Option<&'a str>,
    /// The `X-Auth-Signature` header of older schedulers, a shared token.
    pub token: Option<&'a str>,
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
    /// From the configuration. The files are read at each push, the network's list at most once a minute.
    #[must_use]
    pub fn new(trust: &Trust, ledger: Ledger, ccn: Ccns) -> Self {
        Self {
            addresses: trust.allocation_signers.clone(),
            files: trust.allocation_signer_files.clone(),
            settings: trust.settings.clone(),
            listed: Mutex::default(),
            legacy_token_sha256: trust.legacy_token_sha256.clone(),
            ledger,
            ccn,
        }
    }

    /// The address that signed the push, or `legacy token`.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn check(&self, push: Push<'_>) -> Result<String, Refused> {
        let Some(authorization) = push.authorization else {
            return self.check_token(push.token.ok_or(Refused::Missing)?);
        };
        if push.query.is_some() {
            return Err(Refused::Query);
        }
        let signed =
            allocation::verify(authorization, push.method, push.path, push.body, push.now)?;
        if !self.trusts(&signed.signer).await {
            return Err(Refused::Stranger(signed.signer));
        }
        // Two schedulers may say the same in the same second.
        let mut digest = Sha256::new();
        digest.update(signed.signer.to_lowercase().as_bytes());
        digest.update(signed.payload_digest);
        let until = signed.issued_at.saturating_add(allocation::MAX_AGE_SECONDS);
        if !self
            .ledger
            .use_once(digest.finalize().into(), until, push.now)
            .await?
        {
            return Err(Refused::Replayed(signed.signer));
        }
        Ok(signed.signer)
    }

    /// Digests are compared, which tells nothing about the token however long it takes.
    fn check_token(&self, token: &str) -> Result<String, Refused> {
        let digest = hex::encode(Sha256::digest(token.as_bytes()));
        if self.legacy_token_sha256.as_ref() == Some(&digest) {
            Ok("legacy token".to_owned())
        } else {
            Err(Refused::Token)
        }
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
        self.network_lists(signer).await
    }

    /// Whether the aggregate `settings` of the configured address names the signer (spec crn-api §1.4). When it cannot be
    /// read, what it was counts.
    async fn network_lists(&self, signer: &str) -> bool {
        let Some(settings) = &self.settings else {
            return false;
        };
        let is_old = {
            let mut listed = self.listed();
            let is_old = listed.0.is_none_or(|tried| tried.elapsed() >= FRESH);
            if is_old {
                // Noted first: a crowd of strangers makes it read no more often.
                listed.0 = Some(Instant::now());
            }
            is_old
        };
        if is_old {
            match self.ccn.aggregate(settings, "settings").await {
                Ok(aggregate) => self.listed().1 = signers(aggregate.as_ref()),
                Err(error) => {
                    let error = crate::chain(&error);
                    tracing::warn!("the network's list of schedulers stays as it was: {error}");
                }
            }
        }
        let listed = self.listed();
        listed.1.iter().any(|one| one.eq_ignore_ascii_case(signer))
    }

    fn listed(&self) -> MutexGuard<'_, (Option<Instant>, Vec<String>)> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `authorized_allocation_signers`; what is no text in it is passed over.
fn signers(aggregate: Option<&Value>) -> Vec<String> {
    let listed = aggregate.and_then(|a| a.get("authorized_allocation_signers")?.as_array());
    let listed = listed.into_iter().flatten().filter_map(Value::as_str);
    listed.map(str::to_owned).collect()
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
            token: None,
            method: "POST",
            path: PATH,
            query: None,
            body,
            now: NOW,
        }
    }

    fn nobody() -> Ccns {
        Ccns::new(["http://127.0.0.1:1"], None)
    }

    fn ledger() -> Ledger {
        Ledger::open(std::path::Path::new(":memory:")).unwrap()
    }

    fn schedulers(key: &Keypair) -> Schedulers {
        let trust = Trust {
            allocation_signers: vec![key.address().to_lowercase()],
            ..Trust::default()
        };
        Schedulers::new(&trust, ledger(), nobody())
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
        let schedulers = Schedulers::new(&trust, ledger(), nobody());
        let header = sign(&key, b"{}", NOW);
        assert!(matches!(
            schedulers.check(push(&header, b"{}")).await,
            Err(Refused::Stranger(_))
        ));
        std::fs::write(file.path(), format!("{}\n", key.address())).unwrap();
        assert!(schedulers.check(push(&header, b"{}")).await.is_ok());
    }

    /// S5: a token of the whole network was accepted unless switched off.
    #[tokio::test]
    async fn a_shared_token_opens_only_where_it_is_configured_and_never_beside_a_signature() {
        let with = |digest: Option<String>| {
            let trust = Trust {
                legacy_token_sha256: digest,
                ..Trust::default()
            };
            Schedulers::new(&trust, ledger(), nobody())
        };
        let token = |text| Push {
            authorization: None,
            token: Some(text),
            ..push("", b"{}")
        };
        let configured = with(Some(hex::encode(Sha256::digest(b"secret"))));
        assert!(configured.check(token("secret")).await.is_ok());
        assert!(configured.check(token("secret2")).await.is_err());
        let both = Push {
            authorization: Some("Aleph-EIP191-V1 sig=00,payload=00"),
            ..token("secret")
        };
        assert!(configured.check(both).await.is_err());
        assert!(with(None).check(token("secret")).await.is_err());
    }
}
