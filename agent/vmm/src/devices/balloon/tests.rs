//! The balloon as its driver and the controller see it.

use proptest::prelude::*;
use vm_memory::Bytes;

use super::*;
use crate::devices::testing::{Driver, Host, READ, WRITE, ram};

const NUMBERS: u64 = 0x8_0000;
const ALL: u64 = 1 << F_STATS_VQ | 1 << F_PAGE_REPORTING;

struct Rig<'m> {
    ram: &'m Ram,
    balloon: Balloon,
    offer: Offer,
    host: Host,
    drivers: Vec<Driver<'m>>,
}

impl<'m> Rig<'m> {
    fn new(ram: &'m Ram, features: u64, queues: u64) -> Self {
        let (mut balloon, offer) = Balloon::new(3);
        let drivers: Vec<_> = (0..queues)
            .map(|index| Driver::new(ram, index * 0x1_0000))
            .collect();
        let live: Vec<_> = drivers.iter().map(Driver::live).collect();
        let mut host = Host::new();
        balloon
            .activate(features, live.into(), &mut host.context(ram))
            .unwrap();
        Self {
            ram,
            balloon,
            offer,
            host,
            drivers,
        }
    }

    fn ring(&mut self, queue: usize) {
        let mut context = self.host.context(self.ram);
        self.balloon.queue_ready(queue, &mut context).unwrap();
    }

    /// Names pages on a queue.
    fn name(&mut self, queue: usize, pages: &[u32]) {
        let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
        self.ram.write_slice(&bytes, GuestAddress(NUMBERS)).unwrap();
        self.drivers[queue].offer(&[(NUMBERS, bytes.len() as u32, READ)]);
        self.ring(queue);
    }

    fn byte(&self, page: u64) -> u8 {
        self.ram.read_obj(GuestAddress(page * PAGE)).unwrap()
    }
}

#[test]
fn inflated_pages_are_empty_and_their_neighbours_are_not() {
    let ram = ram();
    ram.write_slice(&[7; 0x20_0000], GuestAddress(0x20_0000))
        .unwrap();
    let mut rig = Rig::new(&ram, ALL, 4);
    rig.name(INFLATE, &[0x203, 0x201, 0x202, 0x202, 0x210]);
    for page in [0x201, 0x202, 0x203, 0x210] {
        assert_eq!(rig.byte(page), 0);
    }
    for page in [0x200, 0x204, 0x20f, 0x211] {
        assert_eq!(rig.byte(page), 7);
    }
    rig.name(DEFLATE, &[0x201]);
    let counters = rig.balloon.counters;
    assert_eq!(
        (counters.inflated_bytes, counters.deflated_bytes),
        (4 * PAGE, PAGE)
    );
    assert_eq!(counters.refused, 0);
}

#[test]
fn pages_outside_guest_memory_are_refused() {
    let ram = ram();
    let mut rig = Rig::new(&ram, ALL, 4);
    rig.name(INFLATE, &[0x400, u32::MAX, 0xf_ffff]);
    let counters = rig.balloon.counters;
    assert_eq!((counters.inflated_bytes, counters.refused), (0, 3));
    // A chain outside memory, and one that is writable only.
    rig.drivers[0].offer(&[(u64::MAX - 3, 400, READ)]);
    rig.drivers[0].offer(&[(NUMBERS, 400, WRITE)]);
    rig.ring(INFLATE);
    assert_eq!(rig.drivers[0].used().0, 3);
}

