//! What comes and goes: a disk, the machine itself.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crn_init::{power_button, system};

use crate::{MIB, ask, read};

/// Where the disk appears that is attached while the machine runs.
const HOT: &str = "/dev/vdc";
/// Where on `vda` stands what has to survive, MiB.
const SURVIVES: usize = 4;
/// The longest the kernel takes to notice anything, under emulation.
const PATIENCE: Duration = Duration::from_secs(120);

/// A disk is attached, used and detached; then what `vda` holds is made durable and the machine waits to be killed.
pub fn run(disk: &File, pattern: &[u8]) -> io::Result<()> {
    ask("ATTACH")?;
    // Its name is there before it can be opened.
    let mut opened = None;
    wait("the disk to come", || {
        opened = OpenOptions::new().read(true).write(true).open(HOT).ok();
        opened.is_some()
    })?;
    let hot = opened.ok_or(io::ErrorKind::NotFound)?;
    let same = read(&hot, 0, 1)? == pattern[..MIB];
    hot.write_all_at(&pattern[MIB..2 * MIB], MIB as u64)?;
    hot.sync_data()?;
    drop(hot);
    println!("ATTACHED {same}");
    ask("DETACH")?;
    wait("the disk to go", || !Path::new(HOT).exists())?;
    ask("DETACHED")?;

    let backwards: Vec<u8> = pattern.iter().rev().copied().collect();
    disk.write_all_at(&backwards[..SURVIVES * MIB], (SURVIVES * MIB) as u64)?;
    disk.sync_data()?;
    // Not made durable, and so of no interest; but it keeps the disk busy while the machine is killed.
    disk.write_all_at(pattern, 16 * MIB as u64)?;
    ask("KILL").map(drop)
}

/// The machine after the one that was killed.
pub fn survived() -> io::Result<()> {
    let disk = OpenOptions::new().read(true).open("/dev/vda")?;
    let pattern = crate::pattern();
    let mut backwards = pattern.iter().rev().copied();
    let expected: Vec<u8> = backwards.by_ref().take(SURVIVES * MIB).collect();
    println!(
        "SURVIVED {}",
        read(&disk, 0, SURVIVES)? == pattern[..SURVIVES * MIB]
            && read(&disk, SURVIVES, SURVIVES)? == expected
    );
    power_button::watch(|| {
        println!("PRESSED");
        system::power_off();
    });
    println!("BUTTON");
    std::thread::sleep(PATIENCE);
    Err(io::Error::other("nobody pressed the button"))
}

fn wait(what: &str, mut done: impl FnMut() -> bool) -> io::Result<()> {
    let started = Instant::now();
    while !done() {
        if started.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("waited in vain for {what}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
