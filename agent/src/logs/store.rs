//! One machine's log on the disk: a few files of equal length, the oldest of which goes when a new one is begun. Each
//! line is `<Unix microseconds> <console offset after it> <text>`, so that the next agent goes on where this one was.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::ledger::now_us;

/// Files a log is made of.
pub const SEGMENTS: u64 = 4;
/// The least length of a file: what one collection may add.
const LEAST_BYTES: u64 = 64 * 1024;
/// A longer line is kept in parts, in bytes.
pub const MAX_LINE: usize = 16 * 1024;
/// Bytes of the console read at a time.
const CHUNK: u64 = 64 * 1024;

/// The writing end.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    segment_bytes: u64,
    segment: u64,
    written: u64,
    /// Of the console: what is in the log.
    offset: u64,
    /// Of the console: its length when it was last looked at.
    seen: u64,
}

impl Store {
    /// Opens a log, and mends its last line if the writer was killed in it.
    pub fn open(dir: &Path, segment_bytes: u64) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut store = Self {
            dir: dir.to_owned(),
            segment_bytes: segment_bytes.max(LEAST_BYTES),
            segment: 0,
            written: 0,
            offset: 0,
            seen: 0,
        };
        if let Some(last) = segments(dir)?.last() {
            store.segment = *last;
            let path = segment_path(dir, *last);
            let mut file = File::open(&path)?;
            let length = file.metadata()?.len();
            // More than the longest line: its end is enough.
            let from = length.saturating_sub(2 * CHUNK);
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.take(2 * CHUNK).read_to_end(&mut bytes)?;
            let whole = bytes
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |at| at + 1);
            store.written = from + whole as u64;
            if whole < bytes.len() {
                OpenOptions::new()
                    .write(true)
                    .open(&path)?
                    .set_len(store.written)?;
            }
            let text = String::from_utf8_lossy(bytes.get(..whole).unwrap_or_default());
            let last = text.lines().next_back().and_then(Line::parse);
            store.offset = last.map_or(0, |line| line.offset);
            store.seen = store.offset;
        }
        Ok(store)
    }

    /// Takes over what the console has that the log has not; with `ended`, an unfinished line too. Whether there was
    /// anything.
    pub fn collect(&mut self, console: &Path, ended: bool) -> io::Result<bool> {
        let mut file = match File::open(console) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        let length = file.metadata()?.len();
        if length < self.seen {
            // The console was begun again.
            self.offset = 0;
        }
        self.seen = length;
        let mut any = false;
        while self.offset < length {
            file.seek(SeekFrom::Start(self.offset))?;
            let mut bytes = Vec::new();
            io::Read::by_ref(&mut file)
                .take(CHUNK)
                .read_to_end(&mut bytes)?;
            let at_end = self.offset + bytes.len() as u64 >= length;
            let (lines, taken) = split(&bytes, ended && at_end);
            if taken == 0 {
                break;
            }
            self.append(&lines)?;
            any |= !lines.is_empty();
        }
        Ok(any)
    }

    fn append(&mut self, lines: &[(usize, String)]) -> io::Result<()> {
        let now = now_us();
        let start = self.offset;
        let mut text = String::new();
        let mut offset = start;
        for (end, line) in lines {
            offset = start + *end as u64;
            text.push_str(&format!("{now} {offset} {line}\n"));
        }
        if self.written > 0 && self.written + text.len() as u64 > self.segment_bytes {
            self.segment += 1;
            self.written = 0;
        }
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(segment_path(&self.dir, self.segment))?;
        if let Err(error) = file.write_all(text.as_bytes()) {
            // A full disk may have taken a part: the same lines come again, whole.
            file.set_len(self.written)?;
            return Err(error);
        }
        self.written += text.len() as u64;
        self.offset = offset;
        for old in segments(&self.dir)? {
            if old + SEGMENTS <= self.segment {
                std::fs::remove_file(segment_path(&self.dir, old))?;
            }
        }
        Ok(())
    }
}

/// The lines in `bytes`, each with where it ends, and how many bytes they are. The last one needs no end when `whole`.
fn split(bytes: &[u8], whole: bool) -> (Vec<(usize, String)>, usize) {
    let (mut lines, mut taken) = (Vec::new(), 0);
    while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
        let window = rest.get(..MAX_LINE).unwrap_or(rest);
        let (length, step) = match window.iter().position(|b| *b == b'\n') {
            Some(at) => (at, at + 1),
            None if rest.len() >= MAX_LINE => (MAX_LINE, MAX_LINE),
            None if whole => (rest.len(), rest.len()),
            None => break,
        };
        taken += step;
        let text = String::from_utf8_lossy(window.get(..length).unwrap_or_default());
        lines.push((taken, clean(&text)));
    }
    (lines, taken)
}

