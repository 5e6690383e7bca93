//! Runs in the nested machine: starts one guest under `crn-vmm`, as a controller does, and checks from outside what
//! its devices do while it uses them. Prints a line a check; the first that fails ends it.
//!
//! `crn-device-check VMM KERNEL INITRAMFS mmio|pci`

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use command_fds::{CommandFdExt, FdMapping};
use crn_protocol::control::{
    self, ConsoleSpec, Descriptor, DiskSpec, Event, ExitReason, MemoryBacking, NicSpec, Report,
    Request, Status, Transport, VmSpec,
};
use crn_protocol::descriptors::{Receiver, send_with};
use crn_protocol::devices::{
    BalloonCounters, BalloonSpec, DeviceCounters, DiskCounters, Engine, Limits, NewLimits,
    NicLimits, PmemSpec, Rate,
};
use crn_protocol::lines::encode;
use crn_tests::tap;

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
    let [vmm, kernel, initramfs, transport] = arguments.as_slice() else {
        bail!("usage: crn-device-check VMM KERNEL INITRAMFS mmio|pci");
    };
    let transport = match transport.as_str() {
        "mmio" => Transport::Mmio,
        "pci" => Transport::Pci,
        other => bail!("there is no transport {other}"),
    };
    let data = disk("/tmp/data")?;
    let limited = disk("/tmp/limited")?;
    let taps = tap::open(TAP, HOST, 2).context("make a TAP device")?;
    echo()?;
    let mut guest = Guest::start(vmm, kernel, initramfs, transport, &data, &limited, taps)?;

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
    guest.end()?;
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

/// A running guest, its control socket and its console.
struct Guest {
    vmm: Child,
    control: UnixStream,
    receiver: Receiver,
    console: UnixStream,
    /// What the guest has said and nobody has expected yet.
    said: String,
    /// Everything it has said.
    all: String,
    next_id: u64,
}

impl Guest {
    fn start(
        vmm: &str,
        kernel: &str,
        initramfs: &str,
        transport: Transport,
        data: &File,
        limited: &File,
        taps: Vec<OwnedFd>,
    ) -> Result<Self> {
        let path = "/tmp/control.sock";
        // What a check before this one has left.
        for left in [path, "/tmp/console"] {
            fs::remove_file(left).ok();
        }
        let listener = UnixListener::bind(path)?;
        let mut command = Command::new(vmm);
        command
            .args(["--control-fd", "3"])
            .stdin(Stdio::null())
            .fd_mappings(vec![FdMapping {
                parent_fd: OwnedFd::from(listener),
                child_fd: 3,
            }])?;
        let child = command.spawn().context("start the VMM")?;
        let control = UnixStream::connect(path)?;
        control.set_read_timeout(Some(PATIENCE))?;
        let (console, theirs) = UnixStream::pair()?;
        console.set_nonblocking(true)?;
        let mut guest = Self {
            vmm: child,
            control,
            receiver: Receiver::default(),
            console,
            said: String::new(),
            all: String::new(),
            next_id: 1,
        };
        let file = |name: &str, disk: u8, operations| DiskSpec {
            file: Descriptor(disk),
            read_only: false,
            serial: name.to_owned(),
            engine: Engine::Auto,
            limits: Limits {
                bytes: None,
                operations,
            },
        };
        let spec = VmSpec {
            vm: "device-check".to_owned(),
            // Emulation loses guests whose vCPUs wait for one another on one CPU.
            vcpus: 1,
            memory_mib: 192,
            memory_backing: MemoryBacking::Thp,
            transport,
            kernel: Descriptor(0),
            initramfs: Some(Descriptor(1)),
            cmdline: "console=ttyS0 quiet panic=-1".to_owned(),
            disks: vec![file("data", 2, None), file("limited", 3, Some(RATE))],
            nics: vec![NicSpec {
                taps: (6..).map(Descriptor).take(taps.len()).collect(),
                mac: [2, 0, 0, 0, 0, 1],
                mtu: 1500,
                limits: NicLimits::default(),
            }],
            vsock: None,
            balloon: Some(BalloonSpec::default()),
            pmem: vec![PmemSpec {
                file: Descriptor(5),
            }],
            entropy: Limits::default(),
            console: ConsoleSpec {
                output: Descriptor(4),
                max_bytes: MIB,
                virtio: true,
            },
        };
        // The kernel may have no driver for it; that KVM shows it to the guest is checked all the same.
        let image = disk("/tmp/image")?;
        let log = File::options()
            .create(true)
            .append(true)
            .read(true)
            .open("/tmp/console")?;
        let files = [
            File::open(kernel)?,
            File::open(initramfs)?,
            data.try_clone()?,
            limited.try_clone()?,
            log,
            image,
        ];
        let files: Vec<_> = files.map(OwnedFd::from).into_iter().chain(taps).collect();
        guest
            .request_with(Request::Launch(Box::new(spec)), &files)
            .context("launch")?;
        let stream = Request::AttachConsole {
            stream: Descriptor(0),
        };
        guest.request_with(stream, &[theirs.into()])?;
        Ok(guest)
    }

