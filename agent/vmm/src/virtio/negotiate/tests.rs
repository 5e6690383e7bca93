//! Drivers by the book and others.

use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::*;
use crate::virtio::DeviceFault;

const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1;

fn negotiator() -> Negotiator {
    let ram = Arc::new(Ram::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap());
    let offer = Offer {
        device_id: 4,
        features: FEATURES,
        queue_sizes: vec![256, 64],
        config: vec![].into(),
    };
    let doorbells = (0..2)
        .map(|_| Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()))
        .collect();
    Negotiator::new(offer, Interrupt::new().unwrap(), doorbells, ram)
}

fn agree(negotiator: &mut Negotiator, features: u64) {
    for (register, value) in [
        (Register::Status, ACKNOWLEDGE),
        (Register::Status, DRIVER),
        (Register::DriverFeaturesSelect, 0),
        (Register::DriverFeatures, features as u32),
        (Register::DriverFeaturesSelect, 1),
        (Register::DriverFeatures, (features >> 32) as u32),
        (Register::Status, FEATURES_OK),
    ] {
        assert!(negotiator.write(register, value).is_none());
    }
}

fn describe_queue(negotiator: &mut Negotiator, index: u32, base: u32) {
    for (register, value) in [
        (Register::QueueSelect, index),
        (Register::QueueSize, 64),
        (Register::QueueDescriptorsLow, base),
        (Register::QueueDriverLow, base + 0x1000),
        (Register::QueueDeviceLow, base + 0x2000),
        (Register::QueueReady, 1),
    ] {
        assert!(negotiator.write(register, value).is_none());
    }
}

#[test]
fn a_driver_by_the_book_gets_its_queues_and_a_reset_takes_them_back() {
    let mut negotiator = negotiator();
    agree(&mut negotiator, FEATURES);
    assert_eq!(negotiator.read(Register::Status), FEATURES_OK);
    describe_queue(&mut negotiator, 0, 0x1_0000);
    describe_queue(&mut negotiator, 1, 0x2_0000);
    assert_eq!(negotiator.read(Register::QueueReady), 1);
    let Some(Change::Activate { features, queues }) = negotiator.write(Register::Status, DRIVER_OK)
    else {
        panic!("not activated");
    };
    assert_eq!((features, queues.count()), (FEATURES, 2));
    assert_eq!(negotiator.read(Register::Status), DRIVER_OK);
    assert!(matches!(
        negotiator.write(Register::Status, 0),
        Some(Change::Reset)
    ));
    assert_eq!(negotiator.read(Register::Status), 0);
    assert_eq!(negotiator.read(Register::QueueReady), 0);
}

#[test]
fn features_that_were_not_offered_are_refused() {
    for features in [FEATURES | 1 << 7, FEATURES & !(1 << VIRTIO_F_VERSION_1)] {
        let mut negotiator = negotiator();
        agree(&mut negotiator, features);
        assert_eq!(negotiator.read(Register::Status), DRIVER);
    }
}

#[test]
fn a_queue_outside_memory_or_of_a_wrong_size_fails_the_device() {
    for (size, base) in [
        (64, 0x1000_0000),
        (63, 0x1_0000),
        (512, 0x1_0000),
        (0, 0x1_0000),
        (0x1_0040, 0x1_0000),
    ] {
        let mut negotiator = negotiator();
        agree(&mut negotiator, FEATURES);
        describe_queue(&mut negotiator, 1, 0x2_0000);
        assert!(negotiator.write(Register::QueueSelect, 0).is_none());
        assert!(negotiator.write(Register::QueueSize, size).is_none());
        assert!(
            negotiator
                .write(Register::QueueDescriptorsLow, base)
                .is_none()
        );
        assert!(
            negotiator
                .write(Register::QueueDriverLow, base + 0x1000)
                .is_none()
        );
        assert!(
            negotiator
                .write(Register::QueueDeviceLow, base + 0x2000)
                .is_none()
        );
        assert!(negotiator.write(Register::QueueReady, 1).is_none());
        assert!(negotiator.write(Register::Status, DRIVER_OK).is_none());
        assert_ne!(
            negotiator.read(Register::Status) & VIRTIO_CONFIG_S_FAILED,
            0
        );
    }
}

#[test]
fn a_queue_the_driver_leaves_out_is_not_live() {
    let mut negotiator = negotiator();
    agree(&mut negotiator, FEATURES);
    describe_queue(&mut negotiator, 1, 0x2_0000);
    let Some(Change::Activate { mut queues, .. }) = negotiator.write(Register::Status, DRIVER_OK)
    else {
        panic!("not activated");
    };
    assert!(matches!(
        queues.require(0),
        Err(DeviceFault::QueueMissing(0))
    ));
    assert!(queues.take(1).is_some() && queues.take(1).is_none());
    assert_eq!(negotiator.read(Register::QueueReady), 1);
    assert!(negotiator.write(Register::QueueSelect, 0).is_none());
    assert_eq!(negotiator.read(Register::QueueReady), 0);
}

#[test]
fn a_device_cut_off_from_memory_stays_stopped_until_it_is_reset() {
    let mut negotiator = negotiator();
    assert!(negotiator.revoke().is_none(), "nothing to stop");
    agree(&mut negotiator, FEATURES);
    describe_queue(&mut negotiator, 0, 0x1_0000);
    assert!(negotiator.write(Register::Status, DRIVER_OK).is_some());
    assert!(matches!(negotiator.revoke(), Some(Change::Reset)));
    assert!(negotiator.revoke().is_none());
    assert!(negotiator.write(Register::Status, DRIVER_OK).is_none());
    assert!(negotiator.write(Register::Status, 0).is_none());
    assert_eq!(negotiator.read(Register::Status), 0);
}

#[test]
fn states_cannot_be_skipped() {
    for status in [DRIVER_OK, FEATURES_OK, 2, 4, 8] {
        let mut negotiator = negotiator();
        assert!(negotiator.write(Register::Status, status).is_none());
        assert_ne!(
            negotiator.read(Register::Status) & VIRTIO_CONFIG_S_FAILED,
            0,
            "{status}"
        );
    }
}
