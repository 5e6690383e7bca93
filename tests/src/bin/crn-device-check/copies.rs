//! Several machines go on from one's snapshot, at once, and differ where they must.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use crn_protocol::control::{Descriptor, Request, SnapshotSpec};

use crate::guest::{Guest, Machine};
use crate::{say, tap};

const COPIES: u8 = 5;

/// What a machine says of itself.
fn own(guest: &mut Guest) -> Result<[String; 3]> {
    guest.type_line("go on")?;
    let own = [
        guest.value("RANDOM")?,
        guest.value("BOOT")?,
        guest.value("SEQUENCE")?,
    ];
    for same in ["DISK", "MEMORY"] {
        ensure!(guest.value(same)? == "true", "{same} is another one");
    }
    Ok(own)
}

/// Copies a guest that waits for that, and lets them all go on to their end.
pub fn check(mut guest: Guest, machine: &Machine<'_>) -> Result<()> {
    guest.expect("COPIED?")?;
    guest.request(Request::Pause)?;
    let create = |path| {
        let mut options = File::options();
        options.create_new(true).read(true).write(true).open(path)
    };
    let (state, memory) = (create("/tmp/state")?, create("/tmp/memory")?);
    let snapshot = Request::Snapshot(SnapshotSpec {
        state: Descriptor(0),
        memory: Descriptor(1),
        differences: false,
    });
    let started = Instant::now();
    guest.request_with(
        snapshot,
        &[state.try_clone()?.into(), memory.try_clone()?.into()],
    )?;
    say(&format!(
        "snapshot: {} bytes of state, {} of memory, in {} ms",
        state.metadata()?.len(),
        memory.metadata()?.blocks() * 512,
        started.elapsed().as_millis()
    ));
    let mut copies = Vec::new();
    for number in 1..=COPIES {
        let taps = tap::open(
            &format!("copy{number}"),
            Ipv4Addr::new(10, 9, 9, 1 + number),
            2,
        )
        .context("make a TAP device")?;
        let data = format!("/tmp/data{number}");
        fs::copy("/tmp/data", &data)?;
        let data = File::options().read(true).write(true).open(data)?;
        let copy = Guest::restore(
            &Machine {
                data: &data,
                ..*machine
            },
            taps,
            number,
            [&state, &memory],
        )
        .with_context(|| format!("copy {number}"))?;
        copies.push(copy);
    }
    guest.request(Request::Resume)?;
    let mut own_of_all = vec![own(&mut guest).context("the original")?];
    for (number, copy) in (1..).zip(&mut copies) {
        own_of_all.push(own(copy).with_context(|| format!("copy {number}"))?);
    }
    for (at, name) in ["random numbers", "boot ids", "TCP sequence numbers"]
        .into_iter()
        .enumerate()
    {
        let all: Vec<&str> = own_of_all.iter().map(|own| own[at].as_str()).collect();
        let distinct: BTreeSet<_> = all.iter().collect();
        say(&format!("copies: {name} {}", all.join(" ")));
        ensure!(distinct.len() == all.len(), "some {name} are the same");
    }
    for mut one in copies.into_iter().chain([guest]) {
        one.expect("END?")?;
        one.answer()?;
        one.end()?;
    }
    Ok(())
}
