//! Framing: one JSON document a line, at most [`MAX_LINE`] bytes with its newline.

use serde::{Serialize, de::DeserializeOwned};

/// The longest line either side accepts, in bytes. A program's environment (256 variables of 4 KiB, the message
/// schema's limits) fits.
pub const MAX_LINE: usize = 2 * 1024 * 1024;

/// Why a line could not be taken or made.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The peer sent more than [`MAX_LINE`] bytes without a newline.
    #[error("a line is longer than {MAX_LINE} bytes")]
    TooLong,
    /// The line is not the document that was expected.
    #[error("a line does not parse")]
    Parse(#[source] serde_json::Error),
    /// The document cannot be written as JSON.
    #[error("a document cannot be written as JSON")]
    Write(#[source] serde_json::Error),
}

/// Serializes `document` as one line, newline included.
///
/// # Errors
/// [`LineError::Write`] when it is not JSON-representable, [`LineError::TooLong`] when the peer would refuse it.
pub fn encode<T: Serialize>(document: &T) -> Result<Vec<u8>, LineError> {
    let mut line = serde_json::to_vec(document).map_err(LineError::Write)?;
    line.push(b'\n');
    if line.len() > MAX_LINE {
        return Err(LineError::TooLong);
    }
    Ok(line)
}

/// Collects bytes as they arrive and gives back whole lines.
#[derive(Debug, Default)]
pub struct LineBuffer {
    bytes: Vec<u8>,
    /// Bytes before this offset are known to hold no newline.
    scanned: usize,
}

impl LineBuffer {
    /// Appends what was read.
    ///
    /// # Errors
    /// [`LineError::TooLong`] once an unfinished line passes [`MAX_LINE`]; the connection is to be closed then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), LineError> {
        self.bytes.extend_from_slice(bytes);
        let unfinished = self.bytes.len()
            - self
                .bytes
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |at| at + 1);
        if unfinished > MAX_LINE {
            return Err(LineError::TooLong);
        }
        Ok(())
    }

    /// Takes the next whole line and parses it; `None` when no line is complete.
    ///
    /// # Errors
    /// [`LineError::Parse`] with the line consumed.
    #[expect(
        clippy::should_implement_trait,
        reason = "fallible, and typed by the caller"
    )]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LineError> {
        let Some(at) = self.bytes[self.scanned..].iter().position(|b| *b == b'\n') else {
            self.scanned = self.bytes.len();
            return Ok(None);
        };
        let end = self.scanned + at;
        let parsed = serde_json::from_slice(&self.bytes[..end]).map_err(LineError::Parse);
        self.bytes.drain(..=end);
        self.scanned = 0;
        parsed.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_survive_any_split(documents in prop::collection::vec(".*", 0..8), cut in 1usize..40) {
            let bytes: Vec<u8> = documents.iter().flat_map(|d| encode(d).unwrap()).collect();
            let mut buffer = LineBuffer::default();
            let mut got = Vec::new();
            for piece in bytes.chunks(cut) {
                buffer.push(piece).unwrap();
                while let Some(document) = buffer.next::<String>().unwrap() {
                    got.push(document);
                }
            }
            prop_assert_eq!(got, documents);
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut buffer = LineBuffer::default();
        assert!(buffer.push(&vec![b'x'; MAX_LINE]).is_ok());
        assert!(matches!(buffer.push(b"xx"), Err(LineError::TooLong)));
    }
}