/// A console line without carriage returns and other control characters, tabs and colours excepted.
fn clean(line: &str) -> String {
    line.chars()
        .filter(|c| !c.is_control() || matches!(c, '\t' | '\x1b'))
        .collect()
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it was collected, Unix microseconds.
    pub at: i64,
    /// Of the console, after it.
    pub(super) offset: u64,
    /// Without its end.
    pub text: String,
}

impl Line {
    /// Reads what [`Store`] writes.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut parts = line.splitn(3, ' ');
        Some(Self {
            at: parts.next()?.parse().ok()?,
            offset: parts.next()?.parse().ok()?,
            text: parts.next()?.to_owned(),
        })
    }
}

/// The numbers of a log's files, oldest first.
pub(super) fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut found: Vec<u64> = std::fs::read_dir(dir)?
        .filter_map(|entry| {
            entry
                .ok()?
                .file_name()
                .to_str()?
                .strip_prefix("log.")?
                .parse()
                .ok()
        })
        .collect();
    found.sort_unstable();
    Ok(found)
}

pub(super) fn segment_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("log.{segment:08}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::read::Cursor;
    use super::*;

    fn texts(dir: &Path) -> Vec<String> {
        let mut cursor = Cursor::default();
        let mut all = Vec::new();
        loop {
            let lines = cursor.read(dir).unwrap();
            if lines.is_empty() {
                return all;
            }
            all.extend(lines.into_iter().map(|line| line.text));
        }
    }

    fn add(console: &Path, text: &str) {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(console)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn a_console_is_followed_through_growth_a_cut_and_the_next_agent() {
        let dir = tempfile::tempdir().unwrap();
        let (console, log) = (dir.path().join("console.log"), dir.path().join("log"));
        let mut store = Store::open(&log, 1 << 20).unwrap();
        assert!(!store.collect(&console, false).unwrap());
        add(&console, "one\r\ntw");
        assert!(store.collect(&console, false).unwrap());
        assert_eq!(texts(&log), ["one"]);
        // An agent that was killed in the middle of a line, and the next one.
        add(&segment_path(&log, 0), "17");
        let mut store = Store::open(&log, 1 << 20).unwrap();
        add(&console, "o\nlogin:");
        store.collect(&console, false).unwrap();
        assert_eq!(texts(&log), ["one", "two"]);
        store.collect(&console, true).unwrap();
        assert_eq!(texts(&log), ["one", "two", "login:"]);
        std::fs::write(&console, "new\n").unwrap();
        store.collect(&console, false).unwrap();
        assert_eq!(texts(&log), ["one", "two", "login:", "new"]);
    }

    #[test]
    fn a_log_is_bounded_and_keeps_the_latest() {
        let dir = tempfile::tempdir().unwrap();
        let (console, log) = (dir.path().join("console.log"), dir.path().join("log"));
        let mut store = Store::open(&log, 1).unwrap();
        for number in 0..60_000 {
            add(&console, &format!("line {number}\n"));
            if number % 1000 == 0 {
                store.collect(&console, false).unwrap();
            }
        }
        store.collect(&console, true).unwrap();
        let bytes: u64 = std::fs::read_dir(&log)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(bytes <= SEGMENTS * 3 * LEAST_BYTES, "{bytes}");
        let kept = texts(&log);
        assert_eq!(kept.last().unwrap(), "line 59999");
        assert!(kept.len() < 60_000 && kept.len() > 1000, "{}", kept.len());
    }

    proptest! {
        #[test]
        fn any_console_is_split_without_loss_of_place(bytes in prop::collection::vec(any::<u8>(), 0..40_000)) {
            let (lines, taken) = split(&bytes, true);
            prop_assert_eq!(taken, bytes.len());
            prop_assert!(lines.iter().all(|(_, line)| !line.contains('\n')));
            let (_, some) = split(&bytes, false);
            prop_assert!(some <= taken && taken - some <= MAX_LINE);
        }

        #[test]
        fn a_line_reads_as_it_was_written(at in any::<i64>(), offset in any::<u64>(), text in "[^\n]*") {
            let line = Line::parse(&format!("{at} {offset} {text}")).unwrap();
            prop_assert_eq!(line, Line { at, offset, text });
        }

        #[test]
        fn junk_is_no_line_and_no_panic(text in ".*") {
            let _ = Line::parse(&text);
        }
    }
}
