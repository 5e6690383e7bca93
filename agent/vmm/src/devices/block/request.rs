//! A chain of descriptors becomes a request, once: nothing of it is read from guest memory again.

use std::collections::VecDeque;
use std::sync::Arc;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

use super::disk::{
    Disk, MAX_DISCARD_SECTORS, MAX_DISCARD_SEGMENTS, MAX_TRANSFER, MAX_ZERO_SECTORS,
    MAX_ZERO_SEGMENTS, SECTOR,
};
use super::engine::Step;
use crate::memory::Ram;
use crate::memory::pieces::Pieces;
use crate::virtio::buffers::read_array;
use crate::virtio::{Buffers, Segments};

/// struct virtio_blk_discard_write_zeroes.
const RANGE: usize = 16;

/// Why a request fails; the driver is told, the device goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No such request.
    Unsupported,
    /// Not on this disk.
    Io,
}

/// What a request is, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Data to the guest.
    Read,
    /// Data from the guest.
    Write,
    /// Make durable.
    Flush,
    /// Free or zero a range.
    Discard,
    /// The disk's identity: answered without the disk.
    Identity,
}

/// What is to be done for a request, in order.
#[derive(Debug)]
pub struct Work {
    /// What it is.
    pub kind: Kind,
    /// How.
    pub steps: VecDeque<Step>,
    /// Bytes read, written or freed.
    pub bytes: u64,
    /// Bytes the device fills, the status not among them.
    pub filled: usize,
}

impl Work {
    /// A transfer; one of nothing takes no step.
    fn transfer_of(kind: Kind, bytes: u64, step: Step) -> Self {
        Self {
            kind,
            steps: (bytes > 0).then_some(step).into_iter().collect(),
            bytes,
            filled: 0,
        }
    }

    /// What the limits count: transfers; freeing and zeroing are one call to the file system whatever the length.
    #[must_use]
    pub const fn transfer(&self) -> u64 {
        match self.kind {
            Kind::Read | Kind::Write => self.bytes,
            Kind::Flush | Kind::Discard | Kind::Identity => 0,
        }
    }
}

/// A request with a place for its answer.
#[derive(Debug)]
pub struct Parsed {
    /// The status byte's place.
    pub status: Pieces,
    /// Bytes of device-writable room before it.
    pub room: usize,
    /// What is to be done.
    pub work: Result<Work, Refused>,
}

/// Parses a request; `None` when it has no place for an answer.
#[must_use]
pub fn parse(mut buffers: Buffers<'_>, disk: &Disk, ram: &Arc<Ram>) -> Option<Parsed> {
    let room = buffers.writable.len().checked_sub(1)?;
    let mut data = buffers.writable.take(room);
    let status = Pieces::new(ram, &buffers.writable)?;
    let work = work(&mut buffers.readable, &mut data, disk, ram);
    Some(Parsed { status, room, work })
}

fn work(
    readable: &mut Segments<'_>,
    writable: &mut Segments<'_>,
    disk: &Disk,
    ram: &Arc<Ram>,
) -> Result<Work, Refused> {
    let header: [u8; 16] = read_array(readable).ok_or(Refused::Io)?;
    let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
    let sector = u64::from_le_bytes(sector);
    match u32::from_le_bytes([t0, t1, t2, t3]) {
        VIRTIO_BLK_T_IN => {
            let (at, pieces) = transfer(writable, sector, disk, ram)?;
            let filled = pieces.len();
            let read = Work::transfer_of(Kind::Read, filled as u64, Step::Read { at, pieces });
            Ok(Work { filled, ..read })
        }
        VIRTIO_BLK_T_OUT => {
            writes(disk)?;
            let (at, pieces) = transfer(readable, sector, disk, ram)?;
            let length = pieces.len() as u64;
            Ok(Work::transfer_of(
                Kind::Write,
                length,
                Step::Write { at, pieces },
            ))
        }
        VIRTIO_BLK_T_FLUSH => Ok(Work {
            kind: Kind::Flush,
            steps: VecDeque::from([Step::Sync]),
            bytes: 0,
            filled: 0,
        }),
        VIRTIO_BLK_T_DISCARD => ranges(readable, disk, false),
        VIRTIO_BLK_T_WRITE_ZEROES => ranges(readable, disk, true),
        VIRTIO_BLK_T_GET_ID => Ok(Work {
            kind: Kind::Identity,
            steps: VecDeque::new(),
            bytes: 0,
            filled: writable.write(&disk.id),
        }),
        _ => Err(Refused::Unsupported),
    }
}

const fn writes(disk: &Disk) -> Result<(), Refused> {
    if disk.read_only {
        Err(Refused::Io)
    } else {
        Ok(())
    }
}

fn transfer(
    data: &Segments<'_>,
    sector: u64,
    disk: &Disk,
    ram: &Arc<Ram>,
) -> Result<(u64, Pieces), Refused> {
    let at = disk.position(sector, data.len() as u64)?;
    if data.len() > MAX_TRANSFER {
        return Err(Refused::Io);
    }
    Ok((at, Pieces::new(ram, data).ok_or(Refused::Io)?))
}

/// The ranges of a DISCARD or WRITE_ZEROES request (virtio 1.3, section 5.2.6): all are valid, or none is touched.
fn ranges(data: &mut Segments<'_>, disk: &Disk, zero: bool) -> Result<Work, Refused> {
    writes(disk)?;
    let (max_ranges, max_sectors, known_flags) = if zero {
        (
            MAX_ZERO_SEGMENTS,
            MAX_ZERO_SECTORS,
            VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
        )
    } else {
        (MAX_DISCARD_SEGMENTS, MAX_DISCARD_SECTORS, 0)
    };
    let count = data.len() / RANGE;
    if count == 0 || count > max_ranges as usize || !data.len().is_multiple_of(RANGE) {
        return Err(Refused::Io);
    }
    let mut steps = VecDeque::with_capacity(count);
    let mut bytes = 0;
    while let Some([s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..]) =
        read_array::<RANGE>(data)
    {
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes(flags);
        if flags & !known_flags != 0 {
            return Err(Refused::Unsupported);
        }
        if sectors > max_sectors {
            return Err(Refused::Io);
        }
        let length = u64::from(sectors) * SECTOR;
        let at = disk.position(sector, length)?;
        bytes += length;
        if length > 0 {
            steps.push_back(if zero && flags == 0 {
                Step::Zero { at, length }
            } else {
                Step::Punch { at, length, zero }
            });
        }
    }
    Ok(Work {
        kind: Kind::Discard,
        steps,
        bytes,
        filled: 0,
    })
}
