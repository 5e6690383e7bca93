//! A machine's log, as a list or as it comes.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;

use super::owner::{self, Logged};
use super::viewers::Place;
use super::{ApiError, App, Shared};
use crate::auth::owner::may_operate;
use crate::ledger::{Record, State as Stand};
use crate::logs::read::{Cursor, Line};

/// How long a viewer has to say who it is.
const FIRST_FRAME: Duration = Duration::from_secs(30);
/// The longest frame a viewer may send, in bytes.
const MAX_FRAME: usize = 64 * 1024;

/// Which lines are wanted: `?since=&tail=&follow=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    /// Unix microseconds.
    since: i64,
    tail: usize,
    follow: bool,
}

impl Wanted {
    fn parse(query: &HashMap<String, String>) -> Result<Self, ApiError> {
        let wrong = |field: &str, expected: &str| {
            let text = format!("Query field '{field}' must be {expected}");
            ApiError::new(StatusCode::BAD_REQUEST, text)
        };
        let tail = match query.get("tail") {
            None => usize::MAX,
            Some(text) => text
                .parse()
                .map_err(|_| wrong("tail", "a number of lines"))?,
        };
        Ok(Self {
            since: since(query)?,
            tail,
            follow: match query.get("follow").map(String::as_str) {
                None | Some("false" | "0") => false,
                Some("true" | "1") => true,
                Some(_) => return Err(wrong("follow", "true or false")),
            },
        })
    }
}

/// `?since=`, a moment as RFC 3339 or in Unix seconds; as Unix microseconds.
pub(super) fn since(query: &HashMap<String, String>) -> Result<i64, ApiError> {
    let Some(text) = query.get("since") else {
        return Ok(i64::MIN);
    };
    let seconds = text
        .parse::<f64>()
        .ok()
        .filter(|seconds| seconds.abs() < 1e12);
    // A plus sign in a query is a space.
    let moment = || OffsetDateTime::parse(&text.replace(' ', "+"), &Rfc3339).ok();
    seconds
        .map(|seconds| (seconds * 1e6) as i64)
        .or_else(|| i64::try_from(moment()?.unix_timestamp_nanos() / 1000).ok())
        .ok_or_else(|| {
            ApiError::new(
                StatusCode::BAD_REQUEST,
                "Query field 'since' must be a time such as 2026-01-01T12:00:00Z, or Unix seconds",
            )
        })
}

/// A log that is read from a place on.
struct Reader {
    dir: PathBuf,
    cursor: Cursor,
    skip: usize,
    since: i64,
}

impl Reader {
    async fn open(app: &Shared, record: &Record, wanted: Wanted) -> Result<Self, ApiError> {
        let dir = app.reconciler.logs().dir(&record.hash);
        let (cursor, skip) = if wanted.tail == usize::MAX {
            (Cursor::default(), 0)
        } else {
            let dir = dir.clone();
            let found = tokio::task::spawn_blocking(move || {
                Cursor::before_last(&dir, wanted.since, wanted.tail)
            });
            found.await.ok().and_then(Result::ok).ok_or_else(|| {
                let text = "the log cannot be read: see the node's journal";
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, text)
            })?
        };
        Ok(Self {
            dir,
            cursor,
            skip,
            since: wanted.since,
        })
    }

    /// The next lines; `None` when there are none yet. Some may turn out not to be wanted.
    async fn next(&mut self) -> Option<Vec<Line>> {
        let (dir, mut cursor) = (self.dir.clone(), self.cursor);
        let read = tokio::task::spawn_blocking(move || {
            let lines = cursor.read(&dir);
            lines.map(|lines| (lines, cursor))
        });
        let (mut lines, cursor) = match read.await.ok()? {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(dir = %self.dir.display(), "a log cannot be read: {error}");
                return None;
            }
        };
        self.cursor = cursor;
        if lines.is_empty() {
            return None;
        }
        lines.retain(|line| line.at >= self.since);
        let skipped = self.skip.min(lines.len());
        self.skip -= skipped;
        lines.drain(..skipped);
        Some(lines)
    }
}

