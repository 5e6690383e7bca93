//! `admin.sock` in the data directory: HTTP for those who have access to the machine.

use std::os::unix::fs::PermissionsExt;

use tokio::net::UnixListener;

use crate::api;
use crate::node::Node;

/// Name of the socket.
pub const SOCKET: &str = "admin.sock";

fn listen(node: &Node) -> std::io::Result<UnixListener> {
    let path = node.config.data_dir.join(SOCKET);
    // What a killed process left: this one holds the lock on the directory.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until the node stops. Without the socket the node works all the same.
pub async fn run(node: Node) {
    let served = match listen(&node) {
        Ok(listener) => axum::serve(listener, api::admin(node)).await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::warn!(%error, "cannot serve {SOCKET}");
    }
}
