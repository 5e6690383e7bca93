//! From what a description names to devices, not on a bus yet.

use super::plug::Loose;
use crate::control::Parts;
use crate::devices::balloon::Balloon;
use crate::devices::console::ConsoleEnd;
use crate::devices::console::device::VirtioConsole;
use crate::devices::net::Net;
use crate::devices::pmem::{self, Pmem};
use crate::devices::rng::Rng;
use crate::devices::vsock::Vsock;
use crate::error::os;
use crate::memory::image::Image;
use crate::plan::layout::{RamLayout, Range};
use crate::{Error, Result};

/// A machine's devices, in the guest's order of discovery.
pub struct Made {
    /// All of them.
    pub devices: Vec<Loose>,
    /// What is mapped into the guest besides RAM, and where.
    pub images: Vec<(Image, Range)>,
    /// First address after RAM and images.
    pub end: u64,
}

/// Makes them.
///
/// # Errors
/// [`Error::Disk`], [`Error::Nic`], [`Error::Pmem`], [`Error::Os`].
pub fn make(parts: Parts, vcpus: u8, ram: RamLayout, console: &ConsoleEnd) -> Result<Made> {
    let mut devices: Vec<Loose> = Vec::new();
    for (index, disk) in parts.disks.into_iter().enumerate() {
        devices.push(Loose::disk(index, disk, vcpus)?);
    }
    for (index, nic) in parts.nics.into_iter().enumerate() {
        let (net, offer) = Net::new(nic.taps, nic.mac, nic.mtu, &nic.limits)
            .map_err(|source| Error::Nic { index, source })?;
        devices.push(Loose::new(format!("nic{index}"), net, offer));
    }
    if let Some((cid, listener)) = parts.vsock {
        let (vsock, offer) = Vsock::new(cid, listener).map_err(os("use the vsock listener"))?;
        devices.push(Loose::new("vsock", vsock, offer));
    }
    let (rng, offer) = Rng::new(&parts.entropy);
    devices.push(Loose::new("rng", rng, offer));

    if let Some(target_mib) = parts.balloon {
        let (balloon, offer) = Balloon::new(target_mib);
        devices.push(Loose::new("balloon", balloon, offer));
    }
    if parts.virtio_console {
        let (virtio_console, offer) = VirtioConsole::new(console);
        devices.push(Loose::new("console", virtio_console, offer));
    }
    let mut images = Vec::with_capacity(parts.pmem.len());
    let mut end = ram.end();
    for (index, file) in parts.pmem.iter().enumerate() {
        let (image, place) =
            pmem::map(file, end).map_err(|source| Error::Pmem { index, source })?;
        end = place.end();
        images.push((image, place));
        let (device, offer) = Pmem::new(place);
        devices.push(Loose::new(format!("pmem{index}"), device, offer));
    }
    Ok(Made {
        devices,
        images,
        end,
    })
}