/// `GET /control/machine/{hash}/logs`: a JSON array of all lines, or, with `follow=true`, one JSON object a line for as
/// long as the machine runs.
pub(super) async fn history(
    State(app): State<App>,
    Query(query): Query<HashMap<String, String>>,
    Logged(record): Logged,
) -> Result<Response, ApiError> {
    let wanted = Wanted::parse(&query)?;
    let reader = Reader::open(&app, &record, wanted).await?;
    let identifier = format!("vm-{}-stdout", record.hash);
    if wanted.follow {
        let place = app.view(Some(&record.hash))?;
        let following = Following::new(&app, record, reader);
        let lines = stream::unfold(
            (following, identifier, place),
            |(mut following, name, place)| async move {
                let lines = following.next().await?;
                let text: String = lines
                    .iter()
                    .map(|line| format!("{}\n", entry(&name, line)))
                    .collect();
                Some((
                    Ok::<_, Infallible>(Bytes::from(text)),
                    (following, name, place),
                ))
            },
        );
        let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
        return Ok((kind, Body::from_stream(lines)).into_response());
    }
    let parts = stream::unfold(Some((reader, "[")), move |state| {
        let identifier = identifier.clone();
        async move {
            let (mut reader, mut before) = state?;
            let Some(lines) = reader.next().await else {
                let end = if before == "[" { "[]" } else { "]" };
                return Some((Ok::<_, Infallible>(Bytes::from(end)), None));
            };
            let mut text = String::new();
            for line in &lines {
                text.push_str(before);
                text.push_str(&entry(&identifier, line).to_string());
                before = ",\n";
            }
            Some((Ok(Bytes::from(text)), Some((reader, before))))
        }
    });
    let kind = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
    Ok((kind, Body::from_stream(parts)).into_response())
}

/// As the journal of older nodes has it (spec crn-api §1.9).
fn entry(identifier: &str, line: &Line) -> Value {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(line.at) * 1000);
    let time = at.ok().and_then(|at| at.format(&Rfc3339).ok());
    json!({
        "SYSLOG_IDENTIFIER": identifier,
        "MESSAGE": line.text,
        "file": "stdout",
        "__REALTIME_TIMESTAMP": time,
    })
}

/// A log whose next lines are waited for while its machine runs.
struct Following {
    app: App,
    record: Record,
    reader: Reader,
    grown: watch::Receiver<u64>,
    changes: watch::Receiver<i64>,
    farewell: Option<&'static str>,
}

impl Following {
    fn new(app: &App, record: Record, reader: Reader) -> Self {
        Self {
            app: App::clone(app),
            record,
            reader,
            grown: app.reconciler.logs().grown(),
            changes: app.ledger.changes(),
            farewell: None,
        }
    }

    /// The next lines; `None` when the machine does not run and all was read, and then `farewell` says how it is.
    async fn next(&mut self) -> Option<Vec<Line>> {
        loop {
            // Looked at before the log, so that nothing written before the end is missed.
            self.grown.mark_unchanged();
            self.changes.mark_unchanged();
            let record = self.app.ledger.get(&self.record.hash).await.ok().flatten();
            match self.reader.next().await {
                Some(lines) if lines.is_empty() => continue,
                Some(lines) => return Some(lines),
                None => {}
            }
            self.farewell = match record.map(|record| record.state) {
                Some(Stand::Running | Stand::Paused | Stand::Starting | Stand::Stopping) => None,
                Some(Stand::Defined | Stand::Fetching | Stand::Prepared) => {
                    Some("VM is starting, try again shortly")
                }
                _ => Some("VM is not running, past logs sent"),
            };
            if self.farewell.is_some() {
                return None;
            }
            tokio::select! {
                changed = self.grown.changed() => changed.ok()?,
                changed = self.changes.changed() => changed.ok()?,
            }
        }
    }
}

/// `GET /control/machine/{hash}/stream_logs`, a WebSocket (spec crn-api §1.3).
pub(super) async fn stream(
    State(app): State<App>,
    Path(reference): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    uri: Uri,
    upgrade: WebSocketUpgrade,
) -> Result<Response, ApiError> {
    let record = viewed(&app, &reference).await?;
    let wanted = Wanted::parse(&query)?;
    Ok(upgrade
        .max_message_size(MAX_FRAME)
        .on_upgrade(move |mut socket| async move {
            let Some(_place) = greet(&app, &record, &uri, &mut socket, false).await else {
                return;
            };
            // A viewer that goes away ends it; nobody is left to be told.
            let _ = serve(&app, record, wanted, &mut socket).await;
        }))
}

