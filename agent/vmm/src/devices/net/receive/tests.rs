//! A model of driver, TAP and event loop in every order: whatever happens, nothing waits for ever.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use crn_protocol::devices::{Limits, Rate};
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::devices::testing::{Driver, WRITE, ram};

/// A TAP's queue.
#[derive(Default)]
struct Packets(RefCell<VecDeque<Vec<u8>>>);

impl Source for Packets {
    fn read(&self, packet: &mut [u8]) -> io::Result<usize> {
        let next = self.0.borrow_mut().pop_front();
        let next = next.ok_or(io::ErrorKind::WouldBlock)?;
        packet[..next.len()].copy_from_slice(&next);
        Ok(next.len())
    }

    fn scatter(&self, packet: &[VolatileSlice<'_>]) -> io::Result<usize> {
        let next = self.0.borrow_mut().pop_front();
        let next = next.ok_or(io::ErrorKind::WouldBlock)?;
        let mut at = 0;
        for slice in packet {
            let end = next.len().min(at + slice.len());
            slice.copy_from(&next[at..end]);
            at = end;
        }
        Ok(at)
    }
}

#[derive(Debug, Clone, Copy)]
enum Happens {
    PacketArrives,
    DriverAddsBuffer,
    LoopSeesEdge,
    LoopSeesRing,
    TimePasses(u16),
}

const BUFFERS: u64 = 0x10_0000;
const LENGTH: usize = 100;

struct Model<'m> {
    ram: &'m Ram,
    driver: Driver<'m>,
    event_idx: bool,
    receiver: Receiver,
    packets: Packets,
    limiter: Limiter,
    counters: NicCounters,
    now: Instant,
    edge: bool,
    rung: bool,
    sent: u64,
    offered: u64,
}

impl<'m> Model<'m> {
    fn new(ram: &'m Ram, event_idx: bool, limits: &Limits) -> Self {
        let driver = Driver::new(ram, 0);
        let mut receiver = Receiver::default();
        receiver.set_queue(Some(driver.live_with(event_idx)), false);
        let now = Instant::now();
        Self {
            ram,
            driver,
            event_idx,
            receiver,
            packets: Packets::default(),
            limiter: Limiter::new(limits, now),
            counters: NicCounters::default(),
            now,
            edge: false,
            rung: false,
            sent: 0,
            offered: 0,
        }
    }

    fn receive(&mut self) {
        self.receiver
            .receive(
                &self.packets,
                self.ram,
                &mut self.limiter,
                &mut self.counters,
                self.now,
            )
            .unwrap();
    }

    fn delivered(&self) -> u64 {
        u64::from(self.driver.used().0)
    }

    fn happens(&mut self, what: Happens) {
        match what {
            Happens::PacketArrives => {
                let mut packet = vec![0; HEADER];
                packet.extend(self.sent.to_le_bytes());
                packet.resize(LENGTH, 0);
                self.packets.0.borrow_mut().push_back(packet);
                self.sent += 1;
                self.edge = true;
            }
            Happens::DriverAddsBuffer if self.offered - self.delivered() < 64 => {
                let at = BUFFERS + self.offered % 64 * 0x100;
                self.driver.offer(&[(at, LENGTH as u32, WRITE)]);
                self.offered += 1;
                self.rung |= self.driver.wants_ring(self.event_idx);
            }
            Happens::DriverAddsBuffer => {}
            Happens::LoopSeesEdge => {
                if std::mem::take(&mut self.edge) {
                    self.receiver.readable();
                    self.receive();
                }
            }
            Happens::LoopSeesRing => {
                let own = self.driver.doorbell.read().is_ok();
                if std::mem::take(&mut self.rung) || own {
                    self.receive();
                }
            }
            Happens::TimePasses(millis) => {
                self.now += Duration::from_millis(u64::from(millis));
                if self.receiver.wait.until().is_some_and(|at| at <= self.now) {
                    self.receive();
                }
            }
        }
    }

