//! What host and machine say to each other: the job goes in as a JSON file of the initramfs, the results come out as
//! frames on the second serial port.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where the job stands in the machine.
pub const JOB_PATH: &str = "/nested-job.json";
/// Where the modules to load stand in the machine, as `00-kvm.ko`, `01-kvm-amd.ko`, …
pub const MODULE_DIR: &str = "/nested-modules";
/// Longest payload of one frame, bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// Everything the machine is to do before it powers off.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Job {
    /// Run one after the other; a failure does not stop the rest.
    pub commands: Vec<Command>,
}

/// One program to run in the machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Command {
    /// Program path and arguments.
    pub argv: Vec<String>,
    /// The whole environment, besides `PATH`.
    pub env: BTreeMap<String, String>,
    /// Killed after so long, by the machine's clock.
    pub timeout: Duration,
}

impl Command {
    /// A command with an empty environment and a minute's time.
    pub fn new<I, S>(argv: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Command {
            argv: argv.into_iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            timeout: Duration::from_secs(60),
        }
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Kill it after so long, by the machine's clock.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It called exit.
    Exited(i32),
    /// A signal ended it.
    Killed(i32),
    /// Its time was up and it was killed.
    TimedOut,
    /// It could not be started, and why.
    NotStarted(String),
}

/// One frame: a header line `<kind> <command> <payload length>`, then the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Bytes the command wrote to its standard output.
    Stdout(usize, Vec<u8>),
    /// Bytes the command wrote to its standard error.
    Stderr(usize, Vec<u8>),
    /// The command is over.
    Ended(usize, Ending),
    /// All commands are over; the machine powers off.
    Done,
}

impl Frame {
    /// Writes the frame in one piece.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let ending;
        let (kind, command, payload) = match self {
            Frame::Stdout(command, bytes) => ("stdout", *command, bytes.as_slice()),
            Frame::Stderr(command, bytes) => ("stderr", *command, bytes.as_slice()),
            Frame::Ended(command, how) => {
                ending = serde_json::to_vec(how)?;
                ("ended", *command, ending.as_slice())
            }
            Frame::Done => ("done", 0, &[][..]),
        };
        let mut frame = format!("{kind} {command} {}\n", payload.len()).into_bytes();
        frame.extend_from_slice(payload);
        out.write_all(&frame)
    }

    /// Reads the next frame; `None` at the end of the stream.
    pub fn read(input: &mut impl BufRead) -> io::Result<Option<Frame>> {
        let mut header = String::new();
        if io::Read::take(&mut *input, 64).read_line(&mut header)? == 0 {
            return Ok(None);
        }
        let broken = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("not a frame header: {header:?}"),
            )
        };
        let mut words = header.trim_end().split(' ');
        let kind = words.next().ok_or_else(broken)?;
        let command: usize = words
            .next()
            .and_then(|word| word.parse().ok())
            .ok_or_else(broken)?;
        let length: usize = words
            .next()
            .and_then(|word| word.parse().ok())
            .ok_or_else(broken)?;
        if length > MAX_PAYLOAD {
            return Err(broken());
        }
        let mut payload = vec![0; length];
        input.read_exact(&mut payload)?;
        match kind {
            "stdout" => Ok(Some(Frame::Stdout(command, payload))),
            "stderr" => Ok(Some(Frame::Stderr(command, payload))),
            "ended" => Ok(Some(Frame::Ended(
                command,
                serde_json::from_slice(&payload)?,
            ))),
            "done" => Ok(Some(Frame::Done)),
            _ => Err(broken()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_were_written() {
        let frames = [
            Frame::Stdout(0, b"line\nstdout 1 4\n".to_vec()),
            Frame::Stderr(1, vec![0xff, 0, b'\n']),
            Frame::Ended(1, Ending::NotStarted("no such file".into())),
            Frame::Done,
        ];
        let mut wire = Vec::new();
        for frame in &frames {
            frame.write(&mut wire).unwrap();
        }
        let mut input = wire.as_slice();
        let mut back = Vec::new();
        while let Some(frame) = Frame::read(&mut input).unwrap() {
            back.push(frame);
        }
        assert_eq!(back, frames);
    }

    #[test]
    fn noise_and_oversized_payloads_are_refused() {
        assert!(Frame::read(&mut &b"[    0.0] Linux version\n"[..]).is_err());
        assert!(Frame::read(&mut &b"stdout 0 99999999\n"[..]).is_err());
    }
}
