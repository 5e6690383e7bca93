//! Reads and writes of `/dev/vda` past the page cache; a line for each kind.

#![allow(unsafe_code, reason = "buffers the kernel reads and writes by itself")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Instant;

use io_uring::{IoUring, opcode, types};
use rustix::fs::OFlags;

use crate::report;

const PAGE: usize = 4096;
const LARGE: usize = 1 << 20;
/// Requests under way at once in the deep cases.
const DEPTH: usize = 32;
/// Operations of each kind; the first sixteenth is not timed.
const RANDOM: usize = 2048;
const SEQUENTIAL: usize = 64;

#[derive(Clone, Copy)]
enum Kind {
    Read,
    Write,
}

/// Measures everything.
pub fn run() -> io::Result<()> {
    let disk = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::DIRECT.bits().cast_signed())
        .open("/dev/vda")?;
    let pages = rustix::fs::seek(&disk, rustix::fs::SeekFrom::End(0))? / PAGE as u64;
    shallow(&disk, "randread-4k-qd1", Kind::Read, pages)?;
    shallow(&disk, "randwrite-4k-qd1", Kind::Write, pages)?;
    deep(&disk, "randread-4k-qd32", Kind::Read, pages)?;
    deep(&disk, "randwrite-4k-qd32", Kind::Write, pages)?;
    sequential(&disk, "read-1m", Kind::Read, pages)?;
    sequential(&disk, "write-1m", Kind::Write, pages)
}

/// Offsets all over the disk, always the same ones.
struct Offsets {
    state: u64,
    pages: u64,
}

impl Iterator for Offsets {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Some((self.state >> 33) % self.pages * PAGE as u64)
    }
}

/// A buffer whose address suits O_DIRECT.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    fn new(length: usize) -> Self {
        let bytes = vec![0xa5; length + PAGE];
        Self {
            start: bytes.as_ptr().align_offset(PAGE),
            bytes,
            length,
        }
    }

    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

fn once(disk: &File, kind: Kind, buffer: &mut [u8], at: u64) -> io::Result<()> {
    match kind {
        Kind::Read => disk.read_exact_at(buffer, at),
        Kind::Write => disk.write_all_at(buffer, at),
    }
}

/// One request at a time.
fn shallow(disk: &File, name: &str, kind: Kind, pages: u64) -> io::Result<()> {
    let mut buffer = Aligned::new(PAGE);
    let mut offsets = Offsets { state: 1, pages };
    for at in offsets.by_ref().take(RANDOM / 16) {
        once(disk, kind, buffer.as_mut(), at)?;
    }
    let started = Instant::now();
    for at in offsets.take(RANDOM) {
        once(disk, kind, buffer.as_mut(), at)?;
    }
    report(name, RANDOM, started);
    Ok(())
}

/// Large requests one behind the other, from the disk's start.
fn sequential(disk: &File, name: &str, kind: Kind, pages: u64) -> io::Result<()> {
    let mut buffer = Aligned::new(LARGE);
    let room = pages * PAGE as u64 / LARGE as u64;
    once(disk, kind, buffer.as_mut(), 0)?;
    let started = Instant::now();
    for index in 0..SEQUENTIAL as u64 {
        once(disk, kind, buffer.as_mut(), index % room * LARGE as u64)?;
    }
    report(name, SEQUENTIAL, started);
    Ok(())
}

/// [`DEPTH`] requests under way all the time.
fn deep(disk: &File, name: &str, kind: Kind, pages: u64) -> io::Result<()> {
    let mut ring = IoUring::new(DEPTH as u32)?;
    let mut buffers: Vec<Aligned> = (0..DEPTH).map(|_| Aligned::new(PAGE)).collect();
    let mut offsets = Offsets { state: 2, pages };
    let warm = RANDOM / 16;
    let (mut begun, mut done) = (0, 0);
    let mut free: Vec<usize> = (0..DEPTH).collect();
    let mut started = Instant::now();
    while done < RANDOM + warm {
        while begun < RANDOM + warm
            && let Some(index) = free.pop()
            && let Some(at) = offsets.next()
        {
            let (fd, buffer) = (types::Fd(disk.as_raw_fd()), buffers[index].as_mut());
            let entry = match kind {
                Kind::Read => opcode::Read::new(fd, buffer.as_mut_ptr(), PAGE as u32)
                    .offset(at)
                    .build(),
                Kind::Write => opcode::Write::new(fd, buffer.as_ptr(), PAGE as u32)
                    .offset(at)
                    .build(),
            };
            // SAFETY: the buffer belongs to this request until its completion has been seen: only then is its index
            // free again. `buffers` outlives the last completion, and after an error the machine ends.
            unsafe { ring.submission().push(&entry.user_data(index as u64)) }
                .map_err(io::Error::other)?;
            begun += 1;
        }
        ring.submit_and_wait(1)?;
        for completion in ring.completion() {
            if completion.result() != PAGE as i32 {
                return Err(io::Error::from_raw_os_error(-completion.result()));
            }
            free.push(completion.user_data() as usize);
            done += 1;
            if done == warm {
                started = Instant::now();
            }
        }
    }
    report(name, RANDOM, started);
    Ok(())
}
