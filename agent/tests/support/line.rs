//! The way to a core channel node, which breaks as ways do.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How the way is. What was under way when it changes breaks off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Good,
    /// Nobody is there.
    Dead,
    /// After so many bytes of a connection's answers nothing more comes.
    Stalls(u64),
    /// After so many bytes of a connection's answers it breaks off.
    Breaks(u64),
}

/// A relay to one node.
pub struct Line {
    address: SocketAddr,
    way: watch::Sender<(Way, SocketAddr)>,
}

impl Line {
    pub async fn to(node: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, ways) = watch::channel((Way::Good, node));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, ways.clone()));
            }
        });
        Self { address, way }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set(&self, way: Way) {
        self.way.send_modify(|current| current.0 = way);
    }

    /// It leads to another node.
    pub fn lead_to(&self, node: SocketAddr) {
        self.way.send_modify(|current| current.1 = node);
    }
}

async fn relay(client: TcpStream, mut ways: watch::Receiver<(Way, SocketAddr)>) {
    let (way, node) = *ways.borrow_and_update();
    if way == Way::Dead {
        return;
    }
    let Ok(node) = TcpStream::connect(node).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_node, mut to_node) = node.into_split();
    let answers = async {
        let (Way::Stalls(limit) | Way::Breaks(limit)) = way else {
            // Either end may go at any time.
            let _ = copy(&mut from_node, &mut to_client).await;
            return;
        };
        let _ = copy(&mut from_node.take(limit), &mut to_client).await;
        let _ = to_client.flush().await;
        if matches!(way, Way::Stalls(_)) {
            std::future::pending::<()>().await;
        }
    };
    let questions = async {
        let _ = copy(&mut from_client, &mut to_node).await;
        // The client is done asking; the answer may be on its way.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = answers => {}
        () = questions => {}
        _ = ways.changed() => {}
    }
}
