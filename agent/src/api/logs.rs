//! A machine's console, as a list or as it comes.

use std::io;
use std::path::Path as FilePath;
use std::time::Duration;

use axum::Json;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::owner::{self, Owned};
use super::{ApiError, App, Shared};
use crate::auth::owner::may_operate;
use crate::ledger::{self, Record};

/// Between two looks at a console that has not grown.
const POLL: Duration = Duration::from_millis(300);
/// How long a viewer has to say who it is.
const FIRST_FRAME: Duration = Duration::from_secs(30);
/// A longer line is sent in parts, in bytes.
const MAX_LINE: usize = 16 * 1024;
/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;

/// `GET /control/machine/{hash}/logs`
pub(super) async fn history(
    State(app): State<App>,
    Owned(record): Owned,
) -> Result<Json<Vec<Value>>, ApiError> {
    let path = app.host.console(&record.hash);
    // The console file is bounded by the VMM; twice that is room for a cut that is under way.
    let limit = app
        .config
        .limits
        .console_bytes
        .saturating_mul(2)
        .max(CHUNK as u64);
    let (text, modified) = match read(&path, limit).await {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Json(Vec::new())),
        Err(error) => {
            tracing::error!(vm = %record.hash, "the console log cannot be read: {error}");
            return Err(ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the log cannot be read",
            ));
        }
    };
    // The console carries no times: each line bears that of the latest output.
    let time = modified.format(&Rfc3339).unwrap_or_default();
    let identifier = format!("vm-{}-stdout", record.hash);
    let lines = text.lines().map(|line| {
        json!({
            "SYSLOG_IDENTIFIER": identifier,
            "MESSAGE": clean(line),
            "file": "stdout",
            "__REALTIME_TIMESTAMP": time,
        })
    });
    Ok(Json(lines.collect()))
}

async fn read(path: &FilePath, limit: u64) -> io::Result<(String, OffsetDateTime)> {
    let file = tokio::fs::File::open(path).await?;
    let modified = file.metadata().await?.modified()?.into();
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).await?;
    Ok((String::from_utf8_lossy(&bytes).into_owned(), modified))
}

/// A console line without carriage returns and other control characters, tabs and colours excepted.
fn clean(line: &str) -> String {
    line.chars()
        .filter(|c| !c.is_control() || matches!(c, '\t' | '\x1b'))
        .collect()
}

/// `GET /control/machine/{hash}/stream_logs`, a WebSocket.
pub(super) async fn stream(
    State(app): State<App>,
    Path(reference): Path<String>,
    uri: Uri,
    upgrade: WebSocketUpgrade,
) -> Result<Response, ApiError> {
    let hash = owner::hash(&reference)?;
    let record = owner::machine(&app, &hash).await?.ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            format!("No execution found for VM {hash}"),
        )
    })?;
    Ok(upgrade
        .max_message_size(CHUNK)
        .on_upgrade(move |socket| async move {
            let Ok(_place) = app.viewers.try_acquire() else {
                let mut socket = socket;
                refuse(&mut socket, "too many viewers on this node").await;
                return;
            };
            let mut socket = socket;
            // A viewer that goes away ends it; nobody is left to be told.
            let _ = serve(&app, &record, &uri, &mut socket).await;
        }))
}

type Sent = Result<(), axum::Error>;

async fn serve(app: &Shared, record: &Record, uri: &Uri, socket: &mut WebSocket) -> Sent {
    let Ok(Some(first)) = tokio::time::timeout(FIRST_FRAME, socket.recv()).await else {
        return Ok(());
    };
    let frame: Option<Value> = first?
        .to_text()
        .ok()
        .and_then(|text| serde_json::from_str(text).ok());
    let Some(frame) = frame else {
        refuse(socket, "the first frame is not JSON").await;
        return Ok(());
    };
    match owner::frame_sender(app, uri, &frame) {
        Err(error) => {
            refuse(socket, &error.reason).await;
            return Ok(());
        }
        Ok(sender) if !may_operate(&app.intake.ccn, record, &sender).await => {
            refuse(socket, "Unauthorized sender").await;
            return Ok(());
        }
        Ok(_) => {}
    }
    send(socket, json!({ "status": "connected" })).await?;
    follow(app, record, socket).await?;
    socket.send(Message::Close(None)).await
}

