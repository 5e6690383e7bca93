//! Hands a transaction to nft(8), and remembers which processes did: their changes are the node's own.

use std::collections::VecDeque;
use std::io;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// A transaction that takes longer is given up; the kernel has then done all of it or nothing.
const DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of its complaint that are kept.
const MAX_COMPLAINT: u64 = 4096;
/// Own processes remembered; their notifications come within the moment.
const REMEMBERED: usize = 32;

/// Why the rules are what they were.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// It could not be run.
    #[error("cannot run nft")]
    Run(#[source] io::Error),
    /// It did not come to an end.
    #[error("nft did not end within {DEADLINE:?}")]
    Slow,
    /// The transaction was refused.
    #[error("nft refused the rules: {0}")]
    Refused(String),
}

/// Applies transactions.
#[derive(Debug, Default)]
pub struct Nft {
    processes: Mutex<VecDeque<u32>>,
}

impl Nft {
    /// Whether the process with this id was started here.
    pub fn is_own(&self, process: u32) -> bool {
        self.processes().contains(&process)
    }

    fn processes(&self) -> std::sync::MutexGuard<'_, VecDeque<u32>> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies `script`, all of it or nothing.
    ///
    /// # Errors
    /// [`NftError`].
    pub async fn apply(&self, script: &str) -> Result<(), NftError> {
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(NftError::Run)?;
        // Before it has read anything, so before it can have changed anything.
        if let Some(process) = child.id() {
            let mut processes = self.processes();
            processes.truncate(REMEMBERED - 1);
            processes.push_front(process);
        }
        let (input, errors) = (child.stdin.take(), child.stderr.take());
        let work = async {
            let feed = async {
                if let Some(mut input) = input {
                    input.write_all(script.as_bytes()).await?;
                    input.shutdown().await?;
                }
                Ok::<_, io::Error>(())
            };
            let mut complaint = String::new();
            let listen = async {
                if let Some(errors) = errors {
                    errors
                        .take(MAX_COMPLAINT)
                        .read_to_string(&mut complaint)
                        .await?;
                }
                Ok::<_, io::Error>(())
            };
            let (fed, heard) = tokio::join!(feed, listen);
            let status = child.wait().await.map_err(NftError::Run)?;
            if !status.success() {
                return Err(NftError::Refused(complaint.trim().to_owned()));
            }
            fed.and(heard).map_err(NftError::Run)
        };
        tokio::time::timeout(DEADLINE, work)
            .await
            .map_err(|_| NftError::Slow)?
    }
}
