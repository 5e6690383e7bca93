//! Reading a log while it grows and rotates. Everything here blocks.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

pub use super::store::Line;
use super::store::{segment_path, segments};

/// Bytes read at a time: more than the longest line takes.
const CHUNK: u64 = 128 * 1024;

/// A place in a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    segment: u64,
    position: u64,
}

impl Cursor {
    /// The next lines, none when there are none yet. What was rotated away is passed over.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(&mut self, dir: &Path) -> io::Result<Vec<Line>> {
        let all = match segments(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            all => all?,
        };
        let from = self.segment;
        for segment in all.into_iter().filter(|segment| *segment >= from) {
            if segment > self.segment {
                (self.segment, self.position) = (segment, 0);
            }
            let mut file = match File::open(segment_path(dir, segment)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            file.seek(SeekFrom::Start(self.position))?;
            let mut bytes = Vec::new();
            file.take(CHUNK).read_to_end(&mut bytes)?;
            let Some(last) = bytes.iter().rposition(|b| *b == b'\n') else {
                continue;
            };
            self.position += last as u64 + 1;
            let text = String::from_utf8_lossy(bytes.get(..last).unwrap_or_default());
            return Ok(text.lines().filter_map(Line::parse).collect());
        }
        Ok(Vec::new())
    }

    /// A place from which at most `tail` lines collected at `since` (Unix microseconds) or later follow, and how many of
    /// the next such lines are to be passed over for that.
    ///
    /// # Errors
    /// What the file system says.
    pub fn before_last(dir: &Path, since: i64, tail: usize) -> io::Result<(Self, usize)> {
        let mut cursor = Self::default();
        let mut count = 0usize;
        loop {
            let lines = cursor.read(dir)?;
            if lines.is_empty() {
                return Ok((Self::default(), count.saturating_sub(tail)));
            }
            count += lines.iter().filter(|line| line.at >= since).count();
        }
    }
}