    fn request(&mut self, request: Request) -> Result<Status> {
        self.request_with(request, &[])
    }

    fn request_with(&mut self, request: Request, files: &[OwnedFd]) -> Result<Status> {
        let id = self.next_id;
        self.next_id += 1;
        let line = encode(&control::Command { id, request })?;
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let sent = send_with(&self.control, &line, &files)?;
        self.control.write_all(&line[sent..])?;
        loop {
            match self.report()? {
                Report::Reply(reply) if reply.id == id => {
                    return reply.result.map_err(anyhow::Error::msg);
                }
                Report::Reply(_) => {}
                Report::Event(event) => bail!("unexpected: {event:?}"),
            }
        }
    }

    fn report(&mut self) -> Result<Report> {
        loop {
            if let Some(report) = self.receiver.next()? {
                return Ok(report);
            }
            ensure!(self.receiver.read(&self.control)? > 0, "the VMM is gone");
        }
    }

    fn counters(&mut self, name: &str) -> Result<DeviceCounters> {
        let status = self.request(Request::Status)?;
        let device = status.devices.into_iter().find(|one| one.name == name);
        Ok(device
            .with_context(|| format!("no device {name}"))?
            .counters)
    }

    fn disk(&mut self, name: &str) -> Result<DiskCounters> {
        match self.counters(name)? {
            DeviceCounters::Disk(counters) => Ok(counters),
            other => bail!("{other:?}"),
        }
    }

    fn balloon(&mut self) -> Result<BalloonCounters> {
        match self.counters("balloon")? {
            DeviceCounters::Balloon(counters) => Ok(counters),
            other => bail!("{other:?}"),
        }
    }

    /// The VMM's resident memory, guest memory included, bytes.
    fn rss(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.vmm.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib.context("no VmRSS")?.trim().parse::<u64>()? * 1024)
    }

    fn until<T>(
        &mut self,
        what: &str,
        mut check: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let started = Instant::now();
        loop {
            if let Some(value) = check(self)? {
                return Ok(value);
            }
            ensure!(started.elapsed() < PATIENCE, "{what}: not in time");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until the guest says a line.
    fn expect(&mut self, line: &str) -> Result<()> {
        let started = Instant::now();
        loop {
            if let Some(at) = self.said.find(line) {
                self.said.drain(..at + line.len());
                return Ok(());
            }
            let mut bytes = [0; 4096];
            match self.console.read(&mut bytes) {
                Ok(0) => bail!("the console ended before {line}: {}", self.all),
                Ok(count) => {
                    let text = String::from_utf8_lossy(&bytes[..count]);
                    self.said.push_str(&text);
                    self.all.push_str(&text);
                }
                Err(_) if started.elapsed() > PATIENCE || self.said.contains("FAILED") => {
                    bail!("the guest did not say {line}: {}", self.all);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Types a line, which the guest repeats.
    fn answer(&mut self) -> Result<()> {
        self.type_line("go on")?;
        self.expect("HEARD go on")
    }

    fn type_line(&mut self, line: &str) -> Result<()> {
        Ok(self.console.write_all(format!("{line}\n").as_bytes())?)
    }

    fn end(mut self) -> Result<()> {
        let reason = loop {
            match self.report()? {
                Report::Event(Event::Exited { reason, .. }) => break reason,
                Report::Event(_) | Report::Reply(_) => {}
            }
        };
        ensure!(reason == ExitReason::PowerOff, "{reason:?}");
        let status = self.vmm.wait()?;
        ensure!(status.success(), "{status}");
        let log = fs::read_to_string("/tmp/console")?;
        ensure!(log.contains("INFLATE?"), "the console's file lacks output");
        Ok(())
    }
}
