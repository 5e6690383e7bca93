//! The other end of the guests' TCP connections.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

/// Takes what comes, and says so with one byte when it is all there.
const SINK: u16 = 7001;
/// Is told how many bytes to send (u64, little endian), and sends them.
const SOURCE: u16 = 7002;
/// Sends back what comes.
const ECHO: u16 = 7003;

type Service = fn(TcpStream) -> io::Result<()>;

/// Serves for as long as the process lives.
///
/// # Errors
/// When a port is taken.
pub fn serve() -> io::Result<()> {
    let services: [(u16, Service); 3] = [(SINK, sink), (SOURCE, source), (ECHO, echo)];
    for (port, service) in services {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
        thread::spawn(move || {
            for stream in listener.incoming() {
                if let Err(error) = stream.and_then(service) {
                    eprintln!("port {port}: {error}");
                }
            }
        });
    }
    Ok(())
}

fn sink(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    while stream.read(&mut buffer)? > 0 {}
    stream.write_all(&[0])
}

fn source(mut stream: TcpStream) -> io::Result<()> {
    let mut left = [0; 8];
    stream.read_exact(&mut left)?;
    let mut left = u64::from_le_bytes(left);
    let buffer = vec![0x5a; 1 << 16];
    while left > 0 {
        let count = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        stream.write_all(&buffer[..count])?;
        left -= count as u64;
    }
    Ok(())
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count])?,
        }
    }
}
