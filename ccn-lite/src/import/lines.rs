//! Lines of a file in chunks: so many that a commit is worth it, so few that a chunk is small.

use std::io::{self, BufRead};

/// Longest line that is read, bytes: the longest message, its content twice over and every character escaped, is shorter.
pub const MAX_LINE: usize = 8 << 20;
/// Lines in a chunk at most.
const LINES: usize = 512;
/// Bytes after which a chunk takes no further line.
const BYTES: usize = 2 << 20;

/// A line with its number, counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// The number.
    pub number: u64,
    /// Its bytes without the end of the line; none when it is too long.
    pub text: Option<Vec<u8>>,
}

/// Some lines that follow one another.
#[derive(Debug, Default)]
pub struct Chunk {
    /// The lines that are not blank.
    pub lines: Vec<Line>,
    /// Bytes read for it, ends of lines and what was skipped included.
    pub bytes: u64,
}

/// Cuts what it reads into chunks.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// Reads from the beginning of `input`.
    pub fn new(input: R) -> Self {
        Self { input, number: 0 }
    }

    /// The next chunk; none at the end.
    ///
    /// # Errors
    /// When the input cannot be read.
    pub fn chunk(&mut self) -> io::Result<Option<Chunk>> {
        let mut chunk = Chunk::default();
        let mut held = 0;
        while chunk.lines.len() < LINES && held < BYTES {
            let mut text = Vec::new();
            let read = self.line(&mut text)?;
            if read == 0 {
                break;
            }
            chunk.bytes += read;
            self.number += 1;
            let is_too_long = text.len() > MAX_LINE;
            if is_too_long || !text.iter().all(u8::is_ascii_whitespace) {
                held += text.len();
                chunk.lines.push(Line {
                    number: self.number,
                    text: (!is_too_long).then_some(text),
                });
            }
        }
        Ok((chunk.bytes > 0).then_some(chunk))
    }

    /// Reads to the end of the line, keeping one byte more than a line may have; how many bytes were read.
    fn line(&mut self, text: &mut Vec<u8>) -> io::Result<u64> {
        let mut read = 0;
        loop {
            let available = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                available => available?,
            };
            let end = available.iter().position(|byte| *byte == b'\n');
            let piece = &available[..end.unwrap_or(available.len())];
            let room = (MAX_LINE + 1).saturating_sub(text.len());
            text.extend_from_slice(&piece[..piece.len().min(room)]);
            let used = piece.len() + usize::from(end.is_some());
            self.input.consume(used);
            read += used as u64;
            if end.is_some() || used == 0 {
                return Ok(read);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8], buffer: usize) -> (Vec<Line>, u64) {
        let mut lines = Lines::new(BufReader::with_capacity(buffer, bytes));
        let (mut found, mut read) = (Vec::new(), 0);
        while let Some(chunk) = lines.chunk().unwrap() {
            assert!(chunk.lines.len() <= LINES);
            read += chunk.bytes;
            found.extend(chunk.lines);
        }
        (found, read)
    }

    #[test]
    fn a_line_that_is_too_long_is_numbered_and_not_held() {
        let mut text = b"one\n".to_vec();
        text.extend(vec![b'x'; MAX_LINE + 5]);
        text.extend(b"\n\nfour");
        let (lines, read) = all(&text, 4096);
        assert_eq!(read, text.len() as u64);
        let of = |number: u64, text: Option<&[u8]>| Line {
            number,
            text: text.map(<[u8]>::to_vec),
        };
        assert_eq!(
            lines,
            [of(1, Some(b"one")), of(2, None), of(4, Some(b"four"))]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn every_line_comes_once_with_its_number(
            lines in prop::collection::vec("[ a-z\r\t\u{e9}]{0,12}", 0..1200), buffer in 1_usize..64, ended in any::<bool>()
        ) {
            let mut text = lines.join("\n");
            if ended {
                text.push('\n');
            }
            let (found, read) = all(text.as_bytes(), buffer);
            prop_assert_eq!(read, text.len() as u64);
            let is_blank = |line: &str| line.bytes().all(|byte| byte.is_ascii_whitespace());
            let expected: Vec<Line> = (1..)
                .zip(&lines)
                .filter(|(_, line)| !is_blank(line))
                .map(|(number, line)| Line { number, text: Some(line.clone().into_bytes()) })
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
