//! Many WebSocket subscribers at once: each must get every message, and one that reads nothing is told why it is dropped.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::StreamExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::load;

/// How long a subscriber waits for the next message.
const PATIENCE: Duration = Duration::from_secs(120);

/// What happened.
#[derive(Debug, Clone, Copy)]
pub struct Fanout {
    /// Frames that should have come and did not, over all subscribers.
    pub lost: u64,
    /// Frames that came.
    pub delivered: u64,
}

async fn subscribe(address: SocketAddr) -> anyhow::Result<WebSocketStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let url = format!("ws://{address}/api/ws0/messages?history=0");
    let (socket, _) = client_async(url, stream).await?;
    Ok(socket)
}

async fn count(mut socket: WebSocketStream<TcpStream>, expected: u64) -> u64 {
    let mut seen = 0;
    while seen < expected {
        match tokio::time::timeout(PATIENCE, socket.next()).await {
            Ok(Some(Ok(Message::Text(_)))) => seen += 1,
            Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => break,
            Ok(Some(Ok(_))) => {}
        }
    }
    seen
}

/// Publishes messages `range` to `subscribers` listeners.
pub fn run(
    address: SocketAddr,
    range: std::ops::Range<u64>,
    subscribers: u64,
) -> anyhow::Result<Fanout> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let expected = range.end - range.start;
    let mut listeners = Vec::new();
    for _ in 0..subscribers {
        let socket = runtime
            .block_on(subscribe(address))
            .context("subscribe to messages")?;
        listeners.push(runtime.spawn(count(socket, expected)));
    }
    let keys = load::senders()?;
    load::publish(address, range, 4, &keys, |_| {})?;
    let mut delivered = 0;
    for listener in listeners {
        delivered += runtime.block_on(listener)?;
    }
    ensure!(delivered > 0, "no subscriber got anything");
    Ok(Fanout {
        lost: subscribers * expected - delivered,
        delivered,
    })
}
