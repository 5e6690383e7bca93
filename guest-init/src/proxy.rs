//! vsock port 8080 → TCP 127.0.0.1:8080, byte for byte, each direction closed when its source is.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crn_protocol::guest::HTTP_PORT;
use rustix::net::Shutdown;

use crate::system::say;
use crate::vsock::{Listener, shutdown};

/// Where the program listens.
pub const PROGRAM: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), HTTP_PORT as u16);

/// Connections at a time; the host's own limit is lower, so more is a fault there and refused.
const MAX_CONNECTIONS: usize = 128;
const BUFFER: usize = 64 * 1024;
/// A copying thread keeps its buffer on the heap.
const STACK: usize = 64 * 1024;

/// Serves the listener for ever.
pub fn serve(listener: &Listener) {
    let active = Arc::new(());
    loop {
        match listener.accept() {
            Ok(client) => {
                let mine = Arc::clone(&active);
                // One of the references is the loop's own.
                if Arc::strong_count(&mine) > MAX_CONNECTIONS + 1 {
                    continue;
                }
                let connection = move || {
                    if let Ok(server) = TcpStream::connect(PROGRAM) {
                        let _ = server.set_nodelay(true);
                        let _ = relay(client.into(), server.into());
                    }
                    drop(mine);
                };
                if let Err(error) = thread::Builder::new().stack_size(STACK).spawn(connection) {
                    say(&format!("no thread for a connection: {error}"));
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                ) => {}
            Err(error) => {
                // Out of descriptors or memory: what is running ends and gives some back.
                say(&format!("accept a connection: {error}"));
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Copies between two stream sockets until both directions have ended.
///
/// # Errors
/// dup(2)'s or thread creation's; an error of a stream only ends the relay.
pub fn relay(client: OwnedFd, server: OwnedFd) -> io::Result<()> {
    let (client, server) = (File::from(client), File::from(server));
    let (client_too, server_too) = (client.try_clone()?, server.try_clone()?);
    let upstream = thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || copy(client_too, server_too))?;
    copy(server, client);
    let _ = upstream.join();
    Ok(())
}

fn copy(mut from: File, mut to: File) {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => {
                shutdown(&to, Shutdown::Write);
                return;
            }
            Ok(got) => {
                if to.write_all(&buffer[..got]).is_err() {
                    // Nobody reads any more: the source is told, the other direction may still go on.
                    shutdown(&from, Shutdown::Read);
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => {
                shutdown(&to, Shutdown::Both);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_closed_request_side_leaves_the_answer_side_open() {
        let (mut host, client) = UnixStream::pair().unwrap();
        let (server, mut program) = UnixStream::pair().unwrap();
        let relay = thread::spawn(move || relay(client.into(), server.into()).unwrap());

        host.write_all(b"question").unwrap();
        host.shutdown(std::net::Shutdown::Write).unwrap();
        let mut question = String::new();
        program.read_to_string(&mut question).unwrap();
        assert_eq!(question, "question");

        let answer = vec![42; 3 * BUFFER + 1];
        program.write_all(&answer).unwrap();
        drop(program);
        let mut got = Vec::new();
        host.read_to_end(&mut got).unwrap();
        assert_eq!(got, answer);
        relay.join().unwrap();
    }

    #[test]
    fn a_host_that_goes_away_ends_the_relay() {
        let (host, client) = UnixStream::pair().unwrap();
        let (server, mut program) = UnixStream::pair().unwrap();
        let relay = thread::spawn(move || relay(client.into(), server.into()).unwrap());
        drop(host);
        let mut nothing = Vec::new();
        program.read_to_end(&mut nothing).unwrap();
        drop(program);
        relay.join().unwrap();
    }
}
