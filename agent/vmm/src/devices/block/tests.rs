//! The disk as its driver sees it, with either engine.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use crn_protocol::devices::Rate;
use proptest::prelude::*;
use virtio_bindings::virtio_blk::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::devices::testing::{Driver, Host, READ, WRITE, ram};
use crate::memory::Ram;

const HEADER: u64 = 0x10_0000;
const STATUS: u64 = 0x10_8000;
const DATA: u64 = 0x20_0000;
const ENGINES: [Wanted; 2] = [Wanted::IoUring, Wanted::Sync];
const FLUSH: u64 = 1 << VIRTIO_BLK_F_FLUSH;

fn image(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

fn content(mut file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    rustix::fs::seek(file, rustix::fs::SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// A disk with a driver. Header and status of the request in descriptor slot n have places of their own.
struct Rig<'m> {
    ram: &'m Ram,
    block: Block,
    offer: Offer,
    driver: Driver<'m>,
    host: Host,
    sent: u16,
}

impl<'m> Rig<'m> {
    fn with(
        ram: &'m Ram,
        file: &File,
        read_only: bool,
        engine: Wanted,
        features: u64,
        limits: &Limits,
    ) -> Self {
        let file = file.try_clone().unwrap().into();
        let (mut block, offer) = Block::new(file, read_only, "vol0", 2, engine, limits).unwrap();
        let driver = Driver::new(ram, 0);
        let mut host = Host::new();
        block.start(&mut host.context(ram)).unwrap();
        block
            .activate(features, vec![driver.live()].into(), &mut host.context(ram))
            .unwrap();
        Self {
            ram,
            block,
            offer,
            driver,
            host,
            sent: 0,
        }
    }

    fn new(ram: &'m Ram, file: &File, engine: Wanted) -> Self {
        Self::with(ram, file, false, engine, FLUSH, &Limits::default())
    }

    /// Makes a request available.
    fn offer(&mut self, kind: u32, sector: u64, data: &[(u64, u32, u16)]) {
        let place = u64::from(self.sent % 32) * 0x40;
        self.ram
            .write_obj(kind, GuestAddress(HEADER + place))
            .unwrap();
        self.ram
            .write_obj(0u32, GuestAddress(HEADER + place + 4))
            .unwrap();
        self.ram
            .write_obj(sector, GuestAddress(HEADER + place + 8))
            .unwrap();
        self.ram
            .write_obj(0xffu8, GuestAddress(STATUS + place))
            .unwrap();
        let mut chain = vec![(HEADER + place, 16, READ)];
        chain.extend_from_slice(data);
        chain.push((STATUS + place, 1, WRITE));
        self.driver.offer(&chain);
        self.sent += 1;
    }

    fn ring(&mut self) {
        self.block
            .queue_ready(0, &mut self.host.context(self.ram))
            .unwrap();
    }

    /// Runs the loop until so many chains have come back.
    fn wait(&mut self, used: u16) {
        let started = Instant::now();
        while self.driver.used().0 < used {
            assert!(started.elapsed() < Duration::from_secs(20), "no answer");
            let mut ready = Vec::new();
            self.host
                .poller
                .wait(&mut ready, Some(Duration::from_millis(50)))
                .unwrap();
            for (_, readiness) in ready {
                self.block
                    .io_ready(0, readiness, &mut self.host.context(self.ram))
                    .unwrap();
            }
        }
    }

    /// One request and its answer: status and used length.
    fn request(&mut self, kind: u32, sector: u64, data: &[(u64, u32, u16)]) -> (u8, u32) {
        let place = u64::from(self.sent % 32) * 0x40;
        self.offer(kind, sector, data);
        self.ring();
        self.wait(self.sent);
        let status = self.ram.read_obj(GuestAddress(STATUS + place)).unwrap();
        (status, self.driver.used().2)
    }

    fn range(&mut self, kind: u32, sector: u64, sectors: u32, flags: u32) -> u8 {
        self.ram.write_obj(sector, GuestAddress(DATA)).unwrap();
        self.ram.write_obj(sectors, GuestAddress(DATA + 8)).unwrap();
        self.ram.write_obj(flags, GuestAddress(DATA + 12)).unwrap();
        self.request(kind, 0, &[(DATA, 16, READ)]).0
    }
}

#[test]
fn the_capacity_is_the_files_length_rounded_up_and_what_is_past_its_end_reads_as_zeros() {
    for engine in ENGINES {
        let (ram, file) = (ram(), image(&[7; 700]));
        let mut rig = Rig::new(&ram, &file, engine);
        assert_eq!(rig.offer.config.bytes()[..8], 2u64.to_le_bytes());
        ram.write_slice(&[1; 1024], GuestAddress(DATA)).unwrap();
        let pieces = [(DATA, 100, WRITE), (DATA + 100, 924, WRITE)];
        assert_eq!(rig.request(VIRTIO_BLK_T_IN, 0, &pieces), (0, 1025));
        let mut bytes = [1; 1024];
        ram.read_slice(&mut bytes, GuestAddress(DATA)).unwrap();
        assert!(bytes[..700].iter().all(|byte| *byte == 7));
        assert!(bytes[700..].iter().all(|byte| *byte == 0));
        assert_eq!(rig.block.counters.read_bytes, 1024);
    }
}

#[test]
fn writes_reach_the_file_and_are_counted() {
    for engine in ENGINES {
        let (ram, file) = (ram(), image(&[0; 4096]));
        let mut rig = Rig::new(&ram, &file, engine);
        ram.write_slice(&[9; 1024], GuestAddress(DATA)).unwrap();
        let pieces = [(DATA, 512, READ), (DATA + 512, 512, READ)];
        assert_eq!(rig.request(VIRTIO_BLK_T_OUT, 2, &pieces), (0, 1));
        assert_ne!(rig.block.flushed, rig.block.written);
        assert_eq!(rig.request(VIRTIO_BLK_T_FLUSH, 0, &[]), (0, 1));
        assert_eq!(rig.block.flushed, rig.block.written);
        let bytes = content(&file);
        assert!(bytes[1024..2048].iter().all(|byte| *byte == 9));
        assert_eq!(bytes.iter().filter(|byte| **byte == 9).count(), 1024);
        let counters = rig.block.counters;
        assert_eq!((counters.written_bytes, counters.writes), (1024, 1));
        assert_eq!((counters.flushes, counters.errors), (1, 0));
        assert_eq!(counters.io_uring, engine == Wanted::IoUring);
    }
}

#[test]
fn without_an_agreed_flush_every_write_is_durable_before_its_answer() {
    for engine in ENGINES {
        let (ram, file) = (ram(), image(&[0; 4096]));
        let mut rig = Rig::with(&ram, &file, false, engine, 0, &Limits::default());
        let (status, _) = rig.request(VIRTIO_BLK_T_OUT, 0, &[(DATA, 512, READ)]);
        assert_eq!((status, rig.block.written, rig.block.flushed), (0, 1, 1));
    }
}

#[test]
fn a_read_only_disk_offers_so_and_refuses_writes() {
    let (ram, file) = (ram(), image(&[0; 512]));
    let mut rig = Rig::with(&ram, &file, true, Wanted::Auto, FLUSH, &Limits::default());
    assert_ne!(rig.offer.features & 1 << VIRTIO_BLK_F_RO, 0);
    assert_eq!(rig.offer.features & 1 << VIRTIO_BLK_F_DISCARD, 0);
    let (status, _) = rig.request(VIRTIO_BLK_T_OUT, 0, &[(DATA, 512, READ)]);
    assert_eq!(u32::from(status), VIRTIO_BLK_S_IOERR);
    for kind in [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
        assert_eq!(u32::from(rig.range(kind, 0, 1, 0)), VIRTIO_BLK_S_IOERR);
    }
}

#[test]
fn the_identity_is_the_serial_padded_with_zeros() {
    let (ram, file) = (ram(), image(&[0; 512]));
    let mut rig = Rig::new(&ram, &file, Wanted::Auto);
    let answer = rig.request(VIRTIO_BLK_T_GET_ID, 0, &[(DATA, 20, WRITE)]);
    assert_eq!(answer, (0, 21));
    let mut id = [1; 20];
    ram.read_slice(&mut id, GuestAddress(DATA)).unwrap();
    assert_eq!(&id, b"vol0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn requests_outside_the_disk_or_of_odd_length_are_io_errors_and_unknown_ones_unsupported() {
    for engine in ENGINES {
        let (ram, file) = (ram(), image(&[0; 1024]));
        let mut rig = Rig::new(&ram, &file, engine);
        for (sector, length) in [
            (2, 512),
            (1, 1024),
            (u64::MAX, 512),
            (u64::MAX / 512, 512),
            (0, 100),
        ] {
            let (status, _) = rig.request(VIRTIO_BLK_T_IN, sector, &[(DATA, length, WRITE)]);
            assert_eq!(u32::from(status), VIRTIO_BLK_S_IOERR);
        }
        let (status, _) = rig.request(14, 0, &[(DATA, 16, READ)]);
        assert_eq!(u32::from(status), VIRTIO_BLK_S_UNSUPP);
        assert_eq!(rig.request(VIRTIO_BLK_T_OUT, 0, &[]).0, 0, "nothing");
    }
}

#[test]
fn discarding_and_zeroing_free_space_and_read_as_zeros() {
    let unmap = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    for engine in ENGINES {
        for (kind, flags, freed) in [
            (VIRTIO_BLK_T_DISCARD, 0, true),
            (VIRTIO_BLK_T_WRITE_ZEROES, unmap, true),
            (VIRTIO_BLK_T_WRITE_ZEROES, 0, false),
        ] {
            let (ram, file) = (ram(), image(&[5; 1 << 20]));
            file.sync_all().unwrap();
            let before = file.metadata().unwrap().blocks();
            let mut rig = Rig::new(&ram, &file, engine);
            assert_eq!(rig.range(kind, 1024, 1024, flags), 0);
            assert_eq!(rig.block.counters.discarded_bytes, 512 << 10);
            let blocks = file.metadata().unwrap().blocks();
            assert_eq!(blocks <= before - 1000, freed, "{before} to {blocks}");
            let bytes = content(&file);
            assert_eq!(bytes.len(), 1 << 20);
            assert!(bytes[..512 << 10].iter().all(|byte| *byte == 5));
            assert!(bytes[512 << 10..].iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn ranges_beyond_the_told_limits_or_with_unknown_flags_touch_nothing() {
    let (ram, file) = (ram(), image(&[5; 4096]));
    let mut rig = Rig::new(&ram, &file, Wanted::Auto);
    let (io, unsupported) = (VIRTIO_BLK_S_IOERR as u8, VIRTIO_BLK_S_UNSUPP as u8);
    for (kind, sector, sectors, flags, expected) in [
        (VIRTIO_BLK_T_DISCARD, 0, 9, 0, io),
        (VIRTIO_BLK_T_DISCARD, u64::MAX, 1, 0, io),
        (VIRTIO_BLK_T_DISCARD, 0, u32::MAX, 0, io),
        (VIRTIO_BLK_T_DISCARD, 0, 1, 1, unsupported),
        (VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 2, unsupported),
        (VIRTIO_BLK_T_WRITE_ZEROES, 8, 1, 0, io),
    ] {
        assert_eq!(rig.range(kind, sector, sectors, flags), expected);
    }
    for length in [0, 8, 24, 65 * 16] {
        let (status, _) = rig.request(VIRTIO_BLK_T_DISCARD, 0, &[(DATA, length, READ)]);
        assert_eq!(status, io, "{length} bytes of ranges");
    }
    // One bad range among good ones.
    ram.write_slice(&[0; 32], GuestAddress(DATA)).unwrap();
    ram.write_obj(1u32, GuestAddress(DATA + 8)).unwrap();
    ram.write_obj(100u32, GuestAddress(DATA + 24)).unwrap();
    let (status, _) = rig.request(VIRTIO_BLK_T_DISCARD, 0, &[(DATA, 32, READ)]);
    assert_eq!(status, io);
    assert!(content(&file).iter().all(|byte| *byte == 5));
}

#[test]
fn hostile_chains_come_back_unanswered_and_the_device_goes_on() {
    for engine in ENGINES {
        let (ram, file) = (ram(), image(&[3; 512]));
        let mut rig = Rig::new(&ram, &file, engine);
        // Outside guest memory; no status; readable after writable; a header cut short; longer than memory.
        rig.driver.offer(&[
            (HEADER, 16, READ),
            (1 << 40, 512, WRITE),
            (STATUS, 1, WRITE),
        ]);
        rig.driver.offer(&[(HEADER, 16, READ)]);
        rig.driver.offer(&[(STATUS, 1, WRITE), (HEADER, 16, READ)]);
        rig.driver.offer(&[(HEADER, 3, READ), (STATUS, 1, WRITE)]);
        rig.driver.offer(&[
            (HEADER, 16, READ),
            (DATA, u32::MAX, WRITE),
            (STATUS, 1, WRITE),
        ]);
        // A chain that loops.
        rig.driver.raw(40, HEADER, 16, 1, 41);
        rig.driver.raw(41, DATA, 512, 3, 41);
        rig.driver.make_available(40);
        rig.ring();
        assert_eq!(rig.driver.used().0, 6);
        rig.sent = 6;
        let (status, _) = rig.request(VIRTIO_BLK_T_IN, 0, &[(DATA, 512, WRITE)]);
        assert_eq!(status, 0);
        // A head outside the table stops the device: its ring cannot be trusted.
        rig.driver.make_available(999);
        let result = rig.block.queue_ready(0, &mut rig.host.context(&ram));
        assert!(result.is_err());
    }
}

#[test]
fn a_head_offered_again_while_it_is_in_flight_stops_the_device() {
    let (ram, file) = (ram(), image(&[3; 512]));
    let mut rig = Rig::new(&ram, &file, Wanted::IoUring);
    rig.offer(VIRTIO_BLK_T_IN, 0, &[(DATA, 512, WRITE)]);
    rig.driver.make_available(0);
    let result = rig.block.queue_ready(0, &mut rig.host.context(&ram));
    assert!(matches!(result, Err(DeviceFault::HeadInFlight(0))));
    rig.block.reset();
    assert!(rig.block.requests.is_empty());
}

#[test]
fn a_reset_waits_for_what_is_in_flight_and_touches_nothing_afterwards() {
    for engine in ENGINES {
        let (ram, file) = (ram(), image(&vec![8; 4 << 20]));
        let mut rig = Rig::new(&ram, &file, engine);
        for index in 0..10 {
            let at = DATA + index * 0x1_0000;
            rig.offer(VIRTIO_BLK_T_IN, index * 128, &[(at, 0x1_0000, WRITE)]);
        }
        rig.ring();
        rig.block.reset();
        let used = rig.driver.used();
        ram.write_slice(&[0; 0xa_0000], GuestAddress(DATA)).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        rig.block
            .io_ready(0, Readiness::default(), &mut rig.host.context(&ram))
            .unwrap();
        let mut bytes = vec![1; 0xa_0000];
        ram.read_slice(&mut bytes, GuestAddress(DATA)).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
        assert_eq!(rig.driver.used(), used);
    }
}

#[test]
fn a_limited_disk_lets_through_what_it_may_and_a_lifted_limit_the_rest() {
    for engine in ENGINES {
        let (ram, file) = (ram(), image(&[1; 64 << 10]));
        let limits = Limits {
            bytes: None,
            operations: Some(Rate {
                per_second: 1,
                burst: 4,
            }),
        };
        let mut rig = Rig::with(&ram, &file, false, engine, FLUSH, &limits);
        for sector in 0..10 {
            rig.offer(VIRTIO_BLK_T_IN, sector, &[(DATA, 512, WRITE)]);
        }
        rig.ring();
        rig.wait(4);
        rig.ring();
        assert_eq!(rig.driver.used().0, 4);
        let deadline = rig.block.deadline().unwrap();
        rig.block
            .deadline_passed(deadline, &mut rig.host.context(&ram))
            .unwrap();
        rig.wait(5);
        assert!(rig.block.counters.throttled >= 2);
        let lifted = NewLimits::Transfer(Limits::default());
        let mut context = rig.host.context(&ram);
        assert!(rig.block.set_limits(&lifted, &mut context).unwrap());
        rig.wait(10);
        assert_eq!(rig.block.deadline(), None);
        let nic = NewLimits::Nic(crn_protocol::devices::NicLimits::default());
        let mut context = rig.host.context(&ram);
        assert!(!rig.block.set_limits(&nic, &mut context).unwrap());
    }
}

#[test]
fn stopping_finishes_what_is_in_flight_and_makes_it_durable() {
    for engine in ENGINES {
        let (ram, file) = (ram(), image(&vec![0; 1 << 20]));
        let mut rig = Rig::new(&ram, &file, engine);
        ram.write_slice(&[6; 0x1_0000], GuestAddress(DATA)).unwrap();
        for index in 0..8 {
            rig.offer(VIRTIO_BLK_T_OUT, index * 128, &[(DATA, 0x1_0000, READ)]);
        }
        rig.ring();
        rig.block.flush().unwrap();
        assert_eq!(rig.driver.used().0, 8);
        assert_eq!(
            rig.driver.interrupt.status(),
            1,
            "a driver that goes on is told"
        );
        assert_eq!(rig.block.flushed, rig.block.written);
        assert!(content(&file)[..0x8_0000].iter().all(|byte| *byte == 6));
    }
}

#[test]
fn descriptors_that_do_not_fit_are_refused() {
    let path = tempfile::NamedTempFile::new().unwrap();
    let read_only = File::open(path.path()).unwrap();
    let append = File::options()
        .append(true)
        .read(true)
        .open(path.path())
        .unwrap();
    let (pipe, _writer) = io::pipe().unwrap();
    for (file, read_only) in [
        (OwnedFd::from(read_only), false),
        (append.into(), false),
        (pipe.into(), true),
    ] {
        let result = Block::new(file, read_only, "", 1, Wanted::Auto, &Limits::default());
        assert!(result.is_err());
    }
}

#[test]
fn two_queues_are_served_and_one_alone_is_enough() {
    let (ram, file) = (ram(), image(&[2; 4096]));
    let mut rig = Rig::new(&ram, &file, Wanted::IoUring);
    assert_eq!(rig.offer.queue_sizes.len(), 2);
    assert_ne!(rig.offer.features & 1 << VIRTIO_BLK_F_MQ, 0);
    assert_eq!(rig.offer.config.bytes()[34..36], [2, 0]);
    rig.block.reset();
    let second = Driver::new(&ram, 0x1_0000);
    let queues = vec![rig.driver.live(), second.live()].into();
    rig.driver = second;
    let mut context = rig.host.context(&ram);
    rig.block.activate(FLUSH, queues, &mut context).unwrap();
    rig.offer(VIRTIO_BLK_T_IN, 0, &[(DATA, 512, WRITE)]);
    rig.block
        .queue_ready(1, &mut rig.host.context(&ram))
        .unwrap();
    rig.wait(1);
    assert_eq!(ram.read_obj::<u8>(GuestAddress(DATA)).unwrap(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Random requests against a model of the disk's content, with either engine.
    #[test]
    fn what_was_written_is_what_is_read(
        steps in prop::collection::vec((0u8..4, 0u64..64, 1u32..9, any::<u8>()), 1..40),
        uring in any::<bool>(),
    ) {
        let (ram, file) = (ram(), image(&[0; 64 * 512]));
        let mut rig = Rig::new(&ram, &file, if uring { Wanted::IoUring } else { Wanted::Sync });
        let mut model = vec![0u8; 64 * 512];
        for (kind, sector, sectors, byte) in steps {
            let length = sectors as usize * 512;
            let start = sector as usize * 512;
            let fits = start + length <= model.len();
            let status = match kind {
                0 => {
                    ram.write_slice(&vec![byte; length], GuestAddress(DATA)).unwrap();
                    let chain = [(DATA, 100, READ), (DATA + 100, length as u32 - 100, READ)];
                    rig.request(VIRTIO_BLK_T_OUT, sector, &chain).0
                }
                1 => rig.request(VIRTIO_BLK_T_IN, sector, &[(DATA, length as u32, WRITE)]).0,
                2 => rig.range(VIRTIO_BLK_T_WRITE_ZEROES, sector, sectors, u32::from(byte & 1)),
                _ => rig.request(VIRTIO_BLK_T_FLUSH, 0, &[]).0,
            };
            prop_assert_eq!(status == 0, fits || kind == 3);
            if fits {
                match kind {
                    0 => model[start..start + length].fill(byte),
                    1 => {
                        let mut got = vec![0; length];
                        ram.read_slice(&mut got, GuestAddress(DATA)).unwrap();
                        prop_assert_eq!(&got[..], &model[start..start + length]);
                    }
                    2 => model[start..start + length].fill(0),
                    _ => {}
                }
            }
        }
        prop_assert_eq!(content(&file), model);
    }
}
