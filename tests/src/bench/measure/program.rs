//! A Python program that goes on from a snapshot, until it has begun to answer.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use crn_protocol::control::Request;
use crn_protocol::guest::{
    CONTROL_PORT, Code, Encoding, FromGuest, GuestConfig, HTTP_PORT, Identity, Interface, Program,
    ToGuest, Workload,
};
use crn_protocol::lines::encode;

use super::monitor::{Board, Monitor, Snapshot};
use super::{Measured, Plan};

/// Where the runtime stands in the machine.
pub const RUNTIME: &str = "/runtime.squashfs";
/// Where the program does.
const CODE: &str = "/main.py";
/// What a framework's smallest application comes down to.
const APPLICATION: &str = r#"
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("only HTTP is served")
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello\n"})
"#;
const BOARD: Board = Board {
    initramfs: "/first-stage",
    cmdline: "console=ttyS0 loglevel=4 panic=-1 net.ifnames=0",
    disks: &[(RUNTIME, "runtime"), (CODE, "code")],
};
const ANSWER: &[u8] = b"HTTP/1.1 200 ";

/// One of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// In a process that waits.
    Reserve,
    /// In a new process.
    New,
}

/// What is timed in each of them, in this order.
pub const MOMENTS: [&str; 2] = ["another identity", "first byte"];

impl Step {
    /// What the result of a moment is called.
    pub fn name(self, moment: &str) -> String {
        let process = match self {
            Self::Reserve => "in reserve",
            Self::New => "new process",
        };
        format!("{moment}, {process}")
    }

    /// Measures nanoseconds since before the restore.
    pub fn measure(self, plan: &Plan, vmm: &str, snapshot: &Snapshot) -> Result<Vec<Measured>> {
        let (mut monitor, started) = match self {
            Self::Reserve => {
                let mut monitor = Monitor::start(vmm, 0)?;
                monitor.ask(Request::Status, &[])?;
                (monitor, Instant::now())
            }
            Self::New => {
                let started = Instant::now();
                (Monitor::start(vmm, 0)?, started)
            }
        };
        monitor.restore(plan.guest_mib, &BOARD, snapshot)?;
        renew(&monitor).context("make the guest another one")?;
        let renewed = started.elapsed();
        answer(&monitor).context("ask the program")?;
        let answered = started.elapsed();
        monitor.end()?;
        let moments = MOMENTS.iter().zip([renewed, answered]);
        moments
            .map(|(moment, after)| {
                Ok(Measured::Named {
                    name: self.name(moment),
                    value: u64::try_from(after.as_nanos())?,
                })
            })
            .collect()
    }
}

/// A snapshot of a program that has started and was asked nothing.
pub fn snapshot(plan: &Plan, vmm: &str) -> Result<Snapshot> {
    fs::write(CODE, APPLICATION)?;
    let mut monitor = Monitor::start(vmm, 0)?;
    let mut console = monitor.launch(plan.guest_mib, &BOARD)?;
    let console = std::thread::spawn(move || {
        let mut said = Vec::new();
        // Until the monitor is gone.
        let _ = console.read_to_end(&mut said);
        String::from_utf8_lossy(&said).into_owned()
    });
    match configure(&mut monitor) {
        Ok(_connection) => monitor.snapshot(),
        Err(error) => {
            monitor.end()?;
            let said = console.join().unwrap_or_default();
            Err(error.context(format!("the guest said {said:?}")))
        }
    }
}

/// Tells the guest what it is to run; the connection, once it does.
fn configure(monitor: &mut Monitor) -> Result<UnixStream> {
    let mut stream = monitor.guest(CONTROL_PORT)?;
    match hear(&stream)? {
        FromGuest::Hello { .. } => {}
        other => bail!("the guest began with {other:?}"),
    }
    let program = Program {
        runtime: "runtime".to_owned(),
        code: Code {
            disk: "code".to_owned(),
            encoding: Encoding::Plain,
            bytes: u64::try_from(APPLICATION.len())?,
        },
        interface: Interface::Asgi,
        entrypoint: "main:app".to_owned(),
        arguments: Vec::new(),
        variables: BTreeMap::new(),
        volumes: Vec::new(),
    };
    let config = GuestConfig {
        hostname: "bench".to_owned(),
        network: None,
        workload: Workload::Program(Box::new(program)),
    };
    stream.write_all(&encode(&ToGuest::Configure(Box::new(config)))?)?;
    ready(&stream)?;
    Ok(stream)
}

/// Makes the guest another one than that of the snapshot.
fn renew(monitor: &Monitor) -> Result<()> {
    let mut stream = monitor.connect(CONTROL_PORT)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let mut entropy = [0; 64];
    fs::File::open("/dev/urandom")?.read_exact(&mut entropy)?;
    let identity = Identity {
        hostname: "copy".to_owned(),
        network: None,
        variables: BTreeMap::new(),
        entropy: entropy.iter().map(|byte| format!("{byte:02x}")).collect(),
        unix_time_ns: u64::try_from(now.as_nanos())?,
    };
    stream.write_all(&encode(&ToGuest::Renew(Box::new(identity)))?)?;
    ready(&stream)
}

fn ready(stream: &UnixStream) -> Result<()> {
    match hear(stream)? {
        FromGuest::Ready => Ok(()),
        other => bail!("the guest said {other:?}"),
    }
}

fn hear(stream: &UnixStream) -> Result<FromGuest> {
    let mut line = String::new();
    // The guest says one thing at a time: nothing of a next line is lost with the buffer.
    BufReader::new(stream).read_line(&mut line)?;
    serde_json::from_str(&line).with_context(|| format!("the guest said {line:?}"))
}

/// Asks the program and waits until it has begun to answer.
fn answer(monitor: &Monitor) -> Result<()> {
    let mut stream = monitor.connect(HTTP_PORT)?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n")?;
    let mut answer = [0; ANSWER.len()];
    stream.read_exact(&mut answer)?;
    ensure!(
        answer == ANSWER,
        "the program answered {:?}",
        String::from_utf8_lossy(&answer)
    );
    Ok(())
}
