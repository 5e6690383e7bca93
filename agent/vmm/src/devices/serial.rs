//! The guest's console: a 16550 whose output goes to a file or pipe.
//!
//! vCPU threads put bytes into a bounded buffer; the event loop writes them out in batches. A guest that prints
//! faster than the output takes it loses output, never time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Bytes that wait for the output; what comes on top is lost.
const BUFFER: usize = 64 * 1024;
/// Bytes given to one write(2): what a pipe that is ready takes without blocking (PIPE_BUF).
const CHUNK: usize = 4096;

/// The guest's side of COM1.
pub type Com1 = Serial<SerialLine, NoEvents, ConsoleInput>;

/// COM1's interrupt.
#[derive(Debug)]
pub struct SerialLine(pub EventFd);

impl Trigger for SerialLine {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

#[derive(Debug)]
struct Shared {
    bytes: Mutex<VecDeque<u8>>,
    kick: EventFd,
}

impl Shared {
    fn bytes(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the serial port's bytes go in.
#[derive(Debug)]
pub struct ConsoleInput(Arc<Shared>);

impl Write for ConsoleInput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut buffer = self.0.bytes();
        let was_empty = buffer.is_empty();
        let room = BUFFER - buffer.len();
        buffer.extend(&bytes[..bytes.len().min(room)]);
        drop(buffer);
        if was_empty {
            self.0.kick.write(1)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where they come out.
#[derive(Debug)]
pub struct Console {
    shared: Arc<Shared>,
    output: File,
    /// Length at which a regular file is cut; 0 for none.
    max_bytes: u64,
    /// The regular file's length; `None` for a pipe or terminal.
    length: Option<u64>,
}

impl Console {
    /// A console that writes to `output`; see [`crn_protocol::control::ConsoleSpec`].
    ///
    /// # Errors
    /// fstat(2)'s or eventfd(2)'s.
    pub fn new(output: OwnedFd, max_bytes: u64) -> io::Result<(ConsoleInput, Self)> {
        let output = File::from(output);
        let metadata = output.metadata()?;
        let length = metadata.is_file().then_some(metadata.len());
        let shared = Arc::new(Shared {
            bytes: Mutex::default(),
            kick: EventFd::new(EFD_NONBLOCK)?,
        });
        Ok((
            ConsoleInput(Arc::clone(&shared)),
            Self {
                shared,
                output,
                max_bytes,
                length,
            },
        ))
    }

    /// Counts up when output begins to wait.
    #[must_use]
    pub fn kick(&self) -> &EventFd {
        &self.shared.kick
    }

    /// Writes out what waits, as far as the output takes it without blocking for more than `patience`. True when
    /// nothing is left.
    ///
    /// # Errors
    /// The output is lost for good; nothing waits any more.
    pub fn drain(&mut self, patience: Duration) -> io::Result<bool> {
        let result = self.write_out(patience);
        if result.is_err() {
            self.shared.bytes().clear();
        }
        result
    }

    fn write_out(&mut self, patience: Duration) -> io::Result<bool> {
        loop {
            let chunk: Vec<u8> = {
                let buffer = self.shared.bytes();
                buffer.iter().take(CHUNK).copied().collect()
            };
            if chunk.is_empty() {
                return Ok(true);
            }
            let timeout = Timespec {
                tv_sec: patience.as_secs() as i64,
                tv_nsec: i64::from(patience.subsec_nanos()),
            };
            if poll(
                &mut [PollFd::new(&self.output, PollFlags::OUT)],
                Some(&timeout),
            )? == 0
            {
                return Ok(false);
            }
            if let Some(length) = &mut self.length {
                if self.max_bytes > 0 && *length + chunk.len() as u64 > self.max_bytes {
                    self.output.set_len(0)?;
                    *length = 0;
                }
                *length += chunk.len() as u64;
            }
            let written = match self.output.write(&chunk) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
            self.shared.bytes().drain(..written);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_file_is_cut_when_it_reaches_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console");
        let file = File::options()
            .create(true)
            .append(true)
            .read(true)
            .open(&path)
            .unwrap();
        let (mut input, mut console) = Console::new(file.into(), 10_000).unwrap();
        for round in 0..4u8 {
            input.write_all(&[b'a' + round; 3000]).unwrap();
            assert!(console.drain(Duration::ZERO).unwrap());
        }
        assert_eq!(std::fs::read(&path).unwrap(), [b'd'; 3000]);
    }

    #[test]
    fn a_full_pipe_loses_output_without_blocking() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (mut input, mut console) = Console::new(OwnedFd::from(writer), 0).unwrap();
        for _ in 0..1000 {
            input.write_all(&[b'x'; 1000]).unwrap();
            console.drain(Duration::ZERO).unwrap();
        }
        assert!(!console.drain(Duration::ZERO).unwrap());
        assert_eq!(console.shared.bytes().len(), BUFFER);
        let mut bytes = vec![0; 65536];
        while !console.drain(Duration::ZERO).unwrap() {
            assert!(reader.read(&mut bytes).unwrap() > 0);
        }
    }

    #[test]
    fn a_closed_pipe_is_an_error_that_leaves_nothing_waiting() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let (mut input, mut console) = Console::new(OwnedFd::from(writer), 0).unwrap();
        input.write_all(b"x").unwrap();
        assert!(console.drain(Duration::ZERO).is_err());
        assert!(console.drain(Duration::ZERO).unwrap());
    }

    #[test]
    fn bytes_written_to_the_data_register_come_out() {
        let (reader, writer) = io::pipe().unwrap();
        let (input, mut console) = Console::new(OwnedFd::from(writer), 0).unwrap();
        let mut com1: Com1 = Serial::new(SerialLine(EventFd::new(EFD_NONBLOCK).unwrap()), input);
        for byte in b"ok\n" {
            com1.write(0, *byte).unwrap();
        }
        assert_eq!(console.kick().read().unwrap(), 1);
        assert!(console.drain(Duration::ZERO).unwrap());
        drop((com1, console));
        let mut text = String::new();
        let mut reader = reader;
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "ok\n");
    }
}
