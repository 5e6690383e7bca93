//! `GET /api/ws0/messages`: the past of a filter, then its future, one message a frame.

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use tokio::sync::broadcast::error::RecvError;

use super::error::ApiError;
use super::messages::{content_format, filter};
use super::params::Params;
use super::render::{self, ContentFormat};
use crate::node::{Event, Node};
use crate::store::messages::{self, Filter};
use crate::store::{Page, StoreError};

const DEFAULT_HISTORY: u64 = 10;
const MAX_HISTORY: u64 = 199;
const PING_EVERY: Duration = Duration::from_secs(30);

/// Opens the socket after the query was understood.
pub async fn messages(
    State(node): State<Node>,
    params: Params,
    upgrade: WebSocketUpgrade,
) -> Result<Response, ApiError> {
    let filter = filter(&params)?;
    let format = content_format(&params)?;
    let history = params.number::<u64>("history")?.unwrap_or(DEFAULT_HISTORY);
    if history > MAX_HISTORY {
        return Err(ApiError::unprocessable(format!(
            "history: at most {MAX_HISTORY}"
        )));
    }
    Ok(upgrade
        .max_message_size(1 << 16)
        .on_upgrade(move |socket| async move {
            if let Err(error) = serve(node, socket, filter, format, history).await {
                tracing::debug!(%error, "websocket closed");
            }
        }))
}

#[derive(Debug, thiserror::Error)]
enum SocketError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Socket(#[from] axum::Error),
}

fn live_frame(message: &messages::Message, format: ContentFormat) -> Frame {
    let mut value = render::message(message);
    if format != ContentFormat::Full
        && let Some(map) = value.as_object_mut()
    {
        map.remove("content");
    }
    Frame::text(value.to_string())
}

async fn serve(
    node: Node,
    mut socket: WebSocket,
    filter: Filter,
    format: ContentFormat,
    history: u64,
) -> Result<(), SocketError> {
    // Subscribed before the past is read, so nothing falls in between; what is seen twice is left out.
    let mut events = node.events.subscribe();
    let mut sent = Vec::new();
    if history > 0 {
        let filter = filter.clone();
        let page = Page {
            limit: history,
            page: 1,
        };
        let past = node
            .store
            .read::<_, StoreError, _>(move |conn| messages::list(conn, &filter, false, page, None))
            .await?;
        for message in past.iter().rev() {
            let frame = render::list_item(message, format).to_string();
            socket.send(Frame::text(frame)).await?;
        }
        sent.extend(past.into_iter().map(|message| message.item_hash));
    }
    let mut ping = tokio::time::interval_at(tokio::time::Instant::now() + PING_EVERY, PING_EVERY);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(Event::Processed(message)) => {
                    if filter.matches(&message) && !sent.contains(&message.item_hash) {
                        socket.send(live_frame(&message, format)).await?;
                    }
                }
                Ok(_) => {}
                // Better a closed socket than a silent gap: the client reconnects and asks for the past.
                Err(RecvError::Lagged(_)) => {
                    let frame = CloseFrame { code: close_code::AGAIN, reason: "too slow".into() };
                    socket.send(Frame::Close(Some(frame))).await?;
                    return Ok(());
                }
                Err(RecvError::Closed) => return Ok(()),
            },
            _ = ping.tick() => socket.send(Frame::Ping(Vec::new().into())).await?,
            frame = socket.recv() => match frame {
                None | Some(Ok(Frame::Close(_))) => return Ok(()),
                Some(frame) => drop(frame?),
            },
        }
    }
}
