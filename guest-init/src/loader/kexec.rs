//! Replaces the running kernel: kexec_file_load(2), devices at rest, then the jump.

#![allow(unsafe_code, reason = "the system call layer knows no kexec_file_load")]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::fd::AsRawFd;

use rustix::fs::MemfdFlags;
use rustix::system::RebootCommand;

use super::volume::Volume;
use super::{Entry, Place};
use crate::error::{Context, Error, Result};
use crate::system::{end, say};

/// KEXEC_FILE_NO_INITRAMFS of linux/kexec.h.
const NO_INITRAMFS: libc::c_ulong = 4;
/// Longest initrd, bytes: it stands in memory twice for a moment.
const MAX_INITRD: u64 = 1 << 30;
const VIRTIO_DEVICES: &str = "/sys/bus/virtio/devices";

/// Puts an entry's kernel, archives and arguments where [`start`] finds them.
///
/// # Errors
/// A file that is not there; ENOEXEC for one that is no kernel; too little memory.
pub fn load(volumes: &[Volume], entry: &Entry) -> Result<()> {
    let kernel = open(volumes, &entry.kernel)?;
    let initrd = (!entry.initrds.is_empty())
        .then(|| concatenate(volumes, &entry.initrds))
        .transpose()?;
    let cmdline = CString::new(entry.cmdline.as_str())
        .map_err(|_| Error::Refused("the kernel's arguments hold a zero byte".to_owned()))?;
    let cmdline = cmdline.as_bytes_with_nul();
    let (initrd, flags) = match &initrd {
        Some(file) => (file.as_raw_fd(), 0),
        None => (-1, NO_INITRAMFS),
    };
    // SAFETY: two descriptors that are open during the call, or none; a pointer to `cmdline.len()` bytes that end in
    // zero; nothing is written to this process's memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initrd,
            cmdline.len(),
            cmdline.as_ptr(),
            flags,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error()).context(|| format!("load {}", entry.kernel.path))
    }
}

fn open(volumes: &[Volume], place: &Place) -> Result<File> {
    volumes
        .get(place.volume)
        .ok_or(io::ErrorKind::NotFound)
        .map_err(io::Error::from)
        .and_then(|volume| volume.open(&place.path))
        .context(|| format!("open {}", place.path))
}

/// All archives in one file in memory: the kernel unpacks them one after the other.
fn concatenate(volumes: &[Volume], places: &[Place]) -> Result<File> {
    let memory = rustix::fs::memfd_create("initrd", MemfdFlags::CLOEXEC)
        .context(|| "make a file in memory".to_owned())?;
    let mut whole = File::from(memory);
    for place in places {
        let mut archive = open(volumes, place)?;
        let copied =
            io::copy(&mut archive, &mut whole).context(|| format!("read {}", place.path))?;
        let length = whole
            .stream_position()
            .context(|| "measure the initrd".to_owned())?;
        // Archives begin at multiples of four bytes.
        whole
            .set_len(length.next_multiple_of(4))
            .and_then(|()| whole.seek(io::SeekFrom::End(0)))
            .context(|| "fill up the initrd".to_owned())?;
        if copied > MAX_INITRD || length > MAX_INITRD {
            return Err(Error::Refused(format!(
                "{} makes the initrd larger than {MAX_INITRD} bytes",
                place.path
            )));
        }
    }
    Ok(whole)
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
