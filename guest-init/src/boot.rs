//! From the first instruction to the workload: mounts, the host's configuration, and one of two ways.

use std::io::Read as _;
use std::time::{Duration, Instant};

use crn_protocol::guest::{CONTROL_PORT, FromGuest, GuestConfig, Workload};
use rustix::net::Shutdown;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::control::{Incoming, configure, send};
use crate::error::{Context, Failure, Result, Stage};
use crate::system::{power_off, power_off_on_panic, prepare, say};
use crate::vsock::{Stream, shutdown};
use crate::{instance, program};

/// How long the host may take to read the last line and close the stream before the power goes.
const LAST_LINE: Duration = Duration::from_secs(1);

/// Runs the machine; it ends in a power off or as another init.
pub fn run() -> ! {
    power_off_on_panic();
    if let Err(failure) = prepare().stage("mount the kernel's file systems") {
        give_up(&failure);
    }
    let (incoming, mut outgoing) = match connect().stage("connect to the host") {
        Ok(streams) => streams,
        Err(failure) => give_up(&failure),
    };
    let last = workload(incoming, &mut outgoing).unwrap_or_else(|failure| {
        say(&format!("{}: {}", failure.stage, failure.chain()));
        FromGuest::Failed {
            stage: failure.stage.to_owned(),
            error: failure.chain(),
        }
    });
    if let FromGuest::Exited { .. } | FromGuest::Failed { .. } = &last {
        say(&format!("the end: {last:?}"));
    }
    match send(&mut outgoing, &last) {
        Ok(()) => close(outgoing),
        Err(error) => say(&format!("the last line: {error}")),
    }
    power_off()
}

fn give_up(failure: &Failure) -> ! {
    say(&format!("{}: {}", failure.stage, failure.chain()));
    power_off()
}

fn connect() -> Result<(Incoming<Stream>, Stream)> {
    let outgoing = Stream::connect(CONTROL_PORT)
        .context(|| format!("connect to vsock port {CONTROL_PORT}"))?;
    let incoming = outgoing
        .try_clone()
        .context(|| "duplicate the control stream".to_owned())?;
    Ok((Incoming::new(incoming), outgoing))
}

fn workload(
    mut incoming: Incoming<Stream>,
    outgoing: &mut Stream,
) -> std::result::Result<FromGuest, Failure> {
    let kernel = rustix::system::uname();
    let config: GuestConfig =
        configure(&mut incoming, outgoing, &kernel.release().to_string_lossy())
            .stage("configure")?;
    rustix::system::sethostname(config.hostname.as_bytes())
        .context(|| format!("set the host name {:?}", config.hostname))
        .stage("configure")?;
    match &config.workload {
        Workload::Program(program) => program::run(&config, program, incoming, outgoing),
        Workload::Instance { root } => {
            let successor = instance::prepare(root).stage("find kernel or root")?;
            send(outgoing, &FromGuest::Ready).stage("report ready")?;
            match instance::take_over(&successor).stage("start init")? {}
        }
    }
}

/// Says that nothing follows and waits for the host to close: what is still on its way when the power goes is lost.
fn close(mut stream: Stream) {
    shutdown(&stream, Shutdown::Write);
    let until = Instant::now() + LAST_LINE;
    let mut rest = [0; 512];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || set_socket_timeout(&stream, Timeout::Recv, Some(left)).is_err() {
            return;
        }
        if !matches!(stream.read(&mut rest), Ok(1..)) {
            return;
        }
    }
}
