//! The guest's console: what it prints on its serial port ([`serial`]) and its virtio console ([`device`]) goes into
//! one bounded ring, what is typed goes to the one of them it printed on last.
//!
//! The guest's side puts bytes in and goes on at once; the event loop writes them to the output ([`output`]) and to
//! attached streams ([`streams`]), each of which has its own position in the ring. Whoever is too slow loses what the
//! ring has no room for; nobody makes the guest wait.

pub mod device;
pub mod output;
pub mod ring;
pub mod serial;
pub mod streams;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use self::output::Output;
use self::ring::Ring;
use self::streams::Streams;
use crate::poller::{Poller, Readiness};

/// Typed bytes that wait for the guest; while there are so many, no more are read from streams.
const INPUT: usize = 4096;

/// The guest's two consoles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Port {
    /// The 16550.
    #[default]
    Serial,
    /// The virtio console.
    Virtio,
}

#[derive(Debug, Default)]
struct State {
    ring: Ring,
    /// There is output the event loop has been told of and not yet looked at.
    told: bool,
    input: VecDeque<u8>,
    /// Where the guest has printed last, and so where it reads.
    port: Port,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Counts up when there is something to do for the event loop.
    kick: EventFd,
    /// Counts up when there is input for the virtio console.
    virtio_input: EventFd,
}

/// One of the guest's consoles, as seen from the guest's side.
#[derive(Debug, Clone)]
pub struct ConsoleEnd {
    shared: Arc<Shared>,
    port: Port,
}

impl ConsoleEnd {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.shared)
    }

    /// The other console's end.
    #[must_use]
    pub fn of_port(&self, port: Port) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            port,
        }
    }

    /// Counts up when there is input for the virtio console.
    #[must_use]
    pub fn virtio_input(&self) -> &EventFd {
        &self.shared.virtio_input
    }

    /// Gives what has been typed to `take`, which says how much of it it took. No lock is held meanwhile: `take` may
    /// need one that the guest's side holds while it prints. Only the event loop reads, so nothing is taken twice.
    pub fn read(&self, take: impl FnOnce(&[u8]) -> usize) -> usize {
        let typed = {
            let mut state = self.state();
            if state.port != self.port || state.input.is_empty() {
                return 0;
            }
            state.input.make_contiguous().to_vec()
        };
        let count = take(&typed).min(typed.len());
        if count > 0 {
            self.state().input.drain(..count);
            // Streams may go on.
            self.wake();
        }
        count
    }

    /// Has the event loop look at the console.
    pub fn wake(&self) {
        // The counter can only refuse when it is full, and then the loop is awake anyway.
        let _ = self.shared.kick.write(1);
    }
}

impl Write for ConsoleEnd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        state.ring.push(bytes);
        state.port = self.port;
        let told = std::mem::replace(&mut state.told, true);
        drop(state);
        if !told {
            self.wake();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The event loop's side.
#[derive(Debug)]
pub struct Console {
    shared: Arc<Shared>,
    output: Output,
    streams: Streams,
}

impl Console {
    /// A console that writes to `output`; see [`crn_protocol::control::ConsoleSpec`].
    ///
    /// # Errors
    /// fstat(2)'s or eventfd(2)'s.
    pub fn new(output: OwnedFd, max_bytes: u64) -> io::Result<(ConsoleEnd, Self)> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            kick: EventFd::new(EFD_NONBLOCK)?,
            virtio_input: EventFd::new(EFD_NONBLOCK)?,
        });
        let console = Self {
            shared: Arc::clone(&shared),
            output: Output::new(output, max_bytes)?,
            streams: Streams::default(),
        };
        let port = Port::Serial;
        Ok((ConsoleEnd { shared, port }, console))
    }

    /// Counts up when there is something to do.
    #[must_use]
    pub fn kick(&self) -> &EventFd {
        &self.shared.kick
    }

    /// Moves output and input as far as they go without blocking for more than `patience`. True when the output has
    /// taken everything.
    ///
    /// # Errors
    /// The output is lost for good, and what waited for it.
    pub fn drain(&mut self, patience: Duration) -> io::Result<bool> {
        lock(&self.shared).told = false;
        self.streams.write(&self.shared);
        self.read_streams();
        self.output.write(&self.shared, patience)
    }

    /// Serves a stream from now on; it begins with what the ring has.
    ///
    /// # Errors
    /// Too many are served, or the descriptor is not a stream socket that can be watched.
    pub fn attach(&mut self, stream: OwnedFd, poller: &Poller) -> io::Result<()> {
        let start = lock(&self.shared).ring.start();
        self.streams.attach(stream, start, poller)?;
        self.streams.write(&self.shared);
        Ok(())
    }

    /// An attached stream is ready.
    pub fn stream_ready(&mut self, id: u32, ready: Readiness) {
        self.streams.ready(id, ready);
        self.streams.write(&self.shared);
        self.read_streams();
    }

    fn read_streams(&mut self) {
        let room = INPUT.saturating_sub(lock(&self.shared).input.len());
        let typed = self.streams.read(room);
        if typed.is_empty() {
            return;
        }
        let mut state = lock(&self.shared);
        state.input.extend(typed);
        let port = state.port;
        drop(state);
        let event = match port {
            Port::Serial => &self.shared.kick,
            Port::Virtio => &self.shared.virtio_input,
        };
        // The counter can only refuse when it is full, and then it wakes anyway.
        let _ = event.write(1);
    }
}

#[cfg(test)]
mod tests;
