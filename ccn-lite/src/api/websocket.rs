//! `GET /api/ws0/messages`: the past of a filter, then its future, one message a frame. `GET /api/ws0/status`: the
//! metrics whenever they changed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{
    CloseFrame, Message as Frame, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code,
};
use axum::response::Response;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, Interval, interval_at, timeout};

use super::error::ApiError;
use super::filter::{content_format, filter};
use super::metrics;
use super::params::Params;
use super::render::{self, ContentFormat};
use crate::activity::Held;
use crate::node::{Node, Published};
use crate::store::messages::{self, Filter, Message};
use crate::store::{After, Page, StoreError};

const DEFAULT_HISTORY: u64 = 10;
const MAX_HISTORY: u64 = 199;
/// Messages read at once while the past is sent.
const CHUNK: u64 = 200;
/// New messages kept while the past is sent.
const MAX_HELD: usize = 4096;
const PING_EVERY: Duration = Duration::from_secs(30);
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// How long a client may take to make room for a frame.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest frame read: clients have nothing to say.
const MAX_FRAME: usize = 1 << 16;

/// Why a socket was closed.
#[derive(Debug, thiserror::Error)]
enum SocketError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Socket(#[from] axum::Error),
    #[error("client is too slow")]
    Slow,
    #[error("too many connections")]
    Full,
}

/// A socket with its pings.
struct Line {
    socket: WebSocket,
    ping: Interval,
}

impl Line {
    fn new(socket: WebSocket) -> Self {
        Self {
            socket,
            ping: interval_at(Instant::now() + PING_EVERY, PING_EVERY),
        }
    }

    async fn send(&mut self, frame: Frame) -> Result<(), SocketError> {
        match timeout(PATIENCE, self.socket.send(frame)).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(SocketError::Slow),
        }
    }

    async fn send_text(&mut self, text: impl Into<Utf8Bytes>) -> Result<(), SocketError> {
        self.send(Frame::Text(text.into())).await
    }

    /// Keeps the line alive for ever; returns when the client hangs up.
    async fn listen(&mut self) -> Result<(), SocketError> {
        loop {
            tokio::select! {
                _ = self.ping.tick() => self.send(Frame::Ping(Vec::new().into())).await?,
                frame = self.socket.recv() => match frame {
                    None | Some(Ok(Frame::Close(_))) => return Ok(()),
                    Some(frame) => drop(frame?),
                },
            }
        }
    }
}

/// Serves a socket if there is a seat for it, and tells the client why when it ends.
fn open<F, R>(upgrade: WebSocketUpgrade, seat: Option<Held>, serve: F) -> Response
where
    F: FnOnce(Line) -> R + Send + 'static,
    R: Future<Output = (Line, Result<(), SocketError>)> + Send,
{
    upgrade
        .max_message_size(MAX_FRAME)
        .on_upgrade(move |socket| async move {
            let line = Line::new(socket);
            let (mut line, ended) = match &seat {
                Some(_) => serve(line).await,
                None => (line, Err(SocketError::Full)),
            };
            let Err(error) = ended else { return };
            tracing::debug!(%error, "websocket closed");
            let (code, reason) = match &error {
                // Better a closed socket than a silent gap: the client comes back and asks for the past.
                SocketError::Slow => (close_code::AGAIN, "Too slow"),
                SocketError::Full => (close_code::AGAIN, "Too many connections"),
                SocketError::Store(_) => (close_code::ERROR, "Internal error"),
                SocketError::Socket(_) => return,
            };
            let frame = CloseFrame {
                code,
                reason: reason.into(),
            };
            if let Err(error) = line.send(Frame::Close(Some(frame))).await {
                tracing::debug!(%error, "client has gone");
            }
        })
}

/// What a client of `/api/ws0/messages` asked for.
struct Wish {
    filter: Filter,
    format: ContentFormat,
    /// How many messages of the past; everything since the filter's start when not said.
    history: Option<u64>,
}

/// `GET /api/ws0/messages`, after the query was understood.
pub async fn messages(
    State(node): State<Node>,
    params: Params,
    upgrade: WebSocketUpgrade,
) -> Result<Response, ApiError> {
    let filter = filter(&params)?;
    let history = params.number::<u64>("history")?;
    if history.is_some_and(|history| history > MAX_HISTORY) {
        return Err(ApiError::unprocessable(format!(
            "history: at most {MAX_HISTORY}"
        )));
    }
    let wish = Wish {
        format: content_format(&params)?,
        history: match filter.start {
            None => Some(history.unwrap_or(DEFAULT_HISTORY)),
            Some(_) => history,
        },
        filter,
    };
    let seat = node.activity.feeds.take();
    Ok(open(upgrade, seat, move |mut line| async move {
        let ended = feed(&node, &mut line, &wish).await;
        (line, ended)
    }))
}

/// `GET /api/ws0/status`.
pub async fn status(State(node): State<Node>, upgrade: WebSocketUpgrade) -> Response {
    let seat = node.activity.statuses.take();
    open(upgrade, seat, move |mut line| async move {
        let ended = tell_status(&node, &mut line).await;
        (line, ended)
    })
}

