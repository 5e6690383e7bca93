//! virtio-pmem (virtio 1.3, section 5.19), read-only: an image in the guest's address space, its pages shared by all
//! machines that map the same file.
//!
//! The guest reads it without exits and without a page cache of its own. KVM keeps it from writing; a write goes
//! nowhere.

use std::fs::File;
use std::io;

use crn_protocol::devices::{DeviceCounters, PmemCounters};
use virtio_bindings::virtio_ids::VIRTIO_ID_PMEM;

use super::{COMMON_FEATURES, Context, Device, progress_of};
use crate::memory::image::Image;
use crate::plan::layout::{GAP_END, Range};
use crate::virtio::buffers::read_array;
use crate::virtio::{Buffers, DeviceFault, LiveQueue, Offer, Progress, Queues, Segments};

/// The guest maps it in pages of 2 MiB where it can; an image is a whole number of them.
const ALIGNMENT: u64 = 2 << 20;
/// Where an image may begin: Linux counts memory in sections of 128 MiB, which RAM and images should not share.
const SECTION: u64 = 128 << 20;
/// struct virtio_pmem_req's only type.
const FLUSH: u32 = 0;

/// The device.
#[derive(Debug)]
pub struct Pmem {
    queue: Option<LiveQueue>,
    counters: PmemCounters,
}

/// Maps an image for the first free place at or above `free`; also returns that place.
///
/// # Errors
/// The file is not a whole number of 2 MiB, or cannot be mapped.
pub fn map(file: &File, free: u64) -> io::Result<(Image, Range)> {
    let length = file.metadata()?.len();
    if length == 0 || !length.is_multiple_of(ALIGNMENT) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("its length is {length}, not a multiple of 2 MiB"),
        ));
    }
    let start = free
        .max(GAP_END)
        .checked_next_multiple_of(SECTION)
        .filter(|start| start.checked_add(length).is_some())
        .ok_or(io::ErrorKind::FileTooLarge)?;
    Ok((Image::map(file, length)?, Range { start, length }))
}

impl Pmem {
    /// The device for an image at this place, and what it offers.
    #[must_use]
    pub fn new(place: Range) -> (Self, Offer) {
        let config = [place.start.to_le_bytes(), place.length.to_le_bytes()].concat();
        let offer = Offer {
            device_id: VIRTIO_ID_PMEM,
            features: COMMON_FEATURES,
            queue_sizes: vec![64],
            config: config.into(),
        };
        let pmem = Self {
            queue: None,
            counters: PmemCounters::default(),
        };
        (pmem, offer)
    }
}

/// A request's answer: nothing can have been written, so all of it is durable.
fn answer(request: &mut Segments<'_>) -> u32 {
    let flush = read_array(request).is_some_and(|kind| u32::from_le_bytes(kind) == FLUSH);
    if flush { 0 } else { u32::MAX }
}

impl Device for Pmem {
    fn activate(
        &mut self,
        _features: u64,
        mut queues: Queues,
        context: &mut Context<'_>,
    ) -> Result<(), DeviceFault> {
        self.queue = Some(queues.require(0)?);
        self.queue_ready(0, context)
    }

    fn reset(&mut self) {
        self.queue = None;
    }

    fn queue_ready(&mut self, _queue: usize, context: &mut Context<'_>) -> Result<(), DeviceFault> {
        let Some(queue) = &mut self.queue else {
            return Ok(());
        };
        let (ram, counters) = (context.ram, &mut self.counters);
        queue.drain(ram, |chain| {
            let Ok(mut buffers) = Buffers::of(chain, ram) else {
                return Ok(0);
            };
            counters.flushes += 1;
            let answer = answer(&mut buffers.readable);
            Ok(buffers.writable.write(&answer.to_le_bytes()) as u32)
        })
    }

    fn progress(&self) -> Vec<(u16, Progress)> {
        progress_of([(0, self.queue.as_ref())])
    }

    fn counters(&self) -> DeviceCounters {
        DeviceCounters::Pmem(self.counters)
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::devices::testing::{Driver, Host, READ, WRITE, ram};

    #[test]
    fn flushes_are_answered_and_other_requests_fail() {
        let ram = ram();
        let mut driver = Driver::new(&ram, 0);
        let place = Range {
            start: GAP_END,
            length: ALIGNMENT,
        };
        let (mut pmem, offer) = Pmem::new(place);
        assert_eq!(offer.config.bytes()[..8], GAP_END.to_le_bytes());
        assert_eq!(offer.config.bytes()[8..], ALIGNMENT.to_le_bytes());
        for (kind, expected) in [(0u32, 0u32), (1, u32::MAX)] {
            ram.write_obj(kind, GuestAddress(0x10_0000)).unwrap();
            driver.offer(&[(0x10_0000, 4, READ), (0x20_0000, 4, WRITE)]);
            let queues = vec![driver.live()].into();
            pmem.activate(0, queues, &mut Host::new().context(&ram))
                .unwrap();
            let answer: u32 = ram.read_obj(GuestAddress(0x20_0000)).unwrap();
            assert_eq!(answer, expected);
        }
        // Outside memory, without room, cut short: each comes back.
        driver.offer(&[(u64::MAX, 4, READ), (0x20_0000, 4, WRITE)]);
        driver.offer(&[(0x10_0000, 4, READ)]);
        driver.offer(&[(0x10_0000, 1, READ), (0x20_0000, 4, WRITE)]);
        pmem.queue_ready(0, &mut Host::new().context(&ram)).unwrap();
    }

    #[test]
    fn an_image_lies_above_all_ram_and_is_a_whole_number_of_large_pages() {
        let file = tempfile::tempfile().unwrap();
        assert!(map(&file, 0).is_err(), "empty");
        file.set_len(ALIGNMENT + 4096).unwrap();
        assert!(map(&file, 0).is_err());
        file.set_len(2 * ALIGNMENT).unwrap();
        let (_, first) = map(&file, 0).unwrap();
        assert_eq!((first.start, first.length), (GAP_END, 2 * ALIGNMENT));
        let (_, second) = map(&file, first.end()).unwrap();
        assert_eq!(second.start, GAP_END + SECTION);
        assert!(map(&file, u64::MAX).is_err());
    }
}
