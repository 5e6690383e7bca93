//! A machine's serial console over a WebSocket: what the guest prints, and what is typed.

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::Response;
use bytes::Bytes;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::logs::{Sent, greet, refuse, send, viewed};
use super::{ApiError, App};

/// The longest frame taken, and the most bytes in one sent.
const MAX_FRAME: usize = 64 * 1024;

/// `GET /control/machine/{hash}/console`, a WebSocket. The first frame says who it is, as for logs; then the guest's
/// output comes in binary frames, the latest first, and every frame sent is typed.
pub(super) async fn attach(
    State(app): State<App>,
    Path(reference): Path<String>,
    uri: Uri,
    upgrade: WebSocketUpgrade,
) -> Result<Response, ApiError> {
    let record = viewed(&app, &reference).await?;
    Ok(upgrade
        .max_message_size(MAX_FRAME)
        .on_upgrade(move |mut socket| async move {
            let Some(_place) = greet(&app, &record, &uri, &mut socket, true).await else {
                return;
            };
            match app.host.attach_console(&record.hash).await {
                // A viewer that goes away ends it; nobody is left to be told.
                Ok(console) => drop(carry(console, &mut socket).await),
                Err(error) => refuse(&mut socket, &crate::chain(&error)).await,
            }
        }))
}

async fn carry(console: UnixStream, socket: &mut WebSocket) -> Sent {
    let (mut output, mut input) = console.into_split();
    let mut bytes = vec![0; MAX_FRAME];
    loop {
        tokio::select! {
            read = output.read(&mut bytes) => match read {
                Ok(count) if count > 0 => {
                    let frame = Bytes::copy_from_slice(bytes.get(..count).unwrap_or_default());
                    socket.send(Message::Binary(frame)).await?;
                }
                _ => break,
            },
            heard = socket.recv() => {
                let typed = match heard {
                    None | Some(Err(_) | Ok(Message::Close(_))) => return Ok(()),
                    Some(Ok(Message::Text(text))) => Bytes::from(text),
                    Some(Ok(Message::Binary(bytes))) => bytes,
                    Some(Ok(_)) => continue,
                };
                if input.write_all(&typed).await.is_err() {
                    break;
                }
            }
        }
    }
    send(
        socket,
        json!({ "type": "system", "message": "VM is not running" }),
    )
    .await?;
    socket.send(Message::Close(None)).await
}