    /// The event loop sees all there is to see.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.happens(Happens::LoopSeesEdge);
            self.happens(Happens::LoopSeesRing);
            match self.receiver.wait.until() {
                Some(at) => {
                    self.now = self.now.max(at);
                    self.receive();
                }
                None if !self.edge && !self.rung => {
                    match self.driver.doorbell.read() {
                        Ok(_) => self.rung = true,
                        Err(_) => return,
                    };
                }
                None => {}
            }
        }
        panic!("never at rest");
    }
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        3 => Just(Happens::PacketArrives),
        3 => Just(Happens::DriverAddsBuffer),
        2 => Just(Happens::LoopSeesEdge),
        2 => Just(Happens::LoopSeesRing),
        1 => (0u16..50).prop_map(Happens::TimePasses),
    ]
}

proptest! {
    #[test]
    fn no_order_of_events_loses_a_wake_up(
        steps in prop::collection::vec(happens(), 0..400),
        event_idx in any::<bool>(),
        limited in any::<bool>(),
    ) {
        let ram = ram();
        let rate = Rate { per_second: 200, burst: 3 };
        let limits = Limits { operations: limited.then_some(rate), bytes: None };
        let mut model = Model::new(&ram, event_idx, &limits);
        for step in steps {
            model.happens(step);
        }
        model.settle();
        prop_assert_eq!(model.delivered(), model.sent.min(model.offered), "at rest with work left");
        // Buffers for the rest make all of it arrive, in order.
        while model.delivered() < model.sent {
            let before = model.delivered();
            model.happens(Happens::DriverAddsBuffer);
            model.settle();
            prop_assert!(model.delivered() > before);
            let at = BUFFERS + before % 64 * 0x100 + HEADER as u64;
            prop_assert_eq!(ram.read_obj::<u64>(GuestAddress(at)).unwrap(), before);
        }
        prop_assert_eq!(model.counters.rx_packets, model.sent);
    }
}

#[test]
fn a_packet_is_spread_over_mergeable_buffers_and_dropped_without_them() {
    let ram = ram();
    let (unlimited, now) = (Limits::default(), Instant::now());
    for mergeable in [true, false] {
        let mut model = Model::new(&ram, false, &unlimited);
        let queue = model.driver.live();
        model.receiver.set_queue(Some(queue), mergeable);
        for index in 0..3 {
            model.driver.offer(&[(BUFFERS + index * 0x100, 40, WRITE)]);
        }
        model.happens(Happens::PacketArrives);
        model.happens(Happens::LoopSeesEdge);
        let counters = model.counters;
        if mergeable {
            assert_eq!((counters.rx_packets, model.delivered()), (1, 3));
            let buffers: u16 = ram
                .read_obj(GuestAddress(BUFFERS + NUM_BUFFERS as u64))
                .unwrap();
            assert_eq!((buffers, model.driver.used().2), (3, 20));
        } else {
            assert_eq!((counters.rx_drops, model.driver.used().2), (1, 0));
        }
        assert!(model.now >= now);
    }
}

#[test]
fn hostile_buffers_drop_packets_and_nothing_else() {
    let ram = ram();
    let mut model = Model::new(&ram, false, &Limits::default());
    let queue = model.driver.live();
    model.receiver.set_queue(Some(queue), true);
    model.driver.offer(&[(u64::MAX - 8, 4096, WRITE)]);
    model.driver.offer(&[(BUFFERS, 4096, 0)]);
    model.driver.offer(&[(BUFFERS, 4, WRITE)]);
    model.driver.offer(&[(BUFFERS, 4096, WRITE)]);
    for _ in 0..4 {
        model.happens(Happens::PacketArrives);
    }
    model.happens(Happens::LoopSeesEdge);
    assert_eq!((model.counters.rx_drops, model.counters.rx_packets), (3, 1));
}

