//! virtio-blk over a raw image: read, write, flush, identity. Formats are never probed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use super::{COMMON_FEATURES, Context, Device, SharedCounters};
use crate::memory::io::{read_at, write_at};
use crate::virtio::buffers::read_array;
use crate::virtio::{Buffers, Chain, DeviceFault, LiveQueue, Offer, Queues, Segments};

/// Bytes in a sector, the unit of all positions.
const SECTOR: u64 = 512;
const QUEUE_SIZE: u16 = 256;
/// A chain less its header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Largest transfer of one request; a driver that asks for more gets an I/O error. Linux stays below 2 MiB.
const MAX_TRANSFER: usize = 32 << 20;
/// Length of a device's identity, padded with zeros.
pub const ID_LENGTH: usize = 20;

/// A raw image and what the guest may do with it.
#[derive(Debug)]
struct Disk {
    file: File,
    capacity: u64,
    read_only: bool,
    id: [u8; ID_LENGTH],
    counters: SharedCounters,
    /// Whether there are writes that no flush has followed.
    unflushed: bool,
}

/// Why a request fails; the driver is told, the device goes on.
enum Refused {
    Unsupported,
    Io,
}

impl From<io::Error> for Refused {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

impl Disk {
    /// Where a transfer of `length` bytes from `sector` starts, if it lies within the disk.
    fn position(&self, sector: u64, length: usize) -> Result<u64, Refused> {
        let start = sector.checked_mul(SECTOR).ok_or(Refused::Io)?;
        let end = start.checked_add(length as u64).ok_or(Refused::Io)?;
        if end > self.capacity || length > MAX_TRANSFER || !(length as u64).is_multiple_of(SECTOR) {
            return Err(Refused::Io);
        }
        Ok(start)
    }

