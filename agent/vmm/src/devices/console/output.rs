//! The file or pipe that keeps the console's output.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Shared, lock};

/// Bytes given to one write(2): what a pipe that is ready takes without blocking (PIPE_BUF).
const CHUNK: usize = 4096;

/// See the module.
#[derive(Debug)]
pub struct Output {
    file: File,
    /// Length at which a regular file is cut; 0 for none.
    max_bytes: u64,
    /// The regular file's length; `None` for a pipe or terminal.
    length: Option<u64>,
    /// What it has taken of the ring.
    position: u64,
}

impl Output {
    /// An output that begins with the ring.
    ///
    /// # Errors
    /// fstat(2)'s.
    pub fn new(output: OwnedFd, max_bytes: u64) -> io::Result<Self> {
        let file = File::from(output);
        let metadata = file.metadata()?;
        let length = metadata.is_file().then_some(metadata.len());
        Ok(Self {
            file,
            max_bytes,
            length,
            position: 0,
        })
    }

    /// Writes what it has not taken yet, as far as it goes; true when that is all.
    pub(super) fn write(&mut self, shared: &Shared, patience: Duration) -> io::Result<bool> {
        let result = self.write_some(shared, patience);
        if result.is_err() {
            self.position = lock(shared).ring.end();
        }
        result
    }

    fn write_some(&mut self, shared: &Shared, patience: Duration) -> io::Result<bool> {
        loop {
            let (from, chunk) = lock(shared).ring.read(self.position, CHUNK);
            self.position = from;
            if chunk.is_empty() {
                return Ok(true);
            }
            let timeout = Timespec {
                tv_sec: patience.as_secs() as i64,
                tv_nsec: i64::from(patience.subsec_nanos()),
            };
            if poll(
                &mut [PollFd::new(&self.file, PollFlags::OUT)],
                Some(&timeout),
            )? == 0
            {
                return Ok(false);
            }
            if let Some(length) = &mut self.length {
                if self.max_bytes > 0 && *length + chunk.len() as u64 > self.max_bytes {
                    self.file.set_len(0)?;
                    *length = 0;
                }
                *length += chunk.len() as u64;
            }
            match self.file.write(&chunk) {
                Ok(written) => self.position += written as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