/// Packets as a stream brings them, and buffers as Linux offers them.
#[derive(Debug, Clone)]
enum Traffic {
    Packet(usize),
    Buffers(usize),
    Edge,
    Ring,
    TimePasses(u16),
}

fn traffic() -> impl Strategy<Value = Traffic> {
    prop_oneof![
        3 => prop_oneof![1usize..200, 4000usize..=65_550].prop_map(Traffic::Packet),
        3 => (1usize..60).prop_map(Traffic::Buffers),
        2 => Just(Traffic::Edge),
        2 => Just(Traffic::Ring),
        1 => (0u16..50).prop_map(Traffic::TimePasses),
    ]
}

proptest! {
    // Each case moves a MiB.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn packets_of_all_sizes_arrive_whole_and_in_order(
        steps in prop::collection::vec(traffic(), 0..60),
        event_idx in any::<bool>(),
        limited in any::<bool>(),
    ) {
        const BUFFER: usize = 1536;
        const SLOTS: u64 = 128;
        let ram = ram();
        let rate = Rate { per_second: 200, burst: 3 };
        let limits = Limits { operations: limited.then_some(rate), bytes: None };
        let mut model = Model::new(&ram, event_idx, &limits);
        let queue = model.driver.live_with(event_idx);
        model.receiver.set_queue(Some(queue), true);
        let mut lengths = VecDeque::new();
        // Reads what the device has used since `seen`, packet by packet.
        let mut seen = 0u64;
        let mut taken = 0u64;
        let mut look = |model: &mut Model<'_>, lengths: &mut VecDeque<usize>| {
            while seen < model.delivered() {
                let at = BUFFERS + seen % SLOTS * 0x800;
                let count: u16 = ram.read_obj(GuestAddress(at + NUM_BUFFERS as u64)).unwrap();
                let length: usize = lengths.pop_front().unwrap();
                prop_assert_eq!(usize::from(count), length.div_ceil(BUFFER));
                let mut bytes = Vec::new();
                for index in 0..u64::from(count) {
                    let mut part = vec![0; BUFFER.min(length - bytes.len())];
                    let at = BUFFERS + (seen + index) % SLOTS * 0x800;
                    ram.read_slice(&mut part, GuestAddress(at)).unwrap();
                    bytes.extend(part);
                }
                prop_assert!(bytes[HEADER..].iter().all(|byte| *byte == taken as u8));
                seen += u64::from(count);
                taken += 1;
            }
            Ok(())
        };
        let offer = |model: &mut Model<'_>, count: usize| {
            for _ in 0..count {
                if model.offered - model.delivered() < 60 {
                    let at = BUFFERS + model.offered % SLOTS * 0x800;
                    model.driver.offer(&[(at, BUFFER as u32, WRITE)]);
                    model.offered += 1;
                    model.rung |= model.driver.wants_ring(event_idx);
                }
            }
        };
        for step in steps {
            match step {
                Traffic::Packet(length) => {
                    let mut packet = vec![0; HEADER];
                    packet.resize(HEADER + length, model.sent as u8);
                    lengths.push_back(packet.len());
                    model.packets.0.borrow_mut().push_back(packet);
                    model.sent += 1;
                    model.edge = true;
                }
                Traffic::Buffers(count) => offer(&mut model, count),
                Traffic::Edge => model.happens(Happens::LoopSeesEdge),
                Traffic::Ring => model.happens(Happens::LoopSeesRing),
                Traffic::TimePasses(millis) => model.happens(Happens::TimePasses(millis)),
            }
            look(&mut model, &mut lengths)?;
        }
        while model.counters.rx_packets < model.sent {
            let before = model.counters.rx_packets;
            offer(&mut model, 60);
            model.settle();
            look(&mut model, &mut lengths)?;
            prop_assert!(model.counters.rx_packets > before, "at rest with work left");
        }
        prop_assert!(lengths.is_empty());
        prop_assert_eq!(model.counters.rx_drops, 0);
    }
}
