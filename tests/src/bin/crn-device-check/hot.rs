//! A disk comes and goes, and a machine that was killed leaves to the next one what it had made durable.

use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use crn_protocol::control::{Event, Request};

use crate::guest::{Guest, Machine, disk_spec};
use crate::{HOST, MIB, PATIENCE, TAP, disk, say, tap};

/// What the guest's data consists of, the first 2 MiB of it.
fn pattern() -> Vec<u8> {
    (0..2 * MIB).map(|n| ((n / 7) ^ (n / 4096)) as u8).collect()
}

/// Goes on where the other checks have stopped, to the end of this guest and of another one.
pub fn check(mut guest: Guest, machine: &Machine<'_>) -> Result<()> {
    let (pattern, half) = (pattern(), MIB as usize);
    let hot = disk("/tmp/hot")?;
    hot.write_all_at(&pattern[..half], 0)?;
    guest.expect("ATTACH?")?;
    let attach = Request::AttachDisk(disk_spec("hot", 0, None));
    guest.request_with(attach, &[hot.try_clone()?.into()])?;
    guest.answer()?;
    guest.expect("ATTACHED true")?;
    guest.expect("DETACH?")?;
    let serial = "hot".to_owned();
    guest.request(Request::DetachDisk {
        serial: serial.clone(),
        deadline_ms: None,
    })?;
    guest.answer()?;
    guest.expect("DETACHED?")?;
    let event = guest.event()?;
    ensure!(event == Event::DiskDetached { serial }, "{event:?}");
    let mut written = vec![0; half];
    hot.read_exact_at(&mut written, MIB)?;
    ensure!(written == pattern[half..], "what it wrote is not there");
    ensure!(guest.counters("hot").is_err());
    say("hot plug: a disk came, was used, and went");

    ensure!(guest.request(Request::Pause)?.paused);
    let exits = guest.request(Request::Status)?.exits;
    guest.type_line("go on")?;
    // A disk that comes while the guest cannot hear of it is taken from it again.
    let attach = Request::AttachDisk(disk_spec("lost", 0, None));
    guest.request_with(attach, &[hot.try_clone()?.into()])?;
    let serial = "lost".to_owned();
    guest.request(Request::DetachDisk {
        serial: serial.clone(),
        deadline_ms: Some(0),
    })?;
    let event = guest.event()?;
    ensure!(event == Event::DiskDetached { serial }, "{event:?}");
    ensure!(
        guest.request(Request::Status)?.exits == exits,
        "it goes on while it is paused"
    );
    ensure!(!guest.request(Request::Resume)?.paused);
    guest.expect("HEARD go on")?;
    say("pause: the guest stood still, lost a disk, and went on");

    guest.expect("KILL?")?;
    guest.kill()?;
    let taps = tap::open(TAP, HOST, 2).context("make a TAP device again")?;
    let mut guest = Guest::start(machine, taps, "crn.survived")?;
    guest.expect("SURVIVED true")?;
    say("kill -9: what was flushed is there");
    guest.expect("BUTTON")?;
    let deadline_ms = u64::try_from(PATIENCE.as_millis())?;
    guest.request(Request::PowerOff { deadline_ms })?;
    guest.expect("PRESSED")?;
    guest.end()?;
    say("power button: the guest powered off");
    Ok(())
}
