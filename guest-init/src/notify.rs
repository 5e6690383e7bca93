//! Learning that a program has started: by its word (sd_notify(3)), or by its port answering.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// `NOTIFY_SOCKET`.
pub const SOCKET: &str = "/run/crn/notify";

const FIRST_DELAY: Duration = Duration::from_millis(1);
const LONGEST_DELAY: Duration = Duration::from_millis(200);

/// Binds the socket that programs send their state to.
///
/// # Errors
/// mkdir(2)'s or bind(2)'s.
pub fn bind(path: &Path) -> io::Result<UnixDatagram> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    UnixDatagram::bind(path)
}

/// Waits for `READY=1`; everything else that is said is passed over.
///
/// # Errors
/// recv(2)'s.
pub fn wait_ready(socket: &UnixDatagram) -> io::Result<()> {
    let mut datagram = [0; 4096];
    loop {
        let got = socket.recv(&mut datagram)?;
        if says_ready(&datagram[..got]) {
            return Ok(());
        }
    }
}

fn says_ready(datagram: &[u8]) -> bool {
    datagram
        .split(|byte| *byte == b'\n')
        .any(|line| line == b"READY=1")
}

/// Waits until `address` accepts a connection; returns whether it did before `limit` had passed.
///
/// No event tells that another process has called listen(2), so this asks, at growing intervals: a program that
/// is up in 10 ms is found within 10 ms more, one that takes a minute costs five attempts a second.
#[must_use]
pub fn wait_listening(address: SocketAddr, limit: Duration) -> bool {
    let started = Instant::now();
    let mut delay = FIRST_DELAY;
    while started.elapsed() < limit {
        if TcpStream::connect_timeout(&address, LONGEST_DELAY).is_ok() {
            return true;
        }
        thread::sleep(delay);
        delay = (delay * 2).min(LONGEST_DELAY);
    }
    false
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn ready_is_heard_among_other_words() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("crn/notify");
        let socket = bind(&path).unwrap();
        let program = UnixDatagram::unbound().unwrap();
        for datagram in ["STATUS=loading", "XREADY=1", "STATUS=up\nREADY=1\n"] {
            program.send_to(datagram.as_bytes(), &path).unwrap();
        }
        wait_ready(&socket).unwrap();
    }

    #[test]
    fn a_port_that_answers_is_found_and_one_that_does_not_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(wait_listening(address, Duration::from_secs(5)));
        drop(listener);
        assert!(!wait_listening(address, Duration::from_millis(20)));
    }
}