async fn refuse(socket: &mut WebSocket, reason: &str) {
    // Whether it arrives or not, the socket is closed next.
    let _ = send(socket, json!({ "status": "failed", "reason": reason })).await;
    let _ = socket.send(Message::Close(None)).await;
}

async fn send(socket: &mut WebSocket, frame: Value) -> Sent {
    socket.send(Message::Text(frame.to_string().into())).await
}

/// Sends what is there, then what comes, until the machine does not run.
async fn follow(app: &Shared, record: &Record, socket: &mut WebSocket) -> Sent {
    let path = app.host.console(&record.hash);
    let mut tail = Tail::default();
    loop {
        // Looked at before the file, so that nothing written before the end is missed.
        let state = app
            .ledger
            .get(&record.hash)
            .await
            .ok()
            .flatten()
            .map(|record| record.state);
        while let Ok(true) = tail.read(&path).await {
            for line in tail.lines() {
                send(socket, json!({ "type": "stdout", "message": clean(&line) })).await?;
            }
        }
        let farewell = match state {
            Some(ledger::State::Running | ledger::State::Starting | ledger::State::Stopping) => {
                None
            }
            Some(ledger::State::Defined | ledger::State::Fetching | ledger::State::Prepared) => {
                Some("VM is starting, try again shortly")
            }
            _ => Some("VM is not running, past logs sent"),
        };
        if let Some(message) = farewell {
            if let Some(line) = tail.rest() {
                send(socket, json!({ "type": "stdout", "message": clean(&line) })).await?;
            }
            return send(socket, json!({ "type": "system", "message": message })).await;
        }
        match tokio::time::timeout(POLL, socket.recv()).await {
            Err(_) => {}
            Ok(None | Some(Err(_) | Ok(Message::Close(_)))) => return Ok(()),
            Ok(Some(Ok(_))) => {}
        }
    }
}

/// Reads a growing file, from the start again when it was cut.
#[derive(Default)]
struct Tail {
    offset: u64,
    pending: Vec<u8>,
}

impl Tail {
    /// Reads once; whether there was anything.
    async fn read(&mut self, path: &FilePath) -> io::Result<bool> {
        let mut file = tokio::fs::File::open(path).await?;
        let length = file.metadata().await?.len();
        if length < self.offset {
            self.offset = 0;
        }
        if length == self.offset {
            return Ok(false);
        }
        file.seek(io::SeekFrom::Start(self.offset)).await?;
        let before = self.pending.len();
        file.take(CHUNK as u64)
            .read_to_end(&mut self.pending)
            .await?;
        let read = self.pending.len() - before;
        self.offset += read as u64;
        Ok(read > 0)
    }

    /// The whole lines, and a line that has become too long.
    fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(at) = self.pending.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=at).collect();
            lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        if self.pending.len() > MAX_LINE {
            lines.extend(self.rest());
        }
        lines
    }

    /// The line that has no end yet.
    fn rest(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.pending);
        (!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_console_is_followed_through_growth_and_cut() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut tail = Tail::default();
        std::fs::write(file.path(), "one\ntw").unwrap();
        assert!(tail.read(file.path()).await.unwrap());
        assert_eq!(tail.lines(), ["one"]);
        std::fs::write(file.path(), "one\ntwo\n").unwrap();
        assert!(tail.read(file.path()).await.unwrap());
        assert_eq!(tail.lines(), ["two"]);
        assert!(!tail.read(file.path()).await.unwrap());
        std::fs::write(file.path(), "new").unwrap();
        assert!(tail.read(file.path()).await.unwrap());
        assert_eq!(tail.lines(), Vec::<String>::new());
        assert_eq!(tail.rest().as_deref(), Some("new"));
    }
}