/// The machine of a WebSocket, which says who it is only later.
pub(super) async fn viewed(app: &Shared, reference: &str) -> Result<Record, ApiError> {
    let hash = owner::hash(reference)?;
    owner::machine(app, &hash).await?.ok_or_else(|| {
        let text = format!("No execution found for VM {hash}");
        ApiError::new(StatusCode::NOT_FOUND, text)
    })
}

pub(super) type Sent = Result<(), axum::Error>;

/// Reads who the viewer is; its place, when it may go on. Nobody takes one before saying who it is, and with a signature
/// that counts `once` only one does.
pub(super) async fn greet(
    app: &Shared,
    record: &Record,
    uri: &Uri,
    socket: &mut WebSocket,
    once: bool,
) -> Option<Place> {
    let Ok(Some(Ok(first))) = tokio::time::timeout(FIRST_FRAME, socket.recv()).await else {
        return None;
    };
    let frame: Option<Value> = first
        .to_text()
        .ok()
        .and_then(|text| serde_json::from_str(text).ok());
    let Some(frame) = frame else {
        refuse(socket, "the first frame is not JSON").await;
        return None;
    };
    match owner::frame_sender(app, uri, &frame, once).await {
        Err(reason) => refuse(socket, &reason).await,
        Ok(sender) if !may_operate(&app.intake.ccn, record, &sender).await => {
            refuse(socket, "Unauthorized sender").await;
        }
        Ok(_) => match app.viewers.take(Some(&record.hash)) {
            Err(reason) => refuse(socket, reason).await,
            Ok(place) => {
                let sent = send(socket, json!({ "status": "connected" })).await;
                return sent.ok().map(|()| place);
            }
        },
    }
    None
}

async fn serve(app: &App, record: Record, wanted: Wanted, socket: &mut WebSocket) -> Sent {
    let Ok(reader) = Reader::open(app, &record, wanted).await else {
        refuse(socket, "the log cannot be read").await;
        return Ok(());
    };
    let mut following = Following::new(app, record, reader);
    loop {
        let lines = tokio::select! {
            lines = following.next() => lines,
            heard = socket.recv() => match heard {
                None | Some(Err(_) | Ok(Message::Close(_))) => return Ok(()),
                Some(Ok(_)) => continue,
            },
        };
        let Some(lines) = lines else {
            break;
        };
        for line in lines {
            send(socket, json!({ "type": "stdout", "message": line.text })).await?;
        }
    }
    if let Some(message) = following.farewell {
        send(socket, json!({ "type": "system", "message": message })).await?;
    }
    socket.send(Message::Close(None)).await
}

pub(super) async fn refuse(socket: &mut WebSocket, reason: &str) {
    // Whether it arrives or not, the socket is closed next.
    let _ = send(socket, json!({ "status": "failed", "reason": reason })).await;
    let _ = socket.send(Message::Close(None)).await;
}

pub(super) async fn send(socket: &mut WebSocket, frame: Value) -> Sent {
    socket.send(Message::Text(frame.to_string().into())).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted(pairs: &[(&str, &str)]) -> Result<Wanted, ApiError> {
        let query = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Wanted::parse(&query.collect())
    }

    #[test]
    fn since_is_a_date_or_seconds_and_what_is_neither_is_named() {
        for text in [
            "1970-01-01T00:00:10Z",
            "10",
            "10.0",
            "1970-01-01T01:00:10 01:00",
        ] {
            assert_eq!(
                wanted(&[("since", text)]).unwrap().since,
                10_000_000,
                "{text}"
            );
        }
        let all = wanted(&[]).unwrap();
        assert_eq!(
            (all.since, all.tail, all.follow),
            (i64::MIN, usize::MAX, false)
        );
        for (field, text) in [("since", "yesterday"), ("tail", "-1"), ("follow", "maybe")] {
            let error = format!("{:?}", wanted(&[(field, text)]).unwrap_err());
            assert!(error.contains(field), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_query_is_read_or_refused(since in ".*", tail in ".*", follow in ".*") {
            let _ = wanted(&[("since", &since), ("tail", &tail), ("follow", &follow)]);
        }
    }
}
