//! Replaces the running kernel: the image's own and its files into memory by kexec_load(2), devices at rest, then the
//! jump. Not kexec_file_load(2), which hashes everything twice, byte by byte, against damage that a kernel may do which
//! has crashed; ours has not, and that took half of the way to a login.

#![allow(unsafe_code, reason = "the system call layer knows no kexec_load")]

use std::fs::{self, File};
use std::io::{self, Read};

use rustix::rand::{GetRandomFlags, getrandom};
use rustix::system::RebootCommand;

use super::bzimage::{BOOT_PARAMS, BzImage};
use super::handover::{PAGE, Places, SEED};
use super::volume::Volume;
use super::{Entry, Place};
use crate::error::{Context, Error, Result};
use crate::system::{end, say};

/// Longest kernel, bytes.
const MAX_KERNEL: u64 = 256 << 20;
/// Longest initrd, bytes: it stands in memory twice for a moment.
const MAX_INITRD: u64 = 1 << 30;
/// Most archives of an initrd: there are 16 segments (KEXEC_SEGMENT_MAX of linux/kexec.h).
const MAX_ARCHIVES: usize = 12;
/// What this kernel was told by its loader.
const OWN_PARAMS: &str = "/sys/kernel/boot_params/data";
const VIRTIO_DEVICES: &str = "/sys/bus/virtio/devices";

/// `struct kexec_segment` of linux/kexec.h.
#[repr(C)]
struct Segment {
    buffer: *const u8,
    buffer_size: usize,
    memory: usize,
    memory_size: usize,
}

impl Segment {
    fn new(bytes: &[u8], address: u64) -> Result<Self> {
        let overflow = |_| Error::Refused("an address is beyond this machine's".to_owned());
        Ok(Self {
            buffer: bytes.as_ptr(),
            buffer_size: bytes.len(),
            memory: usize::try_from(address).map_err(overflow)?,
            memory_size: bytes.len().next_multiple_of(PAGE as usize),
        })
    }
}

/// Puts an entry's kernel, archives and arguments where [`start`] finds them.
///
/// # Errors
/// A file that is not there or no kernel; too little memory.
pub fn load(volumes: &[Volume], entry: &Entry) -> Result<()> {
    if entry.initrds.len() > MAX_ARCHIVES {
        return Err(Error::Refused(format!(
            "the initrd has {} archives, {MAX_ARCHIVES} are possible",
            entry.initrds.len()
        )));
    }
    let image = read(volumes, &entry.kernel, MAX_KERNEL)?;
    let kernel = BzImage::parse(&image)?;
    let mut left = MAX_INITRD;
    let mut archives = Vec::new();
    for place in &entry.initrds {
        let archive = read(volumes, place, left)?;
        left -= archive.len() as u64;
        archives.push(archive);
    }

    let own = own_params()?;
    let sizes: Vec<u64> = archives.iter().map(|bytes| bytes.len() as u64).collect();
    let places = Places::find(&own, &kernel, &sizes, &entry.cmdline)?;
    let mut seed = [0; SEED];
    getrandom(&mut seed, GetRandomFlags::empty()).context(|| "draw a seed".to_owned())?;
    let block = places.block(&own, &kernel, &entry.cmdline, &seed);
    let mut segments = vec![
        Segment::new(&block, places.block)?,
        Segment::new(kernel.code(), places.kernel)?,
    ];
    for (bytes, address) in archives.iter().zip(&places.archives) {
        segments.push(Segment::new(bytes, *address)?);
    }
    // SAFETY: the segments' buffers are slices of `block`, `image` and `archives`, which live until after the call; the
    // kernel reads them and the array of `segments.len()` segments, and writes nothing to this process's memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_load,
            places.entry,
            segments.len(),
            segments.as_ptr(),
            0,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error()).context(|| format!("load {}", entry.kernel.path))
    }
}

fn read(volumes: &[Volume], place: &Place, limit: u64) -> Result<Vec<u8>> {
    let file = volumes
        .get(place.volume)
        .ok_or(io::ErrorKind::NotFound)
        .map_err(io::Error::from)
        .and_then(|volume| volume.open(&place.path))
        .context(|| format!("open {}", place.path))?;
    let length = file
        .metadata()
        .context(|| format!("measure {}", place.path))?
        .len();
    if length > limit {
        return Err(Error::Refused(format!(
            "{} has {length} bytes, {limit} are possible",
            place.path
        )));
    }
    let mut bytes = Vec::new();
    usize::try_from(length)
        .ok()
        .and_then(|length| bytes.try_reserve_exact(length).ok())
        .ok_or(io::ErrorKind::OutOfMemory)
        .map_err(io::Error::from)
        .and_then(|()| file.take(length).read_to_end(&mut bytes))
        .context(|| format!("read {}", place.path))?;
    Ok(bytes)
}

/// The memory map and the places of tables, as they were given to this kernel.
fn own_params() -> Result<[u8; BOOT_PARAMS]> {
    let mut params = [0; BOOT_PARAMS];
    File::open(OWN_PARAMS)
        .and_then(|mut file| file.read_exact(&mut params))
        .context(|| format!("read {OWN_PARAMS}"))?;
    Ok(params)
}

/// Starts the kernel that was loaded.
pub fn start() -> ! {
    rustix::fs::sync();
    quiet_devices();
    end(RebootCommand::Kexec)
}
/// Takes every virtio device from its driver, which resets it: what the host writes into a queue later would be
/// written into the next kernel's memory.
fn quiet_devices() {
    let Ok(devices) = fs::read_dir(VIRTIO_DEVICES) else {
        return;
    };
    for device in devices.flatten() {
        let name = device.file_name();
        let unbind = device.path().join("driver/unbind");
        if unbind.exists()
            && let Err(error) = fs::write(&unbind, name.as_encoded_bytes())
        {
            say(&format!(
                "{} keeps its driver: {error}",
                name.to_string_lossy()
            ));
        }
    }
}
