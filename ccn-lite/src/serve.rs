//! Running the node: listen, work in the background, stop when asked.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::admin;
use crate::api;
use crate::config::Config;
use crate::ledger::removal;
use crate::node::{Node, StartError};
use crate::pipeline::worker;
use crate::scheduler::{self, Scheduler};

/// How long requests in progress may take after the node was asked to stop.
const GRACE: Duration = Duration::from_secs(5);

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
            tokio::spawn(removal::run(node.clone())),
        ];
        if node.config.scheduler.enabled {
            let scheduler = Scheduler::default();
            router = router.merge(scheduler::routes(scheduler.clone()));
            tasks.push(tokio::spawn(scheduler.run(node.clone())));
        }
        tasks.push(tokio::spawn(admin::run(node)));
        let router = api::with_cors(router);
        let (stopping, mut stopped) = watch::channel(false);
        let serving = axum::serve(self.listener, router)
            .with_graceful_shutdown(async move {
                // Dropping the sender stops the server as well.
                let _ = stop.await;
                stopping.send_replace(true);
            })
            .into_future();
        let patience = async {
            // Without a sender the server is gone, and so is this future.
            let _ = stopped.wait_for(|stopping| *stopping).await;
            tokio::time::sleep(GRACE).await;
        };
        let served = tokio::select! {
            served = serving => served.map_err(ServeError::Serve),
            () = patience => Ok(()),
        };
        for task in tasks {
            task.abort();
        }
        served
    }
}
