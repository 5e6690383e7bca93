//! The device as its driver sees it, over a TAP when the host lets us make one.

use super::tap::testing::{SEVERAL, queues};
use super::*;
use crate::devices::testing::{Driver, Host, READ, WRITE, ram};
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

const COMMAND: u64 = 0x10_0000;
const ANSWER: u64 = 0x10_0100;

fn device(features: u64) -> Net {
    let limits = NicLimits::default();
    Net {
        pairs: Vec::new(),
        control: None,
        control_index: 2,
        agreed: features,
        offloads: 0,
        pairs_in_use: 1,
        before: None,
        receive_limiter: Limiter::new(&limits.receive, Instant::now()),
        send_limiter: Limiter::new(&limits.send, Instant::now()),
        counters: NicCounters::default(),
    }
}

/// Sends one command to a device with these features; its answer.
fn command(features: u64, bytes: &[u8]) -> u8 {
    let ram = ram();
    let mut driver = Driver::new(&ram, 0);
    ram.write_slice(bytes, GuestAddress(COMMAND)).unwrap();
    ram.write_obj(0xffu8, GuestAddress(ANSWER)).unwrap();
    driver.offer(&[(COMMAND, bytes.len() as u32, READ), (ANSWER, 1, WRITE)]);
    let mut net = device(features);
    net.control = Some(driver.live());
    net.queue_ready(2, &mut Host::new().context(&ram)).unwrap();
    assert_eq!(driver.used(), (1, 0, 1));
    ram.read_obj(GuestAddress(ANSWER)).unwrap()
}

#[test]
fn commands_that_are_unknown_or_were_not_agreed_are_answered_with_an_error() {
    let all = u64::MAX;
    let offloads = |bits: u64| [&[5, 0][..], &bits.to_le_bytes()].concat();
    assert_eq!(command(all, &offloads(offload::GUEST)), 0);
    assert_eq!(command(all, &offloads(1)), 1, "no guest offload");
    assert_eq!(command(0, &offloads(0)), 1, "not agreed");
    assert_eq!(command(all, &[5, 0, 1]), 1, "cut short");
    assert_eq!(command(all, &[4, 0, 1, 0]), 1, "more pairs than there are");
    assert_eq!(command(all, &[4, 0, 0, 0]), 1);
    assert_eq!(command(all, &[0, 0, 1]), 1, "receive mode");
    assert_eq!(command(all, &[77, 3]), 1);
    assert_eq!(command(all, &[4]), 1);
}

proptest! {
    #[test]
    fn any_command_parses_within_its_bounds(bytes in prop::collection::vec(any::<u8>(), 1..40), features in any::<u64>(), pairs in 1u16..9) {
        let ram = ram();
        ram.write_slice(&bytes, GuestAddress(COMMAND)).unwrap();
        let mut driver = Driver::new(&ram, 0);
        driver.offer(&[(COMMAND, bytes.len() as u32, READ)]);
        let chain = driver.live().pop(&ram).unwrap().unwrap();
        let mut buffers = Buffers::of(chain, &ram).unwrap();
        match control::parse(&mut buffers.readable, features, pairs) {
            Some(Command::Pairs(count)) => prop_assert!((1..=pairs).contains(&count)),
            Some(Command::Offloads(bits)) => prop_assert_eq!(bits & !(features & offload::GUEST), 0),
            None => {}
        }
    }
}

#[test]
fn the_configuration_tells_address_pairs_and_mtu() {
    assert_eq!(
        config([2, 0, 0, 0, 0, 1], 4, 1500),
        [2, 0, 0, 0, 0, 1, 0, 0, 4, 0, 0xdc, 5]
    );
}

#[test]
fn a_pipe_is_no_tap() {
    let (reader, _writer) = io::pipe().unwrap();
    let result = Net::new(vec![reader.into()], [2; 6], 1500, &NicLimits::default());
    assert!(matches!(result, Err(TapError::NotATap(_))));
}

fn named(suffix: &str) -> String {
    format!("crnt{}{suffix}", std::process::id() % 1_000_000)
}

#[test]
fn a_tap_has_to_have_a_header_and_as_many_queues_as_are_used() {
    let limits = NicLimits::default();
    let Some(bare) = queues(&named("a"), 1, 0) else {
        return;
    };
    let result = Net::new(bare, [2; 6], 1500, &limits);
    assert!(matches!(result, Err(TapError::Flags(_))));
    let single = queues(&named("b"), 1, libc::IFF_VNET_HDR).unwrap();
    let (_, offer) = Net::new(single, [2; 6], 1500, &limits).unwrap();
    assert_eq!(offer.queue_sizes, [256, 256, 64]);
    assert_eq!(offer.features & 1 << VIRTIO_NET_F_MQ, 0);
    let twice = [
        queues(&named("c"), 1, libc::IFF_VNET_HDR).unwrap(),
        queues(&named("d"), 1, libc::IFF_VNET_HDR).unwrap(),
    ];
    let result = Net::new(twice.into_iter().flatten().collect(), [2; 6], 1500, &limits);
    assert!(matches!(result, Err(TapError::Flags(_))));
}

