//! Several machines go on from one's snapshot, at once, and differ where they must.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use crn_protocol::control::{Descriptor, Request, SnapshotSpec};
use crn_protocol::guest::{Identity, Network};

use crate::guest::{Guest, Machine};
use crate::{say, tap};

const COPIES: u8 = 5;
/// Copies are told that it is a year later.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Networks of the copies.
const fn host_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 10 + number, 1)
}

const fn guest_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 10 + number, 2)
}

/// Has a copy become itself; what it says it is.
fn own(guest: &mut Guest, number: u8) -> Result<[String; 3]> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let (hostname, address) = match number {
        // The original stays what it is.
        0 => {
            guest.type_line("go on")?;
            (None, Ipv4Addr::new(10, 9, 9, 2))
        }
        number => {
            let identity = Identity {
                hostname: format!("copy{number}"),
                network: Some(Network {
                    ipv4: Some((guest_address(number), 24, host_address(number))),
                    ipv6: None,
                    dns: Vec::new(),
                    mtu: 1500,
                }),
                variables: BTreeMap::new(),
                entropy: format!("{number:02x}").repeat(64),
                unix_time_ns: u64::try_from((now + YEAR).as_nanos())?,
            };
            guest.type_line(&serde_json::to_string(&identity)?)?;
            (Some(identity.hostname), guest_address(number))
        }
    };
    say(&format!("copies: number {number} is spoken to"));
    let said = guest.value("HOST")?;
    ensure!(
        hostname.is_none_or(|name| name == said),
        "its name is {said}"
    );
    let said = guest.value("ADDRESS")?;
    ensure!(said == address.to_string(), "its address is {said}");
    let clock = Duration::from_secs(guest.value("CLOCK")?.parse()?);
    let later = if number == 0 { Duration::ZERO } else { YEAR };
    ensure!(
        clock.abs_diff(now + later) < Duration::from_secs(3600),
        "its clock is {clock:?}"
    );
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
        let taps = tap::open(&format!("copy{number}"), host_address(number), 2)
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
    let mut own_of_all = vec![own(&mut guest, 0).context("the original")?];
    for (number, copy) in (1..).zip(&mut copies) {
        say(&format!("copies: {own_of_all:?}"));
        own_of_all.push(own(copy, number).with_context(|| format!("copy {number}"))?);
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