#[test]
fn reported_ranges_go_back_whole_pages_only_and_the_queue_moves_up_when_statistics_are_not_taken() {
    for (features, queue) in [(ALL, 3), (1 << F_PAGE_REPORTING, 2)] {
        let ram = ram();
        ram.write_slice(&[7; 0x20_0000], GuestAddress(0x20_0000))
            .unwrap();
        let mut rig = Rig::new(&ram, features, queue as u64 + 1);
        rig.drivers[queue].offer(&[
            (0x20_0000, 0x10_0000, WRITE),
            (0x30_0800, 0x1000, WRITE),
            (0x3f_f000, 0x2000, WRITE),
            (1 << 40, 0x1000, WRITE),
        ]);
        rig.ring(queue);
        assert_eq!(rig.balloon.counters.reported_bytes, 0x10_0000);
        assert_eq!(rig.balloon.counters.refused, 3);
        assert_eq!((rig.byte(0x200), rig.byte(0x2ff)), (0, 0));
        assert_eq!((rig.byte(0x300), rig.byte(0x3ff)), (7, 7));
        assert_eq!(rig.drivers[queue].used().0, 1);
    }
}

#[test]
fn statistics_are_kept_until_newer_ones_are_asked_for() {
    let ram = ram();
    let mut rig = Rig::new(&ram, ALL, 4);
    let mut pairs = Vec::new();
    for (tag, value) in [(TOTAL_TAG, 1000u64), (FREE_TAG, 300), (0xffff, 9)] {
        pairs.extend(tag.to_le_bytes());
        pairs.extend(value.to_le_bytes());
    }
    ram.write_slice(&pairs, GuestAddress(NUMBERS)).unwrap();
    rig.drivers[2].offer(&[(NUMBERS, pairs.len() as u32, READ)]);
    rig.ring(2);
    let DeviceCounters::Balloon(counters) = rig.balloon.counters() else {
        panic!("not a balloon's");
    };
    let guest = counters.guest.unwrap();
    assert_eq!((guest.total, guest.free), (1000, 300));
    assert_eq!(rig.drivers[2].used().0, 0, "the buffer is kept");
    rig.balloon.refresh(&mut rig.host.context(&ram)).unwrap();
    assert_eq!(rig.drivers[2].used().0, 1);
    rig.balloon.refresh(&mut rig.host.context(&ram)).unwrap();
    assert_eq!(rig.drivers[2].used().0, 1, "asked once");
}

const TOTAL_TAG: u16 = 5;
const FREE_TAG: u16 = 4;

#[test]
fn a_new_target_is_told_to_the_driver_and_its_answer_to_the_controller() {
    let ram = ram();
    let mut rig = Rig::new(&ram, ALL, 4);
    assert_eq!(rig.offer.config.le32(NUM_PAGES), 3 * 256);
    let generation = rig.offer.config.generation();
    assert!(rig.balloon.set_balloon(5, &mut rig.host.context(&ram)));
    assert_eq!(rig.offer.config.le32(NUM_PAGES), 5 * 256);
    assert_eq!(rig.offer.config.generation(), generation + 1);
    assert_eq!(rig.host.interrupt.status(), 2);
    rig.offer.config.write(NUM_PAGES, &[1; 4]);
    rig.offer.config.write(ACTUAL, &(4 * 256u32).to_le_bytes());
    let DeviceCounters::Balloon(counters) = rig.balloon.counters() else {
        panic!("not a balloon's");
    };
    assert_eq!((counters.target_mib, counters.actual_mib), (5, 4));
    rig.balloon.reset();
    assert_eq!(rig.offer.config.le32(ACTUAL), 0);
}

proptest! {
    #[test]
    fn runs_name_each_page_once(pages in prop::collection::vec(prop_oneof![0u32..40, any::<u32>()], 0..200)) {
        let ram = ram();
        let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
        ram.write_slice(&bytes, GuestAddress(NUMBERS)).unwrap();
        let mut driver = Driver::new(&ram, 0);
        driver.offer(&[(NUMBERS, bytes.len() as u32, READ)]);
        let chain = driver.live().pop(&ram).unwrap().unwrap();
        let mut buffers = Buffers::of(chain, &ram).unwrap_or_default();
        let named: Vec<u64> = runs(&mut buffers.readable)
            .into_iter()
            .flat_map(|(first, count)| u64::from(first)..u64::from(first) + count)
            .collect();
        let mut expected: Vec<u64> = pages.into_iter().map(u64::from).collect();
        expected.sort_unstable();
        expected.dedup();
        prop_assert_eq!(named, expected);
    }
}