    fn read(&self, sector: u64, data: &mut Segments<'_>) -> Result<(), Refused> {
        let mut at = self.position(sector, data.len())?;
        self.counters.disk_read.add(data.len() as u64);
        while !data.is_empty() {
            match read_at(self.file.as_fd(), data.slices(), at)? {
                // Past the end of the file.
                0 => data.zero(),
                count => {
                    let _ = data.take(count);
                    at += count as u64;
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, sector: u64, data: &mut Segments<'_>) -> Result<(), Refused> {
        if self.read_only {
            return Err(Refused::Io);
        }
        let mut at = self.position(sector, data.len())?;
        self.unflushed = true;
        self.counters.disk_written.add(data.len() as u64);
        while !data.is_empty() {
            match write_at(self.file.as_fd(), data.slices(), at)? {
                0 => return Err(Refused::Io),
                count => {
                    let _ = data.take(count);
                    at += count as u64;
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.unflushed {
            self.file.sync_data()?;
            self.unflushed = false;
        }
        Ok(())
    }
}

/// The device.
#[derive(Debug)]
pub struct Block {
    disk: Disk,
    queue: Option<LiveQueue>,
    /// Without an agreed flush, every write is made durable at once.
    write_through: bool,
}

impl Block {
    /// A disk over a regular file or block device; also returns what it offers. `id` beyond [`ID_LENGTH`] is cut.
    ///
    /// # Errors
    /// When the descriptor is of another kind or its length cannot be found out.
    pub fn new(
        file: OwnedFd,
        read_only: bool,
        id: &str,
        counters: SharedCounters,
    ) -> io::Result<(Self, Offer)> {
        let file = File::from(file);
        let metadata = file.metadata()?;
        let length = if metadata.is_file() {
            metadata.len()
        } else if metadata.file_type().is_block_device() {
            rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0))?
        } else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "neither a regular file nor a block device",
            ));
        };
        let capacity = length
            .checked_next_multiple_of(SECTOR)
            .ok_or(io::ErrorKind::FileTooLarge)?;
        let mut identity = [0; ID_LENGTH];
        for (to, from) in identity.iter_mut().zip(id.bytes()) {
            *to = from;
        }
        let mut features = COMMON_FEATURES
            | 1 << VIRTIO_BLK_F_FLUSH
            | 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE;
        if read_only {
            features |= 1 << VIRTIO_BLK_F_RO;
        }
        let disk = Disk {
            file,
            capacity,
            read_only,
            id: identity,
            counters,
            unflushed: false,
        };
        let offer = Offer {
            device_id: VIRTIO_ID_BLOCK,
            features,
            queue_sizes: vec![QUEUE_SIZE],
            config: config(capacity / SECTOR).into(),
        };
        Ok((
            Self {
                disk,
                queue: None,
                write_through: true,
            },
            offer,
        ))
    }

    /// Serves one chain; returns the bytes written into it.
    fn serve(disk: &mut Disk, write_through: bool, chain: Chain<'_>, context: &Context<'_>) -> u32 {
        // A chain without a place for its status cannot be answered.
        let Ok(mut request) = Buffers::of(chain, context.ram) else {
            return 0;
        };
        let Some(data_length) = request.writable.len().checked_sub(1) else {
            return 0;
        };
        let mut data = request.writable.take(data_length);
        let mut status = request.writable;
        let filled = data.len();
        let result = Self::execute(disk, write_through, &mut request.readable, &mut data);
        let filled = filled - data.len();
        let (code, written) = match result {
            Ok(()) => (VIRTIO_BLK_S_OK, filled),
            Err(Refused::Io) => (VIRTIO_BLK_S_IOERR, data_length),
            Err(Refused::Unsupported) => (VIRTIO_BLK_S_UNSUPP, data_length),
        };
        status.write(&[code as u8]);
        u32::try_from(written + 1).unwrap_or(u32::MAX)
    }

    fn execute(
        disk: &mut Disk,
        write_through: bool,
        readable: &mut Segments<'_>,
        writable: &mut Segments<'_>,
    ) -> Result<(), Refused> {
        let header: [u8; 16] = read_array(readable).ok_or(Refused::Io)?;
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        match u32::from_le_bytes([t0, t1, t2, t3]) {
            VIRTIO_BLK_T_IN => disk.read(sector, writable),
            VIRTIO_BLK_T_OUT => {
                disk.write(sector, readable)?;
                if write_through {
                    disk.flush()?;
                }
                Ok(())
            }
            VIRTIO_BLK_T_FLUSH => Ok(disk.flush()?),
            VIRTIO_BLK_T_GET_ID => {
                writable.write(&disk.id);
                Ok(())
            }
            _ => Err(Refused::Unsupported),
        }
    }
}

/// struct virtio_blk_config up to blk_size.
fn config(sectors: u64) -> Vec<u8> {
    let mut config = vec![0; 24];
    config[..8].copy_from_slice(&sectors.to_le_bytes());
    config[12..16].copy_from_slice(&SEG_MAX.to_le_bytes());
    config[20..24].copy_from_slice(&(SECTOR as u32).to_le_bytes());
    config
}

impl Device for Block {
    fn activate(
        &mut self,
        features: u64,
        mut queues: Queues,
        context: &mut Context<'_>,
    ) -> Result<(), DeviceFault> {
        self.write_through = features & 1 << VIRTIO_BLK_F_FLUSH == 0;
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
        let (disk, write_through) = (&mut self.disk, self.write_through);
        queue.drain(context.ram, |chain| {
            Ok(Self::serve(disk, write_through, chain, context))
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::Arc;

    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::devices::Counters;
    use crate::devices::testing::{Driver, Host, READ, WRITE, ram};
    use crate::memory::Ram;

    const HEADER: u64 = 0x10_0000;
    const STATUS: u64 = 0x10_0100;
    const DATA: u64 = 0x20_0000;

    fn disk(content: &[u8], read_only: bool) -> (Block, File, Offer) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        let (block, offer) = Block::new(
            file.try_clone().unwrap().into(),
            read_only,
            "vol0",
            Arc::new(Counters::default()),
        )
        .unwrap();
        (block, file, offer)
    }

    fn header(ram: &Ram, kind: u32, sector: u64) {
        ram.write_obj(kind, GuestAddress(HEADER)).unwrap();
        ram.write_obj(0u32, GuestAddress(HEADER + 4)).unwrap();
        ram.write_obj(sector, GuestAddress(HEADER + 8)).unwrap();
        ram.write_obj(0xffu8, GuestAddress(STATUS)).unwrap();
    }

    /// Sends one request; returns the status byte and the used length.
    fn request(
        block: &mut Block,
        ram: &Ram,
        kind: u32,
        sector: u64,
        data: &[(u64, u32, u16)],
    ) -> (u8, u32) {
        header(ram, kind, sector);
        let mut driver = Driver::new(ram, 0);
        let mut chain = vec![(HEADER, 16, READ)];
        chain.extend_from_slice(data);
        chain.push((STATUS, 1, WRITE));
        driver.offer(&chain);
        let mut host = Host::new();
        block
            .activate(
                1 << VIRTIO_BLK_F_FLUSH,
                vec![driver.live()].into(),
                &mut host.context(ram),
            )
            .unwrap();
        let (used, _, length) = driver.used();
        assert_eq!(used, 1);
        (ram.read_obj(GuestAddress(STATUS)).unwrap(), length)
    }

    #[test]
    fn the_capacity_is_the_files_length_rounded_up_and_what_is_past_its_end_reads_as_zeros() {
        let (mut block, _file, offer) = disk(&[7; 700], true);
        assert_eq!(&offer.config.bytes()[..8], &2u64.to_le_bytes());
        let ram = ram();
        ram.write_slice(&[1; 1024], GuestAddress(DATA)).unwrap();
        let pieces = [(DATA, 100, WRITE), (DATA + 100, 924, WRITE)];
        assert_eq!(
            request(&mut block, &ram, VIRTIO_BLK_T_IN, 0, &pieces),
            (0, 1025)
        );
        let mut bytes = [1; 1024];
        ram.read_slice(&mut bytes, GuestAddress(DATA)).unwrap();
        assert!(
            bytes[..700].iter().all(|byte| *byte == 7)
                && bytes[700..].iter().all(|byte| *byte == 0)
        );
        assert_eq!(block.disk.counters.disk_read.get(), 1024);
    }

    #[test]
    fn writes_reach_the_file_and_are_counted() {
        let (mut block, file, _) = disk(&[0; 4096], false);
        let ram = ram();
        ram.write_slice(&[9; 1024], GuestAddress(DATA)).unwrap();
        let pieces = [(DATA, 512, READ), (DATA + 512, 512, READ)];
        assert_eq!(
            request(&mut block, &ram, VIRTIO_BLK_T_OUT, 2, &pieces),
            (0, 1)
        );
        assert_eq!(
            request(&mut block, &ram, VIRTIO_BLK_T_FLUSH, 0, &[]),
            (0, 1)
        );
        let mut bytes = Vec::new();
        let mut file = file;
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert!(bytes[1024..2048].iter().all(|byte| *byte == 9));
        assert_eq!(bytes.iter().filter(|byte| **byte == 9).count(), 1024);
        assert_eq!(block.disk.counters.disk_written.get(), 1024);
    }

    #[test]
    fn a_read_only_disk_offers_so_and_refuses_writes() {
        let (mut block, _file, offer) = disk(&[0; 512], true);
        assert_ne!(offer.features & 1 << VIRTIO_BLK_F_RO, 0);
        let status = request(
            &mut block,
            &ram(),
            VIRTIO_BLK_T_OUT,
            0,
            &[(DATA, 512, READ)],
        )
        .0;
        assert_eq!(u32::from(status), VIRTIO_BLK_S_IOERR);
    }

    #[test]
    fn the_identity_is_the_serial_padded_with_zeros() {
        let (mut block, _file, _) = disk(&[0; 512], true);
        let ram = ram();
        assert_eq!(
            request(
                &mut block,
                &ram,
                VIRTIO_BLK_T_GET_ID,
                0,
                &[(DATA, 20, WRITE)]
            ),
            (0, 21)
        );
        let mut id = [1; 20];
        ram.read_slice(&mut id, GuestAddress(DATA)).unwrap();
        assert_eq!(&id, b"vol0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn requests_outside_the_disk_or_of_odd_length_are_io_errors_and_unknown_ones_unsupported() {
        let (mut block, _file, _) = disk(&[0; 1024], false);
        let ram = ram();
        let io = VIRTIO_BLK_S_IOERR as u8;
        for (kind, sector, length) in [
            (VIRTIO_BLK_T_IN, 2, 512),
            (VIRTIO_BLK_T_IN, 1, 1024),
            (VIRTIO_BLK_T_IN, u64::MAX, 512),
            (VIRTIO_BLK_T_IN, u64::MAX / 512, 512),
            (VIRTIO_BLK_T_IN, 0, 100),
        ] {
            assert_eq!(
                request(&mut block, &ram, kind, sector, &[(DATA, length, WRITE)]).0,
                io
            );
        }
        let status = request(&mut block, &ram, 11, 0, &[(DATA, 16, READ)]).0;
        assert_eq!(u32::from(status), VIRTIO_BLK_S_UNSUPP);
    }

    #[test]
    fn hostile_chains_come_back_unanswered_and_the_device_goes_on() {
        let (mut block, _file, _) = disk(&[3; 512], false);
        let ram = ram();
        header(&ram, VIRTIO_BLK_T_IN, 0);
        let mut driver = Driver::new(&ram, 0);
        // Outside guest memory; no status; readable after writable; a header cut short; longer than memory.
        driver.offer(&[
            (HEADER, 16, READ),
            (1 << 40, 512, WRITE),
            (STATUS, 1, WRITE),
        ]);
        driver.offer(&[(HEADER, 16, READ)]);
        driver.offer(&[(STATUS, 1, WRITE), (HEADER, 16, READ)]);
        driver.offer(&[(HEADER, 3, READ), (STATUS, 1, WRITE)]);
        driver.offer(&[
            (HEADER, 16, READ),
            (DATA, u32::MAX, WRITE),
            (STATUS, 1, WRITE),
        ]);
        // A chain that loops.
        driver.raw(40, HEADER, 16, 1, 41);
        driver.raw(41, DATA, 512, 3, 41);
        driver.make_available(40);
        // A head outside the table stops the device: its ring cannot be trusted.
        let mut host = Host::new();
        block
            .activate(
                1 << VIRTIO_BLK_F_FLUSH,
                vec![driver.live()].into(),
                &mut host.context(&ram),
            )
            .unwrap();
        assert_eq!(driver.used().0, 6);
        driver.offer(&[(HEADER, 16, READ), (DATA, 512, WRITE), (STATUS, 1, WRITE)]);
        block.queue_ready(0, &mut host.context(&ram)).unwrap();
        assert_eq!(ram.read_obj::<u8>(GuestAddress(STATUS)).unwrap(), 0);
        driver.make_available(999);
        assert!(block.queue_ready(0, &mut host.context(&ram)).is_err());
    }
}
