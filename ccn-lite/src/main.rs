//! The `ccn-lite` program.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use ccn_lite::backup::{self, BackupArgs};
use ccn_lite::config::Config;
use ccn_lite::export::{self, ExportArgs};
use ccn_lite::import::{self, ImportArgs};
use ccn_lite::key::{self, KeyArgs};
use ccn_lite::publish::{self, PublishArgs};
use ccn_lite::serve::Server;
use ccn_lite::verify::{self, VerifyArgs};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

/// The embedded core channel node.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the node.
    Serve {
        /// Configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Read the configuration, report what is wrong with it, do nothing else.
    CheckConfig {
        /// Configuration file.
        config: PathBuf,
    },
    /// Copy everything a node keeps, also while it runs.
    Backup(BackupArgs),
    /// Check everything a node keeps: the database, every message, every file.
    Verify(VerifyArgs),
    /// Write every message, one JSON object a line.
    Export(ExportArgs),
    /// Take messages from files, one JSON object a line, into a node that does not run.
    Import(ImportArgs),
    /// Store a file on a node.
    Publish(PublishArgs),
    /// Make keys and tell their addresses.
    Key(KeyArgs),
}

/// Tells the service manager, if there is one, that the node serves.
fn notify_ready() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = notify(Path::new(&path), b"READY=1\n") {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

fn notify(path: &Path, state: &[u8]) -> std::io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let address = match path.as_os_str().as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.send_to_addr(state, &address)?;
    Ok(())
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let server = Server::bind(config).await?;
    let address = server.local_addr().context("no local address")?;
    let (stop, stopped) = oneshot::channel();
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        // The server may have failed already.
        let _ = stop.send(());
    });
    tracing::info!(%address, node = server.node().key.address(), "serving");
    notify_ready();
    server.run(stopped).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    match Cli::parse().command {
        Command::Serve { config } => serve(Config::load(&config)?).await?,
        Command::CheckConfig { config } => {
            Config::load(&config)?;
            println!("{}: good", config.display());
        }
        Command::Backup(args) => backup::run(&args)?,
        Command::Verify(args) => verify::run(&args)?,
        Command::Export(args) => export::run(&args)?,
        Command::Import(args) => return import::run(args).await,
        Command::Publish(args) => publish::run(args).await?,
        Command::Key(args) => key::run(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}
