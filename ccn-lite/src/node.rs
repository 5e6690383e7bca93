//! The node: what every request and background task shares.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use aleph_message::Keypair;
use axum::extract::ws::Utf8Bytes;
use tokio::sync::{Notify, broadcast};

use crate::activity::Activity;
use crate::config::Config;
use crate::files::Blobs;
use crate::limits::Guard;
use crate::store::messages::Message;
use crate::store::{Store, StoreError};

/// Events a slow listener may fall behind before it loses some.
const EVENTS: usize = 1024;
/// Longest content text that is kept for listeners, characters; what is longer they read from the database, so that all
/// events together stay below some tens of megabytes.
const KEPT: i64 = 8192;

/// A message that came into force, sent to listeners after it is committed.
#[derive(Debug)]
pub struct Published {
    /// The message; without its content when that is long.
    pub message: Message,
    is_whole: bool,
    /// Its JSON, written once for all who want it.
    frame: OnceLock<Utf8Bytes>,
}

impl Published {
    /// A message to tell about.
    pub fn new(mut message: Message) -> Self {
        let is_whole = message.size <= KEPT;
        if !is_whole {
            message.content = serde_json::Value::Null;
            message.item_content = None;
        }
        Self {
            message,
            is_whole,
            frame: OnceLock::new(),
        }
    }

    /// Whether the message is here with its content.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The message as one WebSocket frame, written by `render` when this is the first who asks.
    pub fn frame(&self, render: impl FnOnce(&Message) -> String) -> Utf8Bytes {
        self.frame
            .get_or_init(|| render(&self.message).into())
            .clone()
    }
}

/// Why the node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file or directory cannot be used.
    #[error("cannot use {path}")]
    Io {
        /// The path.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The database cannot be used.
    #[error("cannot use the database")]
    Store(#[from] StoreError),
    /// Another process uses the data directory.
    #[error("{path} is used by another ccn-lite")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// `node.key` does not hold a key.
    #[error("{path} holds no valid key")]
    Key {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: aleph_message::SigningError,
    },
}

/// Shared state.
pub struct Inner {
    /// The configuration.
    pub config: Config,
    /// The database.
    pub store: Store,
    /// The files.
    pub blobs: Blobs,
    /// This node's key.
    pub key: Keypair,
    /// What nobody may do to everybody else.
    pub guard: Guard,
    /// What goes on.
    pub activity: Activity,
    /// Messages as they come into force.
    pub events: broadcast::Sender<Arc<Published>>,
    /// Tells the worker that a message may be due.
    pub due: Notify,
    /// Held until the node is gone.
    _lock: std::fs::File,
}

/// Handle on the node, cheap to clone.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

impl Deref for Node {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::Io { path, source }
}

/// Writes `text` so that the file is there completely or not at all. Temporary files are private to the user.
fn write_atomically(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    file.write_all(text.as_bytes())?;
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(parent)?.sync_all()
}

fn load_key(data_dir: &Path) -> Result<Keypair, StartError> {
    let path = data_dir.join("node.key");
    let key = match std::fs::read_to_string(&path) {
        Ok(text) => Keypair::from_hex(&text).map_err(|source| StartError::Key {
            path: path.clone(),
            source,
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = Keypair::generate();
            write_atomically(&path, &(key.to_secret_hex() + "\n"), 0o600).map_err(io(&path))?;
            key
        }
        Err(error) => return Err(io(&path)(error)),
    };
    let path = data_dir.join("address");
    write_atomically(&path, &(key.address() + "\n"), 0o644).map_err(io(&path))?;
    Ok(key)
}

/// Keeps others from serving the same directory for as long as the file is open; the system lets go when a process ends,
/// however it does.
fn lock(data_dir: &Path) -> Result<std::fs::File, StartError> {
    use rustix::fs::FlockOperation;
    let path = data_dir.join("lock");
    let file = std::fs::File::create(&path).map_err(io(&path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::InUse {
            path: data_dir.to_owned(),
        }),
        Err(error) => Err(io(&path)(error.into())),
    }
}

impl Node {
    /// Opens the data directory, creating what is missing, and applies the genesis.
    pub async fn open(config: Config) -> Result<Self, StartError> {
        let dir = &config.data_dir;
        std::fs::create_dir_all(dir).map_err(io(dir))?;
        let lock = lock(dir)?;
        let key = load_key(dir)?;
        let files = dir.join("files");
        let blobs = Blobs::open(&files).map_err(io(&files))?;
        let store = Store::open(&dir.join("ccn-lite.sqlite"))?;
        crate::genesis::apply(&store, &config, &key.address()).await?;
        let (events, _) = broadcast::channel(EVENTS);
        let guard = Guard::new(config.limits.clone(), config.data_dir.clone());
        Ok(Self(Arc::new(Inner {
            config,
            guard,
            activity: Activity::default(),
            _lock: lock,
            store,
            blobs,
            key,
            events,
            due: Notify::new(),
        })))
    }
}