async fn tell_status(node: &Node, line: &mut Line) -> Result<(), SocketError> {
    let mut told = None;
    let mut timer = tokio::time::interval(STATUS_EVERY);
    loop {
        tokio::select! {
            _ = timer.tick() => {
                let now = metrics::as_json(node).await?;
                if told.as_ref() != Some(&now) {
                    line.send_text(now.to_string()).await?;
                    told = Some(now);
                }
            }
            ended = line.listen() => return ended,
        }
    }
}

/// A message that came into force as a frame; none when it is gone already.
async fn live_frame(
    node: &Node,
    published: &Published,
    format: ContentFormat,
) -> Result<Option<Utf8Bytes>, StoreError> {
    let text = |message: &Message| {
        let mut value = render::message(message);
        if format != ContentFormat::Full
            && let Some(map) = value.as_object_mut()
        {
            map.remove("content");
        }
        value.to_string()
    };
    if published.is_whole() {
        return Ok(Some(match format {
            ContentFormat::Full => published.frame(text),
            _ => text(&published.message).into(),
        }));
    }
    let hash = published.message.item_hash.clone();
    let message = node
        .store
        .read::<_, StoreError, _>(move |conn| messages::get(conn, &hash))
        .await?;
    Ok(message.map(|message| text(&message).into()))
}

async fn send_live(
    node: &Node,
    line: &mut Line,
    wish: &Wish,
    published: &Published,
) -> Result<(), SocketError> {
    match live_frame(node, published, wish.format).await? {
        Some(frame) => {
            line.send_text(frame).await?;
            node.activity.sent();
            Ok(())
        }
        None => Ok(()),
    }
}

async fn feed(node: &Node, line: &mut Line, wish: &Wish) -> Result<(), SocketError> {
    // Subscribed before the past is read, so nothing falls in between; what is seen twice is left out.
    let mut events = node.events.subscribe();
    let (sent, held) = replay(node, line, wish, &mut events).await?;
    let is_new = |published: &Published| {
        wish.filter.matches(&published.message) && !sent.contains(&published.message.item_hash)
    };
    for published in held.iter().filter(|published| is_new(published)) {
        send_live(node, line, wish, published).await?;
    }
    drop(held);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(published) => {
                    if is_new(&published) {
                        send_live(node, line, wish, &published).await?;
                    }
                }
                Err(RecvError::Lagged(_)) => return Err(SocketError::Slow),
                Err(RecvError::Closed) => return Ok(()),
            },
            ended = line.listen() => return ended,
        }
    }
}

/// Sends the past, oldest first; returns what was sent last and what came into force meanwhile.
async fn replay(
    node: &Node,
    line: &mut Line,
    wish: &Wish,
    events: &mut Receiver<Arc<Published>>,
) -> Result<(HashSet<String>, Vec<Arc<Published>>), SocketError> {
    let mut held = Vec::new();
    let mut sent = HashSet::new();
    if let Some(history) = wish.history {
        if history > 0 {
            let page = Page {
                limit: history,
                page: 1,
            };
            let past = read(node, &wish.filter, false, page, None).await?;
            for message in past.iter().rev() {
                line.send_text(past_frame(message, wish.format)).await?;
            }
            sent.extend(past.into_iter().map(|message| message.item_hash));
        }
        return Ok((sent, held));
    }
    let mut after = None;
    loop {
        let page = Page {
            limit: CHUNK,
            page: 1,
        };
        let past = read(node, &wish.filter, true, page, after.take()).await?;
        for message in &past {
            line.send_text(past_frame(message, wish.format)).await?;
        }
        hold(&wish.filter, events, &mut held)?;
        // Only what came in since the beginning can come by twice.
        sent.extend(
            past.iter()
                .filter(|message| {
                    held.iter()
                        .any(|published| published.message.item_hash == message.item_hash)
                })
                .map(|message| message.item_hash.clone()),
        );
        match past.last() {
            Some(last) if past.len() as u64 == CHUNK => {
                after = Some(After {
                    time: last.time,
                    hash: last.item_hash.clone(),
                });
            }
            _ => {
                sent.extend(past.into_iter().map(|message| message.item_hash));
                return Ok((sent, held));
            }
        }
    }
}

fn past_frame(message: &Message, format: ContentFormat) -> Utf8Bytes {
    render::list_item(message, format).to_string().into()
}

async fn read(
    node: &Node,
    filter: &Filter,
    ascending: bool,
    page: Page,
    after: Option<After>,
) -> Result<Vec<Message>, StoreError> {
    let filter = filter.clone();
    node.store
        .read(move |conn| messages::list(conn, &filter, ascending, page, after.as_ref()))
        .await
}

/// Takes what has come into force and is wanted out of the channel, before it runs over.
fn hold(
    filter: &Filter,
    events: &mut Receiver<Arc<Published>>,
    held: &mut Vec<Arc<Published>>,
) -> Result<(), SocketError> {
    loop {
        match events.try_recv() {
            Ok(published) if filter.matches(&published.message) => held.push(published),
            Ok(_) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => return Ok(()),
            Err(TryRecvError::Lagged(_)) => return Err(SocketError::Slow),
        }
        if held.len() > MAX_HELD {
            return Err(SocketError::Slow);
        }
    }
}
