//! A machine of which copies are made: what must go on in all of them, and what must be each one's own.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use crn_init::identity;
use crn_protocol::guest::{GuestConfig, Identity, Workload};
use crn_protocol::lines::LineBuffer;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::{DATA, HOST, MIB, PORT, addresses, ask, pattern, read};

/// Memory that has to be what it was, MiB.
const KEPT: usize = 4;

/// Uses everything once, waits to be copied, and says what it is then.
pub fn run() -> io::Result<()> {
    let network = addresses();
    crn_init::network::configure(Some(&network))
        .map_err(|error| io::Error::other(error.to_string()))?;
    let disk = fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/vda")?;
    let written = pattern();
    disk.write_all_at(&written, 0)?;
    disk.sync_data()?;
    let kept = written[..KEPT * MIB].to_vec();
    // What the kernel makes secrets of at first use is there before the copies are.
    sequence_number()?;
    random()?;
    let typed = ask("COPIED")?;
    if let Some(identity) = told(&typed)? {
        let current = GuestConfig {
            hostname: "original".to_owned(),
            network: Some(network),
            workload: Workload::Instance {
                root: String::new(),
            },
        };
        identity::renew(&current, identity).map_err(|failure| {
            io::Error::other(format!("{}: {}", failure.stage, failure.chain()))
        })?;
    }
    println!(
        "HOST {}",
        fs::read_to_string("/proc/sys/kernel/hostname")?.trim()
    );
    println!("ADDRESS {}", own_address()?);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    println!("CLOCK {}", now.map_or(0, |now| now.as_secs()));
    println!("RANDOM {}", random()?);
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    println!("BOOT {}", boot.trim());
    println!("SEQUENCE {}", sequence_number()?);
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    println!("DISK {}", read(&disk, 0, DATA)? == written);
    println!("MEMORY {}", kept == written[..KEPT * MIB]);
    ask("END").map(drop)
}

/// What the guest is to become, if that is what has been typed.
fn told(typed: &str) -> io::Result<Option<Identity>> {
    let mut lines = LineBuffer::default();
    if !typed.starts_with('{') {
        return Ok(None);
    }
    lines
        .push(format!("{typed}\n").as_bytes())
        .and_then(|()| lines.next())
        .map_err(io::Error::other)
}

/// Where it sends from when it sends to the host.
fn own_address() -> io::Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((HOST, PORT))?;
    Ok(socket.local_addr()?.ip())
}

fn random() -> io::Result<String> {
    let mut bytes = [0u8; 16];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The number that a connection's first byte has: a socket under repair tells it (tcp(7), `linux/tcp.h`).
#[allow(unsafe_code, reason = "these socket options have no safe interface")]
fn sequence_number() -> io::Result<u32> {
    const SEND_QUEUE: libc::c_int = 2;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 7))?;
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 7))?;
    let _accepted = listener.accept()?;
    for (option, value) in [(libc::TCP_REPAIR, 1), (libc::TCP_REPAIR_QUEUE, SEND_QUEUE)] {
        let length = size_of_val(&value) as libc::socklen_t;
        // SAFETY: the value is an int and lives for the call.
        let result = unsafe {
            let value = (&raw const value).cast();
            libc::setsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, option, value, length)
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let (mut number, mut length) = (0u32, size_of::<u32>() as libc::socklen_t);
    // SAFETY: the number and its length live for the call, which writes no more than that.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_QUEUE_SEQ,
            (&raw mut number).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(number)
}
