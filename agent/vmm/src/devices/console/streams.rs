//! Streams attached to the console while it runs: the controller's readers and typists.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::net::{SocketType, sockopt};

use super::{Shared, lock};
use crate::poller::{Poller, Readiness, Token};

/// Streams at once.
const MAX_STREAMS: usize = 8;
/// Bytes given to one write(2).
const CHUNK: usize = 16 * 1024;

#[derive(Debug)]
struct Stream {
    id: u32,
    socket: UnixStream,
    /// What it has taken of the ring.
    position: u64,
    readable: bool,
    writable: bool,
    gone: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Streams {
    streams: Vec<Stream>,
    next_id: u32,
}

impl Streams {
    /// Takes a stream over, to be written from a position on.
    ///
    /// # Errors
    /// Too many, or not a stream socket that can be watched.
    pub fn attach(&mut self, stream: OwnedFd, position: u64, poller: &Poller) -> io::Result<()> {
        if self.streams.len() >= MAX_STREAMS {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "8 streams are attached already",
            ));
        }
        if sockopt::socket_type(&stream)? != SocketType::STREAM {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let socket = UnixStream::from(stream);
        socket.set_nonblocking(true)?;
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        poller.add(&socket, Token::ConsoleStream(id))?;
        self.streams.push(Stream {
            id,
            socket,
            position,
            readable: true,
            writable: true,
            gone: false,
        });
        Ok(())
    }

    /// A stream is ready for something.
    pub fn ready(&mut self, id: u32, ready: Readiness) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) {
            stream.readable |= ready.readable;
            stream.writable |= ready.writable;
        }
    }

    /// Writes to each stream what it has not taken yet, as far as it goes.
    pub(super) fn write(&mut self, shared: &Shared) {
        for stream in &mut self.streams {
            while stream.writable && !stream.gone {
                let (from, chunk) = lock(shared).ring.read(stream.position, CHUNK);
                stream.position = from;
                if chunk.is_empty() {
                    break;
                }
                match stream.socket.write(&chunk) {
                    Ok(written) => stream.position += written as u64,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        stream.writable = false;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => stream.gone = true,
                }
            }
        }
        self.streams.retain(|stream| !stream.gone);
    }

    /// Reads what has been typed, at most so many bytes.
    pub fn read(&mut self, mut room: usize) -> Vec<u8> {
        let mut typed = Vec::new();
        for stream in &mut self.streams {
            while stream.readable && room > 0 && !stream.gone {
                let mut bytes = [0; 512];
                let wanted = room.min(bytes.len());
                match stream.socket.read(&mut bytes[..wanted]) {
                    Ok(0) => stream.gone = true,
                    Ok(count) => {
                        typed.extend_from_slice(&bytes[..count]);
                        room -= count;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        stream.readable = false;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => stream.gone = true,
                }
            }
        }
        self.streams.retain(|stream| !stream.gone);
        typed
    }
}
