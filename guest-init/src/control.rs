//! The guest's side of the control stream ([`crn_protocol::guest`]), over anything that reads and writes.

use std::io::{Read, Write};

use crn_protocol::guest::{FromGuest, GuestConfig, ToGuest, VERSION};
use crn_protocol::lines::{LineBuffer, encode};

use crate::error::{Context, Error, Result};

/// Lines from the host.
#[derive(Debug)]
pub struct Incoming<R> {
    stream: R,
    lines: LineBuffer,
}

impl<R: Read> Incoming<R> {
    /// Reads lines from `stream`.
    pub fn new(stream: R) -> Self {
        Self {
            stream,
            lines: LineBuffer::default(),
        }
    }

    /// Waits for the next line; `None` when the host has closed the stream.
    ///
    /// # Errors
    /// The stream's, or a line that does not parse.
    #[expect(clippy::should_implement_trait, reason = "fallible")]
    pub fn next(&mut self) -> Result<Option<ToGuest>> {
        let mut bytes = [0; 4096];
        loop {
            if let Some(line) = self.lines.next()? {
                return Ok(Some(line));
            }
            let got = self
                .stream
                .read(&mut bytes)
                .context(|| "read the control stream".to_owned())?;
            if got == 0 {
                return Ok(None);
            }
            self.lines.push(&bytes[..got])?;
        }
    }
}

/// Sends one line to the host.
///
/// # Errors
/// The stream's.
pub fn send(stream: &mut impl Write, line: &FromGuest) -> Result<()> {
    let bytes = encode(line)?;
    stream
        .write_all(&bytes)
        .context(|| "write to the control stream".to_owned())
}

/// Says hello and waits for the configuration.
///
/// # Errors
/// The stream's, or [`Error::Host`] when something else than the configuration comes.
pub fn configure<S: Read>(
    incoming: &mut Incoming<S>,
    outgoing: &mut impl Write,
    kernel: &str,
) -> Result<GuestConfig> {
    send(
        outgoing,
        &FromGuest::Hello {
            version: VERSION,
            kernel: kernel.to_owned(),
        },
    )?;
    match incoming.next()? {
        Some(ToGuest::Configure(config)) => Ok(*config),
        Some(ToGuest::Renew(_)) => Err(Error::Host(
            "sent another identity before it sent the configuration",
        )),
        Some(ToGuest::Shutdown { .. }) => Err(Error::Host(
            "asked for a shutdown before it sent the configuration",
        )),
        None => Err(Error::Host(
            "closed the control stream before it sent the configuration",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use crn_protocol::guest::Workload;

    use super::*;

    #[test]
    fn the_first_line_is_hello_and_the_answer_is_the_configuration() {
        let (guest, mut host) = UnixStream::pair().unwrap();
        let config = GuestConfig {
            hostname: "h".to_owned(),
            network: None,
            workload: Workload::Instance {
                root: "root".into(),
            },
        };
        let mut lines = encode(&ToGuest::Configure(Box::new(config.clone()))).unwrap();
        lines.extend(encode(&ToGuest::Shutdown { grace_seconds: 3 }).unwrap());
        host.write_all(&lines).unwrap();

        let mut incoming = Incoming::new(guest.try_clone().unwrap());
        let mut outgoing = guest;
        assert_eq!(
            configure(&mut incoming, &mut outgoing, "6.12").unwrap(),
            config
        );
        // A line that came in the same packet is not lost.
        assert_eq!(
            incoming.next().unwrap(),
            Some(ToGuest::Shutdown { grace_seconds: 3 })
        );

        let mut said = [0; 128];
        let got = host.read(&mut said).unwrap();
        assert_eq!(
            &said[..got],
            b"{\"hello\":{\"version\":1,\"kernel\":\"6.12\"}}\n"
        );
    }

    #[test]
    fn a_host_that_hangs_up_is_an_error() {
        let (guest, host) = UnixStream::pair().unwrap();
        host.shutdown(std::net::Shutdown::Write).unwrap();
        let mut outgoing = guest.try_clone().unwrap();
        let error = configure(&mut Incoming::new(guest), &mut outgoing, "6.12").unwrap_err();
        assert!(error.to_string().contains("closed the control stream"));
    }
}
