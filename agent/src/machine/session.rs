//! The host's side of the guest's first connection: hear hello, answer with the configuration, pass on what follows.
//!
//! The guest is hostile: it gets a time limit until its hello, a cap on what its texts may hold, and each kind of report
//! is passed on once a connection.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crn_protocol::guest::{FromGuest, GuestConfig, ToGuest, VERSION};
use crn_protocol::lines::{self, LineBuffer, LineError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::MachineEvent;

/// From the connection until the configuration is taken.
const HELLO_TIMEOUT: Duration = Duration::from_secs(30);
/// Characters of a guest's text that are passed on.
const LONGEST_TEXT: usize = 2048;

/// Why a guest's connection is over.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The stream broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// Not our protocol.
    #[error("the guest does not speak the protocol")]
    Line(#[from] LineError),
    /// No hello, or not first.
    #[error("the guest did not begin with hello")]
    NoHello,
    /// Another version.
    #[error("the guest speaks version {0} of the protocol, expected {VERSION}")]
    Version(u32),
    /// Too slow.
    #[error("the guest did not take its configuration within {HELLO_TIMEOUT:?}")]
    Timeout,
}

/// Serves one connection until the guest closes it.
pub async fn serve(
    stream: OwnedFd,
    config: Arc<GuestConfig>,
    events: mpsc::Sender<MachineEvent>,
) -> Result<(), SessionError> {
    let stream = std::os::unix::net::UnixStream::from(stream);
    stream.set_nonblocking(true)?;
    let mut session = Session {
        stream: UnixStream::from_std(stream)?,
        lines: LineBuffer::default(),
    };
    tokio::time::timeout(HELLO_TIMEOUT, session.greet(&config))
        .await
        .map_err(|_| SessionError::Timeout)??;
    let (mut started, mut ended) = (false, false);
    while let Some(said) = session.next().await? {
        let (seen, event) = match said {
            FromGuest::Ready => (&mut started, MachineEvent::GuestReady),
            FromGuest::Failed { stage, error } => (
                &mut started,
                MachineEvent::GuestFailed {
                    stage: cut(stage),
                    error: cut(error),
                },
            ),
            FromGuest::Exited { code, signal } => {
                (&mut ended, MachineEvent::ProgramExited { code, signal })
            }
            FromGuest::Hello { .. } => return Err(SessionError::NoHello),
        };
        if !std::mem::replace(seen, true) && events.send(event).await.is_err() {
            break;
        }
    }
    Ok(())
}

struct Session {
    stream: UnixStream,
    lines: LineBuffer,
}

impl Session {
    async fn greet(&mut self, config: &GuestConfig) -> Result<(), SessionError> {
        match self.next().await? {
            Some(FromGuest::Hello {
                version: VERSION,
                kernel,
            }) => {
                tracing::debug!(kernel = cut(kernel), "guest says hello");
            }
            Some(FromGuest::Hello { version, .. }) => return Err(SessionError::Version(version)),
            _ => return Err(SessionError::NoHello),
        }
        let line = lines::encode(&ToGuest::Configure(Box::new(config.clone())))?;
        Ok(self.stream.write_all(&line).await?)
    }

    async fn next(&mut self) -> Result<Option<FromGuest>, SessionError> {
        let mut bytes = [0; 4096];
        loop {
            if let Some(said) = self.lines.next()? {
                return Ok(Some(said));
            }
            match self.stream.read(&mut bytes).await? {
                0 => return Ok(None),
                count => self.lines.push(&bytes[..count])?,
            }
        }
    }
}

fn cut(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(LONGEST_TEXT) {
        text.truncate(at);
    }
    text
}
