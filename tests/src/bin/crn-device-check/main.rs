//! Runs in the nested machine: starts one guest under `crn-vmm`, as a controller does, and checks from outside what
//! its devices do while it uses them. Prints a line a check; the first that fails ends it.
//!
//! `crn-device-check VMM KERNEL INITRAMFS IMAGE mmio|pci|copies|pci-copies`

mod copies;
mod guest;
mod hot;

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use crn_protocol::control::{Request, Transport};
use crn_protocol::devices::{DeviceCounters, Limits, NewLimits, Rate};
use crn_tests::tap;

use crate::guest::{Guest, Machine};

const MIB: u64 = 1 << 20;
/// The longest the guest takes for anything, under emulation.
const PATIENCE: Duration = Duration::from_secs(240);
/// Operations the second disk is let do.
const RATE: Rate = Rate {
    per_second: 4,
    burst: 10,
};
/// What the guest takes and gives back, MiB, less what may be in other hands.
const GIVEN_BACK: u64 = 36;
const BALLOON_MIB: u32 = 32;
const TAP: &str = "tap0";
const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 1);
const PORT: u16 = 7000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [vmm, kernel, initramfs, image, transport] = arguments.as_slice() else {
        bail!("usage: crn-device-check VMM KERNEL INITRAMFS IMAGE mmio|pci|copies|pci-copies");
    };
    let (transport, copied) = match transport.as_str() {
        "mmio" => (Transport::Mmio, false),
        "pci" => (Transport::Pci, false),
        "copies" => (Transport::Mmio, true),
        "pci-copies" => (Transport::Pci, true),
        other => bail!("there is no check {other}"),
    };
    let data = disk("/tmp/data")?;
    let limited = disk("/tmp/limited")?;
    let taps = tap::open(TAP, HOST, 2).context("make a TAP device")?;
    echo()?;
    let machine = Machine {
        vmm,
        kernel,
        initramfs,
        image,
        transport,
        data: &data,
        limited: &limited,
        rate: RATE,
    };
    if copied {
        copies::check(Guest::start(&machine, taps, "crn.copies")?, &machine)?;
        say("done");
        return Ok(());
    }
    // Devices come and go on PCI only.
    let hot = transport == Transport::Pci;
    let mut guest = Guest::start(&machine, taps, if hot { "crn.hot" } else { "" })?;

    guest.expect("INTEGRITY true")?;
    guest.expect("WRITTEN?")?;
    let full = data.metadata()?.blocks() * 512;
    let counters = guest.disk("data")?;
    say(&format!("engine: io_uring {}", counters.io_uring));
    ensure!(counters.io_uring, "io_uring is to be had here");
    ensure!(counters.written_bytes >= 24 * MIB && counters.flushes >= 2);
    ensure!(counters.errors == 0);
    guest.answer()?;

    guest.expect("DISCARDED?")?;
    let after = data.metadata()?.blocks() * 512;
    say(&format!("discard: {full} bytes on the host, then {after}"));
    ensure!(after + 8 * MIB <= full);
    guest.answer()?;

    guest.expect("ZEROED true")?;
    guest.expect("FREED?")?;
    let freed = data.metadata()?.blocks() * 512;
    say(&format!("write zeroes: {freed} bytes on the host"));
    ensure!(freed + 4 * MIB <= after);
    ensure!(guest.disk("data")?.discarded_bytes >= 14 * MIB);
    let before = guest.disk("limited")?;
    let started = Instant::now();
    guest.answer()?;

    guest.expect("LIMITED?")?;
    let counters = guest.disk("limited")?;
    let allowed = RATE.burst + (started.elapsed().as_secs() + 1) * RATE.per_second;
    let reads = counters.reads - before.reads;
    let throttled = counters.throttled - before.throttled;
    say(&format!(
        "limits: {reads} reads, {allowed} allowed, waited {throttled} times"
    ));
    ensure!(reads >= 40 && reads <= allowed && throttled > 0);
    let lifted = NewLimits::Transfer(Limits::default());
    guest.request(Request::SetLimits {
        device: "limited".to_owned(),
        limits: lifted,
    })?;
    ensure!(
        guest
            .request(Request::SetLimits {
                device: "vsock".to_owned(),
                limits: lifted,
            })
            .is_err()
    );
    guest.answer()?;

    let content = std::fs::read(image)?;
    guest.expect("DAX 1")?;
    guest.expect("IMAGE true")?;
    guest.expect("UNCHANGED true")?;
    guest.expect("IMAGE?")?;
    ensure!(std::fs::read(image)? == content, "the image was written to");
    say("image: read through DAX, and what was written to it went nowhere");
    guest.answer()?;

    guest.expect("NETWORK true 108 datagrams")?;
    guest.expect("SENT?")?;
    let counters = match guest.counters("nic0")? {
        DeviceCounters::Nic(counters) => counters,
        other => bail!("{other:?}"),
    };
    say(&format!(
        "network: {} packets of {} bytes sent, {} of {} received, {} and {} lost",
        counters.tx_packets,
        counters.tx_bytes,
        counters.rx_packets,
        counters.rx_bytes,
        counters.tx_drops,
        counters.rx_drops
    ));
    ensure!(counters.tx_bytes > 2 * MIB && counters.rx_bytes > 2 * MIB);
    ensure!(counters.tx_drops == 0 && counters.rx_drops == 0);
    // Segmentation is left to the host: packets are larger than the wire would carry.
    ensure!(counters.tx_bytes / counters.tx_packets > 1514);
    guest.answer()?;

    guest.expect("PRINTED?")?;
    guest.type_line("on hvc0")?;
    guest.expect("HVC0 on hvc0")?;
    match guest.counters("console")? {
        DeviceCounters::Console(counters) => {
            say(&format!("virtio console: {counters:?}"));
            ensure!(counters.output_bytes > 0 && counters.input_bytes == 8);
        }
        other => bail!("{other:?}"),
    }

    guest.expect("TAKEN?")?;
    let taken = guest.rss()?;
    guest.answer()?;
    guest.expect("GIVEN?")?;
    let given = guest.until("memory comes back", |guest| {
        let rss = guest.rss()?;
        Ok((rss + GIVEN_BACK * MIB <= taken).then_some(rss))
    })?;
    let reported = guest.balloon()?.reported_bytes;
    say(&format!(
        "free page reporting: {taken} bytes resident, then {given}; {reported} reported"
    ));
    ensure!(reported >= GIVEN_BACK * MIB);
    guest.answer()?;

    guest.expect("INFLATE?")?;
    guest.request(Request::Balloon {
        target_mib: BALLOON_MIB,
    })?;
    let counters = guest.until("the balloon inflates", |guest| {
        let counters = guest.balloon()?;
        Ok((counters.actual_mib == BALLOON_MIB).then_some(counters))
    })?;
    let memory = guest.until("the guest tells its memory", |guest| {
        Ok(guest.balloon()?.guest.filter(|memory| memory.total > 0))
    })?;
    say(&format!(
        "balloon: {} bytes, the guest has {} free of {}",
        counters.inflated_bytes, memory.free, memory.total
    ));
    ensure!(counters.inflated_bytes >= u64::from(BALLOON_MIB) * MIB);
    ensure!(
        guest
            .request(Request::Balloon { target_mib: 4096 })
            .is_err()
    );
    guest.request(Request::Balloon { target_mib: 0 })?;
    guest.until("the balloon deflates", |guest| {
        Ok((guest.balloon()?.actual_mib == 0).then_some(()))
    })?;
    guest.answer()?;
    if hot {
        hot::check(guest, &machine)?;
    } else {
        let log = guest.end()?;
        ensure!(log.contains("INFLATE?"), "the console's file lacks output");
    }
    say("done");
    Ok(())
}

fn say(what: &str) {
    println!("CHECKED {what}");
}

/// Echoes what comes over TCP and UDP.
fn echo() -> Result<()> {
    let listener = TcpListener::bind((HOST, PORT))?;
    std::thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        std::io::copy(&mut stream.try_clone()?, &mut stream)?;
        Ok(())
    });
    let socket = UdpSocket::bind((HOST, PORT))?;
    std::thread::spawn(move || -> Result<()> {
        let mut bytes = [0; 2048];
        loop {
            let (count, from) = socket.recv_from(&mut bytes)?;
            socket.send_to(&bytes[..count], from)?;
        }
    });
    Ok(())
}

fn disk(path: &str) -> Result<File> {
    let file = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(path)?;
    file.set_len(32 * MIB)?;
    Ok(file)
}
