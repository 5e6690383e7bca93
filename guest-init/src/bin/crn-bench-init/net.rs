//! TCP with the host over `eth0`, a line for each kind: a stream each way, and small requests one after the other.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::Instant;

use crn_protocol::guest::Network;

use crate::report;

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 2);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 1);
/// Where the host takes everything and answers with a byte, where it sends as many bytes as it is told, and where it
/// sends back what comes.
const SINK: u16 = 7001;
const SOURCE: u16 = 7002;
const ECHO: u16 = 7003;

const MIB: usize = 1 << 20;
/// What is written and read at once.
const CHUNK: usize = 128 << 10;
const STREAM_MIB: usize = 32;
const WARM_MIB: usize = 2;
const REQUESTS: usize = 1024;
const REQUEST_BYTES: usize = 64;

/// Measures everything.
pub fn run() -> io::Result<()> {
    let addresses = Network {
        ipv4: Some((GUEST, 24, HOST)),
        ipv6: None,
        dns: Vec::new(),
        mtu: 1500,
    };
    crn_init::network::configure(Some(&addresses))
        .map_err(|error| io::Error::other(error.to_string()))?;
    let mut buffer = vec![0xa5; CHUNK];
    send(&mut buffer, WARM_MIB)?;
    report("tcp-send-1m", STREAM_MIB, send(&mut buffer, STREAM_MIB)?);
    receive(&mut buffer, WARM_MIB)?;
    report(
        "tcp-receive-1m",
        STREAM_MIB,
        receive(&mut buffer, STREAM_MIB)?,
    );
    requests()
}

/// Sends so much; when it began.
fn send(buffer: &mut [u8], mib: usize) -> io::Result<Instant> {
    let mut stream = TcpStream::connect((HOST, SINK))?;
    let started = Instant::now();
    for _ in 0..mib * MIB / CHUNK {
        stream.write_all(buffer)?;
    }
    stream.shutdown(Shutdown::Write)?;
    stream.read_exact(&mut buffer[..1])?;
    Ok(started)
}

/// Receives so much; when it began.
fn receive(buffer: &mut [u8], mib: usize) -> io::Result<Instant> {
    let mut stream = TcpStream::connect((HOST, SOURCE))?;
    let started = Instant::now();
    stream.write_all(&((mib * MIB) as u64).to_le_bytes())?;
    let mut received = 0;
    loop {
        match stream.read(buffer)? {
            0 if received == mib * MIB => return Ok(started),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => received += count,
        }
    }
}

fn requests() -> io::Result<()> {
    let mut stream = TcpStream::connect((HOST, ECHO))?;
    stream.set_nodelay(true)?;
    let mut started = Instant::now();
    for index in 0..REQUESTS + REQUESTS / 16 {
        if index == REQUESTS / 16 {
            started = Instant::now();
        }
        let request = [index as u8; REQUEST_BYTES];
        stream.write_all(&request)?;
        let mut answer = [0; REQUEST_BYTES];
        stream.read_exact(&mut answer)?;
        if answer != request {
            return Err(io::Error::other("another answer"));
        }
    }
    report("tcp-request-response", REQUESTS, started);
    Ok(())
}