#[test]
fn two_pairs_over_a_real_tap_take_commands_and_count_what_is_refused() {
    let Some(taps) = queues(&named("e"), 2, SEVERAL) else {
        return;
    };
    let (mut net, offer) = Net::new(taps, [2, 0, 0, 0, 0, 1], 1500, &NicLimits::default()).unwrap();
    assert_ne!(offer.features & 1 << VIRTIO_NET_F_MQ, 0);
    assert_eq!(offer.queue_sizes, [256, 256, 256, 256, 64]);
    let ram = ram();
    let mut drivers: Vec<_> = (0..5)
        .map(|index| Driver::new(&ram, index * 0x1_0000))
        .collect();
    let live: Vec<_> = drivers.iter().map(Driver::live).collect();
    let mut host = Host::new();
    net.start(&mut host.context(&ram)).unwrap();
    let mut context = host.context(&ram);
    net.activate(offer.features, live.into(), &mut context)
        .unwrap();
    for (pairs, answer) in [(2u8, 0u8), (1, 0), (3, 1), (2, 0)] {
        ram.write_slice(&[4, 0, pairs, 0], GuestAddress(COMMAND))
            .unwrap();
        drivers[4].offer(&[(COMMAND, 4, READ), (ANSWER, 1, WRITE)]);
        net.queue_ready(4, &mut host.context(&ram)).unwrap();
        assert_eq!(ram.read_obj::<u8>(GuestAddress(ANSWER)).unwrap(), answer);
    }
    // The interface is down, so the host takes no packet; nor are a header alone and an endless one any.
    drivers[3].offer(&[(COMMAND, 100, READ)]);
    drivers[3].offer(&[(COMMAND, 12, READ)]);
    drivers[3].offer(&[(COMMAND, u32::MAX, READ)]);
    net.queue_ready(3, &mut host.context(&ram)).unwrap();
    assert_eq!((drivers[3].used().0, net.counters.tx_drops), (3, 3));
    net.reset();
    net.queue_ready(3, &mut host.context(&ram)).unwrap();
    assert_eq!(net.deadline(), None);
}

/// A host that notes the length of what it is given.
#[derive(Default)]
struct Wire(std::cell::RefCell<Vec<usize>>);

impl send::Sink for Wire {
    fn write(&self, packet: &[vm_memory::VolatileSlice<'_>]) -> io::Result<usize> {
        let length = packet.iter().map(vm_memory::VolatileMemory::len).sum();
        self.0.borrow_mut().push(length);
        Ok(length)
    }
}

#[test]
fn a_sender_beyond_its_limit_waits_for_its_moment_and_not_for_the_drivers_ring() {
    use crn_protocol::devices::{Limits, Rate};

    let ram = ram();
    let mut driver = Driver::new(&ram, 0);
    let mut sender = Sender::default();
    sender.set_queue(Some(driver.live()));
    let now = Instant::now();
    let rate = Rate {
        per_second: 1000,
        burst: 1500,
    };
    let limits = Limits {
        bytes: Some(rate),
        operations: None,
    };
    let mut limiter = Limiter::new(&limits, now);
    let (wire, mut counters) = (Wire::default(), NicCounters::default());
    for _ in 0..3 {
        driver.offer(&[(COMMAND, HEADER as u32, READ), (COMMAND, 1000, READ)]);
    }
    sender
        .send(&wire, &ram, &mut limiter, &mut counters, now)
        .unwrap();
    assert_eq!((driver.used().0, counters.tx_throttled), (1, 1));
    let next = sender.wait.until().unwrap();
    assert_eq!(next - now, std::time::Duration::from_millis(500));
    sender
        .send(&wire, &ram, &mut limiter, &mut counters, now)
        .unwrap();
    assert_eq!(driver.used().0, 1);
    sender
        .send(&wire, &ram, &mut limiter, &mut counters, next)
        .unwrap();
    assert_eq!((driver.used().0, counters.tx_bytes), (2, 2000));
    assert_eq!(*wire.0.borrow(), [HEADER + 1000; 2]);
    sender.set_queue(None);
    assert_eq!(sender.wait.until(), None);
}
