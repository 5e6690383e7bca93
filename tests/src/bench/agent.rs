//! `crn-agent` with many machines: how fast a push is answered, what it takes in memory, at rest and for a restart.
//!
//! Agent, monitor and core channel node are the released programs, in a network namespace of their own. The machines are
//! real ones under this host's KVM; their guest is four bytes that stand still, so that this runs where stock kernels do
//! not, and so that what is counted is the host's side. CPU time is the agent's own and repeats on a busy machine; what is
//! measured by the clock says something on a quiet one only.

mod host;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use self::host::Host;
use super::ccn::mib;
use super::report::{Value, unbounded, value};

/// The first argument in the namespace; the second is the [`Setup`].
const INSIDE: &str = "agent-inside";
/// Machines pushed at once to an agent that has none.
const PUSHED: usize = 50;
/// For how long an agent is watched at rest.
const REST: Duration = Duration::from_secs(60);

/// What is measured, and with what.
#[derive(Debug, Serialize, Deserialize)]
pub struct Setup {
    /// The agent, a release build.
    pub agent: PathBuf,
    /// The monitor.
    pub vmm: PathBuf,
    /// The core channel node.
    pub ccn: PathBuf,
    /// Machines the agent has in the end.
    pub machines: usize,
    /// Where all of their data go; what stands there is removed first.
    pub directory: PathBuf,
}

/// Measures everything in a network namespace.
///
/// # Errors
/// When a program cannot be started or does not do its part.
pub fn run(setup: &Setup) -> anyhow::Result<Vec<Value>> {
    ensure!(
        setup.machines >= PUSHED,
        "--machines: expected {PUSHED} or more"
    );
    let absolute = |path: &PathBuf| {
        let path = fs::canonicalize(path);
        path.with_context(|| format!("{setup:?}"))
    };
    fs::create_dir_all(&setup.directory)?;
    let setup = Setup {
        agent: absolute(&setup.agent)?,
        vmm: absolute(&setup.vmm)?,
        ccn: absolute(&setup.ccn)?,
        machines: setup.machines,
        directory: absolute(&setup.directory)?,
    };
    let output = Command::new("unshare")
        .args(["--net", "--"])
        .arg(std::env::current_exe()?)
        .args([INSIDE, &serde_json::to_string(&setup)?])
        .stderr(Stdio::inherit())
        .output()
        .context("start unshare")?;
    ensure!(output.status.success(), "measuring the agent failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Measures and prints, when this process is the one in the namespace.
#[must_use]
pub fn inside() -> Option<anyhow::Result<()>> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(INSIDE) {
        return None;
    }
    let setup = arguments.next().unwrap_or_default();
    let measured = serde_json::from_str(&setup)
        .map_err(anyhow::Error::from)
        .and_then(|setup| measure(&setup))
        .and_then(|values| {
            println!("{}", serde_json::to_string(&values)?);
            Ok(())
        });
    Some(measured)
}

fn measure(setup: &Setup) -> anyhow::Result<Vec<Value>> {
    let mut host = Host::prepare(setup)?;
    let machines = host.publish(setup.machines)?;
    let mut values = Vec::new();
    host.start()?;

    let begin = Instant::now();
    host.push(&machines[..PUSHED])?;
    let answered = begin.elapsed();
    values.push(value(
        "push of 50 machines, answered",
        "ms, clock",
        answered.as_secs_f64() * 1e3,
        1000.0,
    ));
    host.until_running(PUSHED)?;
    let all = begin.elapsed();
    values.push(unbounded(
        "push of 50 machines, all running",
        "ms, clock",
        all.as_secs_f64() * 1e3,
    ));
    values.push(value(
        "CPU per machine started, 50 at once",
        "ms",
        host.cpu()? * 1e3 / PUSHED as f64,
        50.0,
    ));
    host.push(&machines)?;
    host.until_running(machines.len())?;
    values.push(value(
        "memory, all machines",
        "MiB",
        mib(host.memory()?.resident),
        40.0,
    ));

    host.quiet()?;
    let before = host.cpu()?;
    let counted = host.count(["raw_syscalls:sys_enter", "instructions"], REST)?;
    let at_rest = (host.cpu()? - before) / REST.as_secs_f64();
    values.push(value(
        "CPU at rest, all machines, over a minute",
        "ms a second",
        at_rest * 1e3,
        10.0,
    ));
    let [calls, instructions] = counted.map(|count| count.map(|count| count / REST.as_secs_f64()));
    if let Some(calls) = calls {
        let name = "system calls at rest, all machines, over a minute";
        values.push(unbounded(name, "a second", calls));
    }
    if let Some(instructions) = instructions {
        let name = "instructions at rest, all machines, over a minute";
        values.push(unbounded(name, "million a second", instructions / 1e6));
    }

    host.quiet()?;
    let transactions = host.transactions()?;
    host.forget(&machines[0])?;
    host.until_running(machines.len() - 1)?;
    host.quiet()?;
    values.push(value(
        "nftables transactions, one machine gone",
        "transactions",
        (host.transactions()? - transactions) as f64,
        1.0,
    ));

    host.kill()?;
    let begin = Instant::now();
    host.start()?;
    let serving = begin.elapsed();
    let cpu = host.cpu()?;
    values.push(value(
        "restart to serving, all machines",
        "ms, clock",
        serving.as_secs_f64() * 1e3,
        1000.0,
    ));
    values.push(value(
        "restart to serving, all machines, CPU",
        "ms",
        cpu * 1e3,
        200.0,
    ));
    host.until_adopted(machines.len() - 1)?;
    host.end()?;
    Ok(values)
}
