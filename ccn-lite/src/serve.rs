//! Running the node: listen, work in the background, stop when asked.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::api;
use crate::config::Config;
use crate::node::{Node, StartError};
use crate::pipeline::worker;
use crate::scheduler::{self, Scheduler};

/// Why the node stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It could not start.
    #[error("cannot start")]
    Start(#[from] StartError),
    /// The address is not free.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The listener failed.
    #[error("cannot serve")]
    Serve(#[source] std::io::Error),
}

/// A node that listens but does not serve yet.
pub struct Server {
    node: Node,
    listener: TcpListener,
}

impl Server {
    /// Opens the data directory and binds the address.
    pub async fn bind(config: Config) -> Result<Self, ServeError> {
        let address = config.listen;
        let node = Node::open(config).await?;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ServeError::Listen { address, source })?;
        Ok(Self { node, listener })
    }

    /// The address in use, with the port chosen by the system when the configuration says 0.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Serves until `stop` fires or its sender is dropped; requests in progress are finished.
    pub async fn run(self, stop: oneshot::Receiver<()>) -> Result<(), ServeError> {
        let node = self.node;
        let mut router = api::router(node.clone());
        let mut tasks = vec![
            tokio::spawn(worker::run(node.clone())),
            tokio::spawn(worker::collect(node.clone())),
        ];
        if node.config.scheduler.enabled {
            let scheduler = Scheduler::default();
            router = router.merge(scheduler::routes(scheduler.clone()));
            tasks.push(tokio::spawn(scheduler.run(node)));
        }
        let router = api::with_cors(router);
        let served = axum::serve(self.listener, router)
            .with_graceful_shutdown(async {
                // Dropping the sender stops the server as well.
                let _ = stop.await;
            })
            .await
            .map_err(ServeError::Serve);
        for task in tasks {
            task.abort();
        }
        served
    }
}
