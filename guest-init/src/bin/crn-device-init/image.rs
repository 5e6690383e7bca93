//! A shared read-only image: an ext4 in virtio-pmem, read straight from the host's memory.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use crn_init::system;
use rustix::mount::{MountFlags, UnmountFlags, unmount};

use crate::{ask, read};

const IMAGE: &str = "/dev/pmem0";
const AT: &str = "/image";

/// Mounts it with DAX, which a device without it refuses, and compares the two files in it: each byte of the one is the
/// other's complement. Then tries to write, and looks again.
pub fn check() -> io::Result<()> {
    let dax = fs::read_to_string("/sys/block/pmem0/queue/dax")?;
    println!("DAX {}", dax.trim());
    println!("IMAGE {}", compare()?);
    let disk = OpenOptions::new().read(true).write(true).open(IMAGE)?;
    let before = read(&disk, 0, 1)?;
    // Nobody promises an error: KVM lets a write to memory that is not writable go nowhere.
    disk.write_all_at(&[0xff; 4096], 4096)
        .and_then(|()| disk.sync_data())
        .ok();
    drop(disk);
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    let after = read(&File::open(IMAGE)?, 0, 1)?;
    println!("UNCHANGED {}", before == after);
    ask("IMAGE").map(drop)
}

fn compare() -> io::Result<bool> {
    system::mount(IMAGE, AT, "ext4", MountFlags::RDONLY, Some(c"dax=always"))
        .map_err(|error| io::Error::other(error.to_string()))?;
    let one = fs::read(format!("{AT}/one"))?;
    let other = fs::read(format!("{AT}/other"))?;
    unmount(AT, UnmountFlags::empty())?;
    Ok(one.len() == other.len()
        && one.len() > 1 << 20
        && one.iter().zip(&other).all(|(one, other)| *one == !*other))
}
