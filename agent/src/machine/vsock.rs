//! Reaching a guest's vsock port through its machine's `vsock.sock`.

use std::io;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// `OK 4294967295\n` and a margin.
const LONGEST_ANSWER: usize = 32;

/// Connects to guest port `port`; the caller sets the time limit.
///
/// # Errors
/// connect(2)'s error when the machine is gone, [`io::ErrorKind::ConnectionRefused`] when nobody listens in the guest.
pub async fn connect(socket: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .await?;
    let mut answer = Vec::with_capacity(LONGEST_ANSWER);
    // One byte at a time: what follows the line is the guest's stream and not ours to take.
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => break,
            Ok(byte) if answer.len() < LONGEST_ANSWER => answer.push(byte),
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "an endless answer to CONNECT",
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(io::Error::new(
                    io::ErrorKind::ConnectionRefused,
                    "nobody listens on that port",
                ));
            }
            Err(error) => return Err(error),
        }
    }
    if answer.starts_with(b"OK") {
        Ok(stream)
    } else {
        Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            String::from_utf8_lossy(&answer).into_owned(),
        ))
    }
}
