//! Random chains of random descriptors: the device answers, ignores or stops, and nothing else happens.

use std::sync::Arc;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::devices::testing::{Driver, Host, ram};

const HEADER: u64 = 0x10_0000;

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => Just(HEADER),
        4 => 0x20_0000u64..0x3f_0000,
        1 => 0x3f_f000u64..0x40_1000,
        1 => any::<u64>(),
    ]
}

fn length() -> impl Strategy<Value = u32> {
    prop_oneof![
        3 => Just(16u32),
        3 => Just(1u32),
        3 => Just(512u32),
        2 => 0u32..5000,
        1 => any::<u32>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn nothing_a_guest_can_say_gets_past_its_disk_and_its_memory(
        chains in prop::collection::vec(prop::collection::vec((address(), length(), prop_oneof![Just(0u16), Just(2u16)]), 1..6), 1..10),
        kinds in prop::collection::vec(prop_oneof![0u32..16, any::<u32>()], 10),
        sectors in prop::collection::vec(prop_oneof![0u64..32, any::<u64>()], 10),
        uring in any::<bool>(),
        read_only in any::<bool>(),
    ) {
        let ram = ram();
        let file = tempfile::tempfile().unwrap();
        file.set_len(16 * 512).unwrap();
        let engine = if uring { Wanted::IoUring } else { Wanted::Sync };
        let image = OwnedFd::from(file.try_clone().unwrap());
        let (mut block, _) = Block::new(image, read_only, "", 1, engine, &Limits::default()).unwrap();
        let mut driver = Driver::new(&ram, 0);
        let mut host = Host::new();
        let features = 1 << VIRTIO_BLK_F_FLUSH;
        block.activate(features, vec![driver.live()].into(), &mut host.context(&ram)).unwrap();
        for (index, chain) in chains.iter().enumerate() {
            ram.write_obj(kinds[index], GuestAddress(HEADER)).unwrap();
            ram.write_obj(sectors[index], GuestAddress(HEADER + 8)).unwrap();
            driver.offer(chain);
            block.queue_ready(0, &mut host.context(&ram)).unwrap();
        }
        block.flush().unwrap();
        // Every chain came back, and the file is as long as it was.
        prop_assert_eq!(usize::from(driver.used().0), chains.len());
        prop_assert_eq!(file.metadata().unwrap().len(), 16 * 512);
        prop_assert!(block.requests.is_empty());
        let memory = block.ram.clone().map(|ram| Arc::strong_count(&ram));
        prop_assert_eq!(memory, Some(2), "no buffer is held any more");
    }
}
