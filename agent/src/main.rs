//! `crn-agent`: reads the configuration, puts the parts together, serves until told to stop. Machines outlive it.

#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use crn_agent::api;
use crn_agent::auth::operator::OperatorToken;
use crn_agent::config::Config;
use crn_agent::content::Cache;
use crn_agent::content::raw::Converter;
use crn_agent::intake::Intake;
use crn_agent::intake::ccns::Ccns;
use crn_agent::intake::watch::{SWEEP, Watch};
use crn_agent::intake::workload::Facts;
use crn_agent::ledger::Ledger;
use crn_agent::logs::Logs;
use crn_agent::machine::cgroup::Cgroups;
use crn_agent::machine::pool::Pool;
use crn_agent::metrics;
use crn_agent::net::{Net, Pools};
use crn_agent::reconcile::Reconciler;
use crn_agent::reconcile::host::Hypervisor;
use crn_agent::reconcile::kvm::Kvm;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// For answers that are being written when no more requests are taken.
const GOODBYE: Duration = Duration::from_secs(2);

/// Threads for what blocks.
const BLOCKING: usize = 32;

/// The compute node's daemon.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/usr/lib/crn/agent.toml",
        env = "CRN_AGENT_CONFIG",
        global = true
    )]
    config: PathBuf,
    /// How log lines are written.
    #[arg(
        long,
        value_enum,
        default_value_t,
        env = "CRN_LOG_FORMAT",
        global = true
    )]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Option<Command>,
}

/// See [`Arguments`].
#[derive(Clone, Copy, Default, ValueEnum)]
enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for log collectors.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Read and check the configuration, and do nothing else.
    CheckConfig,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    match arguments.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crn-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let config = Config::load(&arguments.config)?;
    if let Some(Command::CheckConfig) = arguments.command {
        println!("{}: good", arguments.config.display());
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Each thread keeps memory of its own for good; what blocks is disk and netlink, which more would not speed up.
        .max_blocking_threads(BLOCKING)
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(Arc::new(config)))
}

async fn serve(config: Arc<Config>) -> anyhow::Result<()> {
    for dir in [
        config.state_dir.join("vm"),
        config.state_dir.join("cache"),
        config.run_dir.join("vm"),
    ] {
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let ledger_file = config.state_dir.join("agent.sqlite");
    let ledger = Ledger::open(&ledger_file)
        .with_context(|| format!("cannot open {}", ledger_file.display()))?;
    let ccn = Ccns::new(config.ccns(), config.trust.quorum);
    let cache = Cache::open(
        &config.state_dir.join("cache"),
        ccn.clone(),
        Converter {
            program: config.converter.clone(),
            max_bytes: config.limits.max_file_bytes,
        },
        config.limits.max_file_bytes,
    )
    .context("cannot open the cache")?;
    let processor = tokio::task::spawn_blocking(metrics::processor).await?;
    let intake = Intake::new(ccn, cache, Facts::new(&config, processor));

    let pools = Pools::parse(&config.network.ipv4_pool, &config.network.ipv6_pool)?;
    let interface = config.network.interface.as_deref();
    let net = Net::open(interface, pools, config.network.limits())
        .await
        .context("cannot set up the network")?;
    let host_ipv4 = net
        .host_ipv4()
        .await
        .context("cannot read the host's address")?;
    let dns = resolvers(&config).await;
    tracing::info!(uplink = net.uplink(), ?host_ipv4, ?dns, "network");
    let cgroups = config
        .sandbox
        .cgroups
        .then(|| Cgroups::open(&config.state_dir, config.sandbox.disk_rate()))
        .transpose()
        .context("cannot limit machines ([sandbox] cgroups = false does without)")?;
    let pool = Pool::open(
        &config.vmm,
        &config.run_dir,
        &config.state_dir,
        config.sandbox.spare,
    )
    .context("cannot keep monitors in reserve ([sandbox] spare = 0 does without)")?;
    let host: Arc<dyn Hypervisor> =
        Arc::new(Kvm::new(Arc::clone(&config), net, dns, cgroups, pool));

    let listener = tokio::net::TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let logs = Logs::start(&config.state_dir.join("vm"), config.limits.log_bytes)
        .context("cannot watch the machines' consoles")?;
    let operator =
        OperatorToken::open(&config.state_dir).context("cannot read the operator's token")?;
    let reconciler = Reconciler::start(
        Arc::clone(&config),
        ledger.clone(),
        intake.clone(),
        Arc::clone(&host),
        logs,
    )
    .await?;
    Watch {
        intake: intake.clone(),
        ledger: ledger.clone(),
        reconciler: reconciler.clone(),
        sweep: SWEEP,
    }
    .start();
    let app = api::Shared::new(
        Arc::clone(&config),
        ledger,
        intake,
        reconciler,
        host,
        host_ipv4,
        operator,
    );
    let drain = Arc::clone(&app.drain);
    let drain_limit = config.program.drain;
    let service = api::router(app).into_make_service_with_connect_info::<SocketAddr>();

    // Absent when not started by a service manager.
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!("the service manager was not told: {error}");
    }
    tracing::info!(listen = %config.listen, version = env!("CARGO_PKG_VERSION"), "ready");

    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    let mut serving = tokio::spawn(async move {
        axum::serve(listener, service)
            .with_graceful_shutdown(async move { stopped.notified().await })
            .await
    });
    tokio::select! {
        served = &mut serving => served?.context("the server failed")?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("finishing what programs are answering");
    let ended = async {
        if tokio::time::timeout(drain_limit, drain.finish())
            .await
            .is_err()
        {
            tracing::warn!("some answers were not finished within {drain_limit:?}");
        }
        stop.notify_one();
        // Those who watch logs and events are cut off; they come back to the next agent.
        tokio::time::timeout(GOODBYE, &mut serving).await.ok();
    };
    tokio::select! {
        () = ended => {}
        // Told twice: at once.
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // Every acknowledged write is on the disk and machines are not our children: there is nothing to wait for.
    tracing::info!("ending; machines go on");
    Ok(())
}

/// The guests' resolvers: the configured ones, or the host's own without those only the host can reach.
async fn resolvers(config: &Config) -> Vec<IpAddr> {
    if !config.network.dns.is_empty() {
        return config.network.dns.clone();
    }
    for path in ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"] {
        let Ok(text) = tokio::fs::read_to_string(Path::new(path)).await else {
            continue;
        };
        let found: Vec<IpAddr> = text
            .lines()
            .filter_map(|line| {
                line.strip_prefix("nameserver")?
                    .trim()
                    .parse::<IpAddr>()
                    .ok()
            })
            .filter(|address| !address.is_loopback())
            .collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}
