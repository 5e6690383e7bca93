//! PID 1 of the device tests: uses its disks, memory and console, and says what it finds, a line each.
//!
//! `vda` (32 MiB) holds data, `vdb` is limited, `pmem0` is a shared image, `eth0` leads to a host that echoes. After a
//! line that ends in a question mark it waits for a typed one. `crn.hot` on the kernel's command line: a disk comes and
//! goes, and the machine is killed after a flush. `crn.survived`: it is the next machine, looks at what has survived,
//! and powers off when its button is pressed. `crn.copies`: it is copied, and says what each copy has of its own.

#![deny(unsafe_code)]

mod copies;
mod hot;
mod image;

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

use crn_init::system;
use crn_protocol::guest::Network;
use rustix::fs::{FallocateFlags, OFlags};
use rustix::system::RebootCommand;

const MIB: usize = 1 << 20;
/// Data written and read back, MiB.
const DATA: usize = 8;
/// Memory taken and given back, MiB.
const MEMORY: usize = 48;
/// The guest, the host, and where the host echoes.
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 2);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 1);
const PORT: u16 = 7000;
/// Reads from the limited disk.
const LIMITED_READS: u64 = 40;

fn main() {
    if let Err(error) = system::prepare()
        .map_err(|error| error.to_string())
        .and_then(|()| run().map_err(|error| error.to_string()))
    {
        println!("FAILED {error}");
    }
    system::end(RebootCommand::PowerOff)
}

fn run() -> io::Result<()> {
    let cmdline = std::fs::read_to_string("/proc/cmdline")?;
    let asked = |wanted: &str| cmdline.split_ascii_whitespace().any(|word| word == wanted);
    if asked("crn.survived") {
        return hot::survived();
    }
    if asked("crn.copies") {
        return copies::run();
    }
    let disk = OpenOptions::new().read(true).write(true).open("/dev/vda")?;
    let written = pattern();
    disk.write_all_at(&written, 0)?;
    disk.sync_data()?;
    // Written again, so that freeing has something to free: [8, 24) MiB.
    for part in 1..3 {
        disk.write_all_at(&written, (part * DATA * MIB) as u64)?;
    }
    disk.sync_data()?;
    std::fs::write("/proc/sys/vm/drop_caches", "3")?;
    println!("INTEGRITY {}", read(&disk, 0, DATA)? == written);
    ask("WRITTEN")?;

    discard(&disk, 8 * MIB as u64, 8 * MIB as u64)?;
    ask("DISCARDED")?;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&disk, flags, 16 * MIB as u64, 4 * MIB as u64)?;
    let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&disk, flags, 20 * MIB as u64, 2 * MIB as u64)?;
    std::fs::write("/proc/sys/vm/drop_caches", "3")?;
    let zeros = read(&disk, 8, 14)?.iter().all(|byte| *byte == 0);
    let rest = read(&disk, 22, 2)? == written[6 * MIB..];
    println!(
        "ZEROED {}",
        zeros && rest && read(&disk, 0, DATA)? == written
    );
    ask("FREED")?;

    let limited = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::DIRECT.bits().cast_signed())
        .open("/dev/vdb")?;
    let mut page = vec![0; 8192];
    let start = page.as_ptr().align_offset(4096);
    for index in 0..LIMITED_READS {
        limited.read_exact_at(&mut page[start..start + 4096], index * 4096)?;
    }
    ask("LIMITED")?;

    image::check()?;
    network(&written[..2 * MIB])?;
    ask("SENT")?;
    println!("HVC0 {}", virtio_console()?);

    let mut memory = vec![1u8; MEMORY * MIB];
    for page in memory.chunks_mut(4096) {
        page[0] = 2;
    }
    ask("TAKEN")?;
    drop(memory);
    ask("GIVEN")?;
    ask("INFLATE")?;
    if asked("crn.hot") {
        hot::run(&disk, &written)?;
    }
    Ok(())
}

/// What is written everywhere; `crn-device-check` knows it too.
fn pattern() -> Vec<u8> {
    (0..DATA * MIB)
        .map(|n| ((n / 7) ^ (n / 4096)) as u8)
        .collect()
}

/// Asks on the virtio console; the answer.
fn virtio_console() -> io::Result<String> {
    let mut console = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/hvc0")?;
    console.write_all(b"PRINTED?\n")?;
    let mut line = String::new();
    io::BufReader::new(console).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

fn addresses() -> Network {
    Network {
        ipv4: Some((GUEST, 24, HOST)),
        ipv6: None,
        dns: Vec::new(),
        mtu: 1500,
    }
}

/// Sends bytes and datagrams to the host, which sends them back.
fn network(bytes: &[u8]) -> io::Result<()> {
    crn_init::network::configure(Some(&addresses()))
        .map_err(|error| io::Error::other(error.to_string()))?;
    let mut stream = TcpStream::connect((HOST, PORT))?;
    let mut reader = stream.try_clone()?;
    let expected = bytes.to_vec();
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; expected.len()];
        reader.read_exact(&mut got).map(|()| got == expected)
    });
    stream.write_all(bytes)?;
    let whole = reader
        .join()
        .map_err(|_| io::Error::other("the reader panicked"))??;
    let socket = UdpSocket::bind((GUEST, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.connect((HOST, PORT))?;
    let mut echoed = 0;
    for length in (1..1400).step_by(13) {
        socket.send(&bytes[..length])?;
        let mut answer = [0; 2048];
        let count = socket.recv(&mut answer)?;
        echoed += usize::from(answer[..count] == bytes[..length]);
    }
    println!("NETWORK {whole} {echoed} datagrams");
    Ok(())
}

fn read(disk: &File, at: usize, mib: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; mib * MIB];
    disk.read_exact_at(&mut bytes, (at * MIB) as u64)?;
    Ok(bytes)
}

/// Says a line and waits for the answer.
fn ask(what: &str) -> io::Result<String> {
    println!("{what}?");
    io::stdout().flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    println!("HEARD {}", line.trim());
    Ok(line.trim().to_owned())
}

/// BLKDISCARD of linux/fs.h.
#[allow(unsafe_code, reason = "this ioctl has no safe interface")]
fn discard(disk: impl AsFd, start: u64, length: u64) -> io::Result<()> {
    const BLKDISCARD: rustix::ioctl::Opcode = 0x1277;
    // SAFETY: BLKDISCARD reads two 64-bit numbers and writes nothing.
    let call = unsafe { rustix::ioctl::Setter::<BLKDISCARD, [u64; 2]>::new([start, length]) };
    // SAFETY: the descriptor is a block device's; another kind would refuse the call.
    unsafe { rustix::ioctl::ioctl(disk, call) }?;
    Ok(())
}
