//! How long until a guest's sshd says who it is.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use super::{ANSWERS, Contestant, Measured, start};
use crate::tap;

/// The longest a guest takes, by the machine's clock.
const PATIENCE: Duration = Duration::from_secs(250);
/// How long one try may take; the guest drops what comes before its network is up.
const TRY: Duration = Duration::from_millis(20);
/// sshd may take its time once it has been reached.
const BANNER: Duration = Duration::from_secs(20);

/// Starts a guest, waits for its sshd, and ends it, however it is.
pub fn measure(contestant: &Contestant) -> Result<Measured> {
    let started = Instant::now();
    let mut child = start(contestant)?;
    // It must never wait for a reader, and what it says is of interest when it fails.
    let mut console = child.stdout.take().context("no pipe")?;
    let reader = std::thread::spawn(move || {
        let mut said = Vec::new();
        let _ = console.read_to_end(&mut said);
        said
    });
    let result = tap::neighbour("tap0", ANSWERS, [2, 0, 0, 0, 0, 1])
        .context("name the guest's address")
        .and_then(|()| answered(started));
    kill_process_group(Pid::from_child(&child), Signal::KILL).context("end it")?;
    child.wait()?;
    let said = reader.join().unwrap_or_default();
    match result {
        Ok(ns) => Ok(Measured::Answered { ns }),
        Err(error) => {
            let said = String::from_utf8_lossy(&said);
            let tail: String = said.chars().rev().take(4000).collect();
            let tail: String = tail.chars().rev().collect();
            Err(error.context(format!("{}: its console ends: {tail}", contestant.name)))
        }
    }
}

fn answered(started: Instant) -> Result<u64> {
    let address = SocketAddr::from((ANSWERS, 22));
    loop {
        match TcpStream::connect_timeout(&address, TRY).and_then(banner) {
            Ok(()) => return Ok(u64::try_from(started.elapsed().as_nanos())?),
            Err(error) if started.elapsed() > PATIENCE => bail!("sshd does not answer: {error}"),
            // Refused at once while the network is up and sshd is not.
            Err(_) => std::thread::sleep(TRY / 4),
        }
    }
}

fn banner(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(BANNER))?;
    let mut start = [0; 4];
    stream.read_exact(&mut start)?;
    if &start == b"SSH-" {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}
