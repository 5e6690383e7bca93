//! What a client says first: `CONNECT <port>\n`.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// The longest greeting: `CONNECT 4294967295\n`.
const MAX_GREETING: usize = 32;

/// A client that has not said yet what it wants.
#[derive(Debug)]
pub struct Greeting {
    /// Its stream; what follows the greeting is still in it.
    pub stream: UnixStream,
    line: Vec<u8>,
    /// It has to greet until then.
    pub deadline: Instant,
}

/// How far a greeting has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// Not all of it.
    Nothing,
    /// The guest's port.
    Port(u32),
    /// Something else, or it has gone.
    Nonsense,
}

impl Greeting {
    /// A client that has just come, its stream non-blocking.
    #[must_use]
    pub const fn new(stream: UnixStream, deadline: Instant) -> Self {
        Self {
            stream,
            line: Vec::new(),
            deadline,
        }
    }

    /// Reads as far as it has come, byte by byte: what follows the greeting is the guest's.
    pub fn read(&mut self) -> Said {
        loop {
            let mut byte = [0];
            match self.stream.read(&mut byte) {
                Ok(1) if byte[0] == b'\n' => {
                    return parse(&self.line).map_or(Said::Nonsense, Said::Port);
                }
                Ok(1) if self.line.len() < MAX_GREETING => self.line.push(byte[0]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Said::Nothing,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return Said::Nonsense,
            }
        }
    }
}

/// The port of `CONNECT <port>`.
fn parse(line: &[u8]) -> Option<u32> {
    let port = line.strip_prefix(b"CONNECT ")?;
    // `parse` alone would take a sign.
    port.iter().all(u8::is_ascii_digit).then_some(())?;
    std::str::from_utf8(port).ok()?.parse().ok()
}
