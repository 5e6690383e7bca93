//! The device as its driver sees it, over a TAP when the host lets us make one.

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
